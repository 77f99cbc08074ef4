"""Evaluate a run, or anybody's label files, on whole volumes: tables, figures and a report.

    python tools/evaluate.py runs/NAME
    torchrun --nproc_per_node 4 tools/evaluate.py runs/NAME
    python tools/evaluate.py --pred FOLDER --ref FOLDER [--images FOLDER] [-o OUT] [EXPERIMENT.yaml]
    python tools/evaluate.py --folds runs/FOLD0 runs/FOLD1 ... [-o OUT]

Of a run, its test split is evaluated and written into its evaluation/. Files of two folders are paired by their names.
Folds are pooled from their evaluations. An interrupted evaluation goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# Workers import this file again to measure, so it takes what is heavy only where it is needed.
import registry
from core.errors import UserError
from core.experiment import run_tool

SPLITS = ("test", "val", "external")


def main() -> int:
    """Evaluate a run, two folders, or folds."""
    args = _parse()
    registry.discover("plugins")
    if args.folds:
        from core.evaluate.folds import pool_folds

        return pool_folds(args)
    try:
        if args.pred or args.ref:
            from core.evaluate.folders import evaluate_folders

            return evaluate_folders(args)
        if args.target is None:
            raise UserError("want a run directory, or --pred FOLDER --ref FOLDER, or --folds RUN RUN ...")
        from core.evaluate.run import evaluate_run

        return evaluate_run(args)
    except KeyboardInterrupt:
        print("the cases measured so far are kept: the same command goes on from there", file=sys.stderr)
        raise


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", help="run directory; with --pred also an experiment file")
    parser.add_argument("overrides", nargs="*", help="dotted paths, e.g. inferer.batch=8 'postprocess=[]'")
    parser.add_argument("--workers", type=int, help="processes that measure; 0: this one (default: by cores and cases)")
    parser.add_argument("-o", "--out", type=Path, help="folder to write to, of two folders or folds")
    run = parser.add_argument_group("a run")
    run.add_argument("--split", choices=SPLITS, help="which part (default: test)")
    run.add_argument("--checkpoint", help="best, last, or a file (default: best)")
    run.add_argument("--device", help="e.g. cpu, cuda:1 (default: a GPU where there is one)")
    run.add_argument("--save-predictions", action="store_true", help="also write each label map as NIfTI")
    run.add_argument("--untuned", action="store_true", help="leave aside the post-processing that tools/tune.py chose")
    two = parser.add_argument_group("two folders of label files")
    two.add_argument("--pred", type=Path, metavar="FOLDER", help="predictions, of any model")
    two.add_argument("--ref", type=Path, metavar="FOLDER", help="references")
    two.add_argument("--images", type=Path, metavar="FOLDER", help="scans, which error analysis needs")
    two.add_argument("--labels", metavar="MAP", help="what values mean, e.g. liver=1,tumour=2 (default: that)")
    two.add_argument("--pred-labels", metavar="MAP", help="the same, of predictions alone")
    two.add_argument("--patients", type=Path, metavar="CSV", help="table with the columns case and patient")
    two.add_argument("--allow", action="append", metavar="WHAT", help="missing, extra, affine, labels, spacing, image")
    parser.add_argument("--folds", nargs="+", type=Path, metavar="RUN", help="runs of a cross-validation, evaluated")
    args = parser.parse_intermixed_args()
    first = args.target
    if first is not None and "=" in first and not Path(first).exists():
        args.target, args.overrides = None, [first, *args.overrides]
    if args.workers is not None and args.workers < 0:
        raise UserError(f"--workers: want 0 or more, got {args.workers}")
    _refuse_unread(args)
    args.split, args.checkpoint = args.split or "test", args.checkpoint or "best"
    return args


def _refuse_unread(args: argparse.Namespace) -> None:
    """Refuse options that what is evaluated has no use for."""
    two = ("images", "labels", "pred_labels", "patients", "allow")
    run: tuple[str, ...] = ("split", "checkpoint", "device", "save_predictions", "untuned")
    unread: tuple[str, ...]
    unread, what = (*two, "out"), "a run"
    if args.folds:
        unread, what = (*two, *run, "workers"), "--folds"
    elif args.pred or args.ref:
        unread, what = run, "--pred and --ref"
    for name in unread:
        if getattr(args, name):
            option = "-o" if name == "out" else f"--{name.replace('_', '-')}"
            why = ", which is evaluated into its own folder" if name == "out" else ""
            raise UserError(f"{option} does not go with {what}{why}")


if __name__ == "__main__":
    run_tool(main)
