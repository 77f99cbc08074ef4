"""Train an experiment: ``train.py EXPERIMENT [key=value ...] [--resume]``; also under torchrun."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import os
import shlex

import torch

import registry
from core import dist, rundir
from core.data.prepare import differs, is_complete, prepare_experiment
from core.data.store import Store
from core.errors import UserError
from core.experiment import Experiment, load, run_tool
from core.train.assemble import assemble, set_backends, split_parts, summary
from core.train.trainer import Trainer


def main() -> int:
    """Prepare the store if it is missing, train, say what to do next."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("experiment", type=Path, help="an experiment file or a run directory")
    parser.add_argument("overrides", nargs="*", help="e.g. optimizer.lr=1e-3 loss[1].smooth=1 run=runs/other")
    parser.add_argument("--resume", action="store_true", help="go on from the run's last checkpoint")
    args = parser.parse_intermixed_args()
    registry.discover("plugins")
    experiment = load(args.experiment, args.overrides)
    resume = args.resume or rundir.is_restart(experiment.run)
    first = int(os.environ.get("RANK", 0)) == 0
    if first:
        rundir.check(experiment, resume=resume)
    if first and args.resume and not (experiment.run / "config.yaml").is_file():
        raise UserError(f"{experiment.run}: there is no run to resume; leave --resume out to begin it")
    report = None if is_complete(experiment.store) else prepare_experiment(experiment)
    if report is None and first:
        for line in differs(experiment.store, experiment.source.plain()):
            print(f"note: {experiment.store} was prepared from another source ({line}); tools/prepare.py updates it")
    if report is not None and first:
        print(report.table(), flush=True)
    if report is not None and report.bad:
        raise UserError(
            f"{len(report.bad)} cases could not be prepared (above), so nothing was trained. Mend them, or run this "
            f"command again to train without them"
        )
    return _train(experiment, resume)


def _train(experiment: Experiment, resume: bool) -> int:
    set_backends(experiment.train)
    device = dist.start(experiment.train.timeout_s)
    lock = rundir.RunLock(experiment.run) if dist.rank() == 0 else None
    try:
        if lock is not None:
            rundir.check(experiment, resume=resume)  # again: another training may have ended in between
        code = _fit(experiment, device, resume)
    finally:
        if lock is not None:
            lock.release()
    dist.stop()
    return code


def _fit(experiment: Experiment, device: torch.device, resume: bool) -> int:
    trainer = assemble(experiment, device, resume=resume, say=_say)
    if dist.rank() == 0:
        store = Store(experiment.store)
        print(summary(experiment, trainer, store, split_parts(experiment, store)[0]), flush=True)
    reason = trainer.fit()
    if dist.rank() == 0:
        print(_ending(experiment, trainer, reason), flush=True)
    # As a shell does for a process that a signal ended. Under torchrun it would look like a failure and be restarted.
    return 128 + trainer.stop.number if trainer.stop.number is not None and not dist.launched() else 0


def _say(text: str) -> None:
    if dist.rank() == 0:
        print(text, flush=True)


def _ending(experiment: Experiment, trainer: Trainer, reason: str) -> str:
    lines = [f"{reason} (step {trainer.step} of {trainer.total_steps})"]
    best = trainer.judge.best
    if best["value"] is not None:
        shown = ("val/loss", "val/score", "val/liver/dice", "val/tumour/dice")
        values = "  ".join(f"{name} {best['metrics'][name]:.4f}" for name in shown if name in best["metrics"])
        lines.append(f"best at step {best['step']}: {values}")
    unfinished = trainer.step < trainer.total_steps and trainer.stop_reason is None
    script = Path(sys.argv[0]).parent
    if unfinished:
        lines.append(f"next: python {shlex.quote(sys.argv[0])} {shlex.quote(str(experiment.run))} --resume")
    else:
        lines.append(f"next: python {shlex.quote(str(script / 'evaluate.py'))} {shlex.quote(str(experiment.run))}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_tool(main)
