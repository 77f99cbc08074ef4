"""Scans -> checked store, as an experiment says. Safe to run again: it does only what is missing or has changed.

python tools/prepare.py experiments/unet_r34_cedice.yaml source.root=/data/LiTS
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import registry
from core.data import manage, summary
from core.data.export import export
from core.data.migrate import migrate
from core.data.prepare import prepare_experiment
from core.data.store import Store, StoreError
from core.data.verify import verify
from core.errors import UserError
from core.experiment import Experiment, load, run_tool


def main() -> int:
    """Prepare; exit 1 if a case was bad or differs, 2 if nothing could be done."""
    args = _parse()
    registry.discover("plugins")
    experiment = load(args.experiment, args.overrides)
    store, workers = experiment.store, experiment.prepare.workers
    if args.check:
        return _check(experiment, args.out)
    if args.export:
        made = export(Store(store), args.out, lesions=args.lesions, window=args.window, workers=workers)
        print(made.table())
        return 1 if made.bad else 0
    if args.verify is not None:
        found = verify(store, only=args.verify, workers=workers)
        print(found.table())
        return 1 if found.problems else 0
    if args.migrate:
        return _migrate(store)
    if args.remove or args.restore:
        print(manage.remove(store, args.remove) if args.remove else manage.restore(store, args.restore))
        return 0
    report = prepare_experiment(experiment, args.only or ())
    print(report.table())
    return 1 if report.bad else 0


def _migrate(store: Path) -> int:
    if not store.is_dir():
        raise StoreError(f"{store}: there is no store here; write one with tools/prepare.py EXPERIMENT")
    with summary.locked(store):
        done = migrate(store)
    print(done.table())
    return 1 if done.failed else 0


def _check(experiment: Experiment, out: Path | None) -> int:
    from core.audit.run import check  # it draws figures, which nothing else here needs

    return check(experiment, out, experiment.prepare.workers)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="an experiment file or a run directory")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. source.root=/data/LiTS store=data/lits")
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--only", nargs="+", metavar="CASE", help="store or refresh these alone; the others stay")
    work.add_argument("--remove", nargs="+", metavar="CASE", help="set these aside; later prepares leave them out")
    work.add_argument("--restore", nargs="+", metavar="CASE", help="bring back what --remove took out")
    work.add_argument("--verify", nargs="*", metavar="CASE", help="compare all cases, or these, with what was written")
    work.add_argument("--migrate", action="store_true", help="bring a store of an older schema to the present one")
    work.add_argument("--check", action="store_true", help="the audit: look at all scans without storing any")
    work.add_argument("--export", choices=["npy"], help="one .npy a slice and mask, for training code of your own")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where --export and --check write")
    parser.add_argument("--lesions", action="store_true", help="with --export: lesion ids too")
    parser.add_argument(
        "--window",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="with --export: float32 images, clipped and scaled to [0, 1], in place of int16 HU",
    )
    args = parser.parse_intermixed_args()
    for name in ("only", "remove", "restore", "verify"):  # `--only a b store=x`: ids have no "="
        words = getattr(args, name)
        if words is not None:
            args.overrides += [word for word in words if "=" in word]
            setattr(args, name, [word for word in words if "=" not in word])
            if not getattr(args, name) and name != "verify":
                parser.error(f"--{name}: want the ids of cases")
    args.window = None if args.window is None else tuple(args.window)
    if args.export and args.out is None:
        raise UserError("--export wants a folder: --out FOLDER")
    for name in ("lesions", "window"):
        if getattr(args, name) and not args.export:
            raise UserError(f"--{name} belongs to --export npy")
    if args.out is not None and not (args.export or args.check):
        raise UserError("--out belongs to --export and --check; the store's folder is store=...")
    return args


if __name__ == "__main__":
    run_tool(main)
