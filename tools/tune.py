"""Choose a run's post-processing on its validation split, and on nothing else.

    python tools/tune.py runs/NAME
    python tools/tune.py runs/NAME --grid drop_small.min_ml=off,0.02,0.05 --objective tumour.dice

The network runs once a validation case; every setting of the grid is then applied to its output and judged. Writes
tuned.yaml (which evaluate.py and predict.py take from then on) and tune.csv into the run.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import registry
from core import dist
from core.data.store import Store
from core.data.summary import check_grid
from core.errors import UserError
from core.experiment import run_tool
from core.infer.run import Run, digest, load_run
from core.parallel import map_cases
from core.report.tables import write_csv
from core.tune import grid as grids
from core.tune import page, record
from core.tune.choose import Choice, choose
from core.tune.grid import Grid
from core.tune.objective import Objective, make_objective
from core.tune.search import try_all, validation_cases


def main() -> int:
    """Try every setting, say what was found, write the choice."""
    args = _parse()
    registry.discover("plugins")
    if dist.launched():
        raise UserError("tools/tune.py runs in one process; start it without torchrun")
    run = load_run(args.run, args.checkpoint, args.device, args.overrides, tuned=False)
    if (run.folder / record.FILE).exists() and not args.overwrite:
        raise UserError(f"{run.folder / record.FILE} exists and is left as it is; --overwrite chooses again")
    store = Store(run.experiment.store)
    check_grid(store.root, run.experiment.prepare)
    cases = validation_cases(run, store)
    grid = grids.arrange(run.experiment.postprocess, grids.read(args.grid))
    objective = make_objective(args.objective, args.mode, run.metrics)
    print(_head(run, store, cases, grid, objective), flush=True)
    patients = [store.info(case).patient for case in cases]
    kept = try_all(run, store, cases, grid, objective)
    choice = choose(kept, patients, objective, _each)
    found = page.rows(grid, choice)
    print(f"\n{page.table(found, objective)}\n\n{page.judgement(choice, grid, objective, patients)}\n")
    write_csv(run.folder / "tune.csv", "tune", found)
    # Last: with it the choice counts.
    record.write(run.folder, _tuned(run, cases, patients, grid, objective, choice, args.overrides))
    print(f"written to {run.folder}: tune.csv, {record.FILE}; evaluate.py and predict.py take it from now on")
    print(f"next: python tools/evaluate.py {shlex.quote(str(args.run))}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("overrides", nargs="*", help="dotted paths, e.g. inferer.batch=8 'postprocess=[]'")
    parser.add_argument(
        "--grid",
        action="append",
        default=[],
        help="what to try, e.g. drop_small.min_ml=off,0.02,0.05 (may be repeated), a post-processor's node with lists "
        f"for values, or a YAML file with a list of such nodes; 'off' leaves the step out (default: "
        f"{' and '.join(grids.DEFAULT)})",
    )
    parser.add_argument(
        "--objective", default="score", help="score, or a figure of the summary such as tumour.dice (default: score)"
    )
    parser.add_argument("--mode", choices=("max", "min"), help="whether the objective is to be great or small")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a file (default: best)")
    parser.add_argument("--device", help="e.g. cpu, cuda:1 (default: a GPU where there is one)")
    parser.add_argument("--overwrite", action="store_true", help="choose again, and replace the run's tuned.yaml")
    return parser.parse_intermixed_args()


def _each(function: Callable[[str], int | None], patients: Sequence[str]) -> list[int | None]:
    found = []
    for _, result in map_cases(function, patients, workers=0, description="leaving one patient out"):
        if isinstance(result, Exception):
            raise result
        found.append(result)
    return found


def _head(run: Run, store: Store, cases: Sequence[str], grid: Grid, objective: Objective) -> str:
    bearing = sum(store.info(case).tumour_voxels > 0 for case in cases)
    lines = [f"note: {run.note}"] if run.note else []
    if any(store.info(case).origin.startswith("PHANTOM") for case in cases):
        lines.append("PHANTOM: synthetic scans; a choice made on them says nothing about patients")
    lines.append(
        f"{run.folder}: val split, {len(cases)} cases ({bearing} with tumour), "
        f"checkpoint {run.checkpoint.name} at step {run.step}, on {run.device}"
    )
    steps = " -> ".join(slot.title if isinstance(slot, grids.Step) else slot.name for slot in grid.slots)
    lines.append(f"{len(grid.settings())} settings of {steps}, judged by {objective.name} ({objective.mode})")
    return "\n".join(lines)


def _tuned(
    run: Run,
    cases: Sequence[str],
    patients: Sequence[str],
    grid: Grid,
    objective: Objective,
    choice: Choice,
    overrides: Sequence[str],
) -> record.Tuned:
    settings = grid.settings()
    value = choice.figures[choice.best][objective.name]
    assert value is not None  # held by choose
    return record.Tuned(
        postprocess=grid.plans(settings[choice.best]),
        settings=grid.words(settings[choice.best]),
        objective=objective.name,
        mode=objective.mode,
        value=value,
        own=choice.figures[settings.index(grid.own)][objective.name],
        held_out=None if choice.held_out is None else choice.held_out.value,
        tried=len(settings),
        cases=list(cases),
        patients=len(set(patients)),
        checkpoint=run.checkpoint.name,
        step=run.step,
        checkpoint_hash=digest(run.checkpoint),
        overrides=list(overrides),
        time=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


if __name__ == "__main__":
    run_tool(main)
