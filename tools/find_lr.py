"""Find a learning rate: train a few steps while it grows, and see where the loss falls fastest and where it diverges.

find_lr.py experiments/mine.yaml
find_lr.py experiments/mine.yaml optimizer.name=sgd --high 10 --steps 200 -o lr/

Trains in one process with the experiment's own batch, loader, precision and clipping, and keeps none of it: no run
directory is made. A picture and a table go to the folder beside it that is named ..._lr_range.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse
import csv
import io
import tempfile

from tqdm import tqdm

import registry
from core import dist, rundir
from core.data.prepare import is_complete, prepare_experiment
from core.errors import UserError
from core.experiment import Experiment, load, run_tool
from core.report.lr_range import draw
from core.train import lr_range
from core.train.assemble import set_backends
from core.train.lr_range import Curve, Suggestion


def main() -> int:
    """Measure, draw, say which override to type."""
    args = _parse()
    lr_range.check(args.low, args.high, args.steps)
    if dist.launched():
        raise UserError("find_lr.py runs in one process: start it without torchrun (train.micro_batch saves memory)")
    registry.discover("plugins")
    experiment = load(args.experiment, args.overrides)
    folder = args.output or experiment.run.with_name(f"{experiment.run.name}_lr_range")
    folder.mkdir(parents=True, exist_ok=True)
    if not is_complete(experiment.store):
        report = prepare_experiment(experiment)
        if report.bad:
            raise UserError(report.table())
    curve = _measure(experiment, args)
    found = lr_range.suggest(curve)
    draw(folder / "lr_range.png", curve, found, title=f"{experiment.run.name}: learning-rate range test")
    rundir.write(folder / "lr_range.csv", _table(curve))
    print(_words(curve, found, args))
    print(f"written to {folder}: lr_range.png, lr_range.csv")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="an experiment file or a run directory")
    parser.add_argument("overrides", nargs="*", help="e.g. optimizer.name=sgd train.batch=8")
    parser.add_argument("--low", type=float, default=1e-6, help="first rate (default: 1e-6)")
    parser.add_argument("--high", type=float, default=1.0, help="last rate (default: 1)")
    parser.add_argument("--steps", type=int, default=100, help="steps between them (default: 100)")
    parser.add_argument("-o", "--output", type=Path, help="folder for picture and table")
    return parser.parse_intermixed_args()


def _measure(experiment: Experiment, args: argparse.Namespace) -> Curve:
    set_backends(experiment.train)
    device = dist.start()
    with tempfile.TemporaryDirectory(prefix="hepar_lr_range_") as scratch:
        trainer = lr_range.trainer_for(experiment, Path(scratch), device, print)
        try:
            with tqdm(total=args.steps, unit="step", disable=None) as bar:

                def tell(rate: float, loss: float) -> None:
                    bar.set_postfix_str(f"lr {rate:.1e} loss {loss:.4f}", refresh=False)
                    bar.update()

                return lr_range.measure(trainer, args.low, args.high, args.steps, tell)
        finally:
            trainer.data.close()


def _words(curve: Curve, found: Suggestion, args: argparse.Namespace) -> str:
    steps, end = len(curve.rates), curve.rates[-1]
    if curve.exploded:
        lines = [f"{steps} steps, until at {end:.1e} loss or gradient was no number any more"]
    elif steps < args.steps:
        lines = [f"{steps} steps, until at {end:.1e} the loss was far above its beginning"]
    else:
        lines = [f"{steps} steps from {args.low:.1e} to {end:.1e}"]
    if found.steepest is not None:
        lines.append(f"the loss falls fastest at {found.steepest:.1e}")
    if found.diverged is not None:
        lines.append(f"it is above its beginning from {found.diverged:.1e} on")
    else:
        lines.append("it never rose above its beginning (a greater --high may show where training diverges)")
    if found.rate is None:
        lines.append("no suggestion: the loss never fell; try a lower --low, or more --steps")
    else:
        lines.append(f"suggestion: optimizer.lr={found.rate:g}")
    return "\n".join(lines)


def _table(curve: Curve) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["step", "lr", "loss", "smoothed", "gradient_norm"])
    columns = (curve.rates, curve.losses, curve.smoothed, curve.norms)
    for step, row in enumerate(zip(*columns, strict=True)):
        writer.writerow([step, *(f"{value:.6g}" for value in row)])
    return out.getvalue()


if __name__ == "__main__":
    run_tool(main)
