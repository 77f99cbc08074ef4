"""Measure speed on this machine, as ratios of two things timed in one run, in turns.

bench.py loader      the training loader against .npy files and against copies in memory; by kind of workers
bench.py train       the full training loop against the bare loop on one resident batch; hooks, checkpoints, validation
bench.py prepare     preparing against the plain way: time, size, memory
bench.py predict     whole scans, file to file, against the bare network
bench.py evaluate    whole evaluations against the bare network; with --against, the metrics against other systems

bench.py train experiments/quickstart.yaml dataset.size=256 train.batch=8 --blocks 8 --steps 6 --json train.json

Without an experiment: experiments/quickstart.yaml, which needs no data. docs/benchmarks.md says what is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import registry
from core.bench.measures_systems import SYSTEMS
from core.bench.others import WAYS as OTHERS
from core.bench.variants import VARIANTS
from core.experiment import load, run_tool

if TYPE_CHECKING:
    import torch

    from core.bench.report import Report

# Torch comes in below, where it is needed: `prepare` measures processes that import this file, and their memory.

QUICKSTART = Path(__file__).resolve().parents[1] / "experiments" / "quickstart.yaml"


def main() -> int:
    """Measure, print, and write the JSON."""
    args = _parse()
    registry.discover("plugins")
    from core.bench.report import check_target, machine
    from core.bench.stage import find_device
    from core.bench.timing import remembering_interrupts

    check_target(args.json)
    with remembering_interrupts():
        device, environment = find_device(args.device), machine()
        report: Report = args.function(args, device)
    report.environment = environment
    print(report.text())
    if args.json is not None:
        report.write(args.json)
    return 0


def _loader(args: argparse.Namespace, device: torch.device) -> Report:
    from core.bench.loader import bench_loader
    from core.bench.stage import prepared

    experiment = load(args.experiment, args.overrides)
    return bench_loader(
        experiment,
        prepared(experiment),
        device,
        steps=args.steps,
        seconds=args.seconds,
        workers=args.workers,
        blocks=args.blocks,
    )


def _train(args: argparse.Namespace, device: torch.device) -> Report:
    from core.bench.train import bench_train

    return bench_train(
        args.experiment,
        args.overrides,
        device,
        only=args.only,
        steps=args.steps,
        blocks=args.blocks,
        peak=args.peak_tflops,
    )


def _prepare(args: argparse.Namespace, device: torch.device) -> Report:
    from core.bench.prepare import bench_prepare

    where = [] if args.root is None else ["source.name=lits", f"source.root={args.root}"]
    experiment = load(args.experiment, [*args.overrides, *where])
    return bench_prepare(
        experiment,
        cases=args.cases,
        processes=args.processes,
        blocks=args.blocks,
        against=args.against,
        large=args.large,
        synthetic=args.synthetic,
    )


def _predict(args: argparse.Namespace, device: torch.device) -> Report:
    from core.bench.predict import bench_predict
    from core.bench.stage import prepared
    from core.bench.volumes import load_subject

    subject = load_subject(args.experiment, args.overrides, device)
    return bench_predict(subject, prepared(subject.experiment), cases=args.cases, blocks=args.blocks)


def _evaluate(args: argparse.Namespace, device: torch.device) -> Report:
    if args.against:
        return _measures(args)
    from core.bench.evaluate import bench_evaluate
    from core.bench.stage import prepared
    from core.bench.volumes import load_subject

    subject = load_subject(args.experiment, args.overrides, device)
    return bench_evaluate(subject, prepared(subject.experiment), cases=args.cases, blocks=args.blocks)


def _measures(args: argparse.Namespace) -> Report:
    from core.bench.measures import bench_measures
    from core.build import build

    return bench_measures(
        {plan.name: build(plan) for plan in load(args.experiment, args.overrides).metric},
        against=args.against,
        pairs=args.cases,
        slices=args.slices,
        blocks=args.blocks,
        large=args.large,
        side=args.side,
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benches = parser.add_subparsers(dest="bench", required=True, metavar="loader|train|prepare|predict|evaluate")
    loader = _bench(benches, "loader", _loader, "the training loader alone", blocks=7)
    loader.add_argument("--steps", type=_count, help="of an epoch that are gone over (default: 256 images)")
    loader.add_argument("--seconds", type=float, default=1.0, help="that a block takes, about (default: 1)")
    loader.add_argument(
        "--workers", type=_counts, default=[1, 2], help="numbers of workers to compare, e.g. 1,2,4,8 (default: 1,2)"
    )
    train = _bench(benches, "train", _train, "the full training loop", blocks=8)
    train.add_argument("--steps", type=_count, default=10, help="of a block (default: 10)")
    train.add_argument(
        "--only",
        type=_variants,
        default=[v for v in VARIANTS if v != "compile"],
        help=f"what to measure, of {','.join(VARIANTS)} (default: all but compile)",
    )
    train.add_argument("--peak-tflops", type=float, help="the device's dense bf16 peak, where it is not known")
    prepare = _bench(benches, "prepare", _prepare, "scans -> store", blocks=3)
    prepare.add_argument("--root", type=Path, help="a folder of LiTS' scans, in place of the experiment's source")
    prepare.add_argument("--cases", type=_count, default=4, help="how many scans (default: 4)")
    prepare.add_argument("--processes", type=_counts, default=[1, 2], help="e.g. 1,2,8 (default: 1,2)")
    prepare.add_argument(
        "--against", type=_systems, default=[], help=f"other systems, of {','.join(OTHERS)}, where they are installed"
    )
    prepare.add_argument(
        "--synthetic", type=_count, metavar="SLICES", help="scans of 512x512 made on the fly, in place of the source's"
    )
    prepare.add_argument(
        "--large",
        type=_count,
        nargs="?",
        const=1000,
        metavar="SLICES",
        help="also the peak memory at 512x512 and so many slices (1000), on a scan made on the fly",
    )
    for name, function, about in (
        ("predict", _predict, "whole scans, file to file"),
        ("evaluate", _evaluate, "evaluations of whole cases"),
    ):
        one = _bench(benches, name, function, f"{about}; a run directory measures its best checkpoint", blocks=5)
        one.add_argument("--cases", type=_count, default=2, help="how many scans (default: 2)")
    one.add_argument(
        "--against",
        type=lambda text: _of(SYSTEMS, text),
        default=[],
        help="the metrics alone, on label volumes made on the fly, against other systems, where they are installed, of "
        + ",".join(SYSTEMS),
    )
    one.add_argument("--slices", type=_count, default=110, help="with --against: of each pair (default: 110)")
    one.add_argument("--side", type=_count, default=512, help="with --against: rows and columns (default: 512)")
    one.add_argument(
        "--large",
        type=_count,
        nargs="?",
        const=600,
        metavar="SLICES",
        help="with --against: also one pair of so many slices (600) with 60 lesions",
    )
    args, rest = parser.parse_known_args()
    # argparse takes the words before the first option alone.
    if any(word.startswith("-") for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    words = [*args.words, *rest]
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        parser.error(f"want one experiment, got {' '.join(files)}")
    args.experiment = Path(files[0]) if files else QUICKSTART
    args.overrides = [word for word in words if "=" in word]
    return args


def _bench(benches: Any, name: str, function: Any, about: str, *, blocks: int) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = benches.add_parser(name, help=about, description=about)
    parser.set_defaults(function=function)
    parser.add_argument(
        "words", nargs="*", metavar="EXPERIMENT|KEY=VALUE", help="an experiment file (default: quickstart), overrides"
    )
    parser.add_argument(
        "--blocks", type=_count, default=blocks, help=f"how often each side is timed (default: {blocks})"
    )
    parser.add_argument("--device", help="e.g. cpu, cuda:1 (default: a GPU where there is one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there, every block's time included")
    return parser


def _count(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"want a number of at least 1, got '{text}'")
    return number


def _counts(text: str) -> list[int]:
    return sorted({_count(part) for part in text.split(",")})


def _variants(text: str) -> list[str]:
    return _of(VARIANTS, text)


def _systems(text: str) -> list[str]:
    return _of(OTHERS, text)


def _of(known: Collection[str], text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(
                f"no '{name}'{registry.suggest(name, known)}; there are {', '.join(known)}"
            )
    return [name for name in known if name in names]


if __name__ == "__main__":
    run_tool(main)
