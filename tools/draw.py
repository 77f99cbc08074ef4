"""Draw what a sampler draws over an epoch: kinds of samples, lesion sizes, draws of each case and of each lesion.

draw.py experiments/mine.yaml
draw.py experiments/mine.yaml sampler.name=lesion_balanced --epoch 3 --out lesions.png
draw.py experiments/mine.yaml --all

A picture goes beside the run directory (..._drawn.png), a table to the screen. No network is built and nothing trained.
Of a run whose sampler follows the loss, the epoch is that of the last checkpoint, with the losses it has seen.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
from collections.abc import Sequence
from typing import Any

import registry
from core.build import Plan, build, make_plan
from core.data.prepare import is_complete, prepare_experiment
from core.data.store import Store
from core.document import ConfigError, wrap
from core.errors import UserError
from core.experiment import Experiment, load, run_tool
from core.report.drawn import draw, table
from core.train import checkpoint as checkpoints
from core.train.assemble import split_parts
from core.train.feedback import Feedback


def main() -> int:
    """Build store, data set and sampler; draw an order of each sampler that is wanted."""
    args = _parse()
    registry.discover("plugins")
    experiment = load(args.experiment, args.overrides)
    if args.epoch is not None and args.epoch < 0:
        raise UserError(f"--epoch must not be negative, got {args.epoch}")
    if not is_complete(experiment.store):
        report = prepare_experiment(experiment)
        if report.bad:
            raise UserError(report.table())
    store = Store(experiment.store)
    cases = split_parts(experiment, store)[0]["train"]
    plan = experiment.dataset
    dataset = build(plan, store=store, cases=cases, geometry=experiment.geometry, lesions=False)
    synthetic = any(store.info(case).origin.startswith("PHANTOM") for case in cases)
    out = args.out or experiment.run.with_name(f"{experiment.run.name}_drawn.png")
    for name in registry.names("sampler") if args.all else [experiment.sampler.name]:
        try:
            sampler = build(_plan(experiment, name), records=dataset.records)
        except ConfigError as error:
            if not args.all:
                raise
            print(f"{name} does not apply: {error.__cause__ or error}\n")
            continue
        epoch, order, note = _order(experiment, sampler, name, args.epoch)
        file = out.with_name(f"{out.stem}_{name}{out.suffix}") if args.all else out
        file.parent.mkdir(parents=True, exist_ok=True)
        title = f"sampler {name} on dataset {plan.name}, epoch {epoch}{' (PHANTOM: synthetic scans)' * synthetic}"
        draw(file, dataset.records, order, title=title)
        print(f"{title}\n{table(dataset.records, order)}\n{note}written to {file}\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="an experiment file or a run directory")
    parser.add_argument("overrides", nargs="*", help="e.g. sampler.name=lesion_balanced dataset.name=patches")
    parser.add_argument("--epoch", type=int, help="which epoch (default: 0)")
    parser.add_argument("--out", type=Path, help="the picture; with --all, the sampler's name is added to each")
    parser.add_argument("--all", action="store_true", help="every sampler there is, with its defaults")
    return parser.parse_intermixed_args()


def _plan(experiment: Experiment, name: str) -> Plan:
    """The experiment's own sampler, or another one with its defaults."""
    if name == experiment.sampler.name:
        return experiment.sampler
    problems: list[str] = []
    plan = make_plan("sampler", wrap({"name": name}), "sampler", problems)
    if plan is None:
        raise ConfigError(problems)
    return plan


def _order(experiment: Experiment, sampler: Any, name: str, wanted: int | None) -> tuple[int, Sequence[int], str]:
    """The epoch, its order as far as it fills batches, and a note."""
    seed, batch = experiment.train.seed, experiment.train.batch
    length = len(sampler.order(seed, 0))
    steps, epoch, note = max(length // batch, 1), wanted or 0, ""
    if hasattr(sampler, "observe"):
        file = checkpoints.find(experiment.run, "last")
        note = "note: it follows the loss, and nothing has been trained: all samples count alike\n"
        if wanted is None and name == experiment.sampler.name and file.is_file():
            state = checkpoints.load(file)
            feedback = Feedback(sampler)
            feedback.load_state_dict(state["sampler"])
            epoch, within = divmod(int(state["step"]), steps)
            if within == 0:
                feedback.begin_epoch()
            note = f"note: with the losses of {file}\n"
    return epoch, list(sampler.order(seed, epoch))[: steps * batch], note


if __name__ == "__main__":
    run_tool(main)
