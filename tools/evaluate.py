"""Evaluate a run on its test split: whole volumes, on the scan's own grid.

    python tools/evaluate.py runs/NAME
    torchrun --nproc_per_node 4 tools/evaluate.py runs/NAME

Writes cases.csv, slices.csv, summary.json, dice.png and overlays.png into the run's evaluation/.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import itertools
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import registry
from core import dist
from core.contracts import Rows
from core.data.store import Store
from core.data.summary import check_grid
from core.data.volume import write_labels
from core.errors import UserError
from core.experiment import run_tool
from core.infer.evaluate import evaluate_case, merge_tables, summarise
from core.infer.run import Run, digest, load_run, read_split
from core.parallel import map_cases
from core.report import figures, tables

FOLDERS = {"test": "evaluation", "val": "evaluation_val", "external": "evaluation_external"}
CROPPED = "cropped to the reference's liver: optimistic"
VERSIONS = ("torch", "numpy", "nibabel", "connected-components-3d", "segmentation_models_pytorch")


def main() -> int:
    """Evaluate; every rank does its share of the cases, rank 0 writes."""
    args = _parse()
    registry.discover("plugins")
    device = dist.start()
    try:
        run = load_run(args.run, args.checkpoint, args.device or device, args.overrides)
        store = Store(run.experiment.store)
        check_grid(store.root, run.experiment.prepare)
        cases = read_split(run.folder, args.split, store)
        folder = run.folder / FOLDERS[args.split]
        folder.mkdir(parents=True, exist_ok=True)
        if dist.rank() == 0:
            print(_head(run, args.split, cases, store), flush=True)
        parts, panels, failed = _measure(run, store, cases, folder / "predictions" if args.save_predictions else None)
        # Together, so that one rank's error does not leave the others waiting for it.
        failures = [text for share in dist.gather(failed) for text in share.values()]
        if failures:
            raise UserError("\n".join(failures))
        measured = merge_tables(itertools.chain.from_iterable(dist.gather(parts)), order=cases)
        chosen = figures.choose_cases(measured.get("cases", []))
        mine = {case: panels[case] for _, case in chosen if case in panels}
        shown = {case: panel for share in dist.gather(mine) for case, panel in share.items()}
        if dist.rank() == 0:
            _write(run, store, cases, args, folder, measured, [(rank, shown[case]) for rank, case in chosen])
    except UserError:
        # Every rank is here: rank 0 says what is wrong.
        first = dist.rank() == 0
        dist.stop()
        if first:
            raise
        return 2
    dist.stop()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("overrides", nargs="*", help="dotted paths, e.g. inferer.batch=8 'postprocess=[]'")
    parser.add_argument("--split", choices=sorted(FOLDERS), default="test", help="which part (default: test)")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a file (default: best)")
    parser.add_argument("--device", help="e.g. cpu, cuda:1 (default: a GPU where there is one)")
    parser.add_argument("--save-predictions", action="store_true", help="also write each label map as NIfTI")
    return parser.parse_intermixed_args()


def _measure(
    run: Run, store: Store, cases: Sequence[str], predictions: Path | None
) -> tuple[list[dict[str, Rows]], dict[str, figures.Panel], dict[str, str]]:
    """Tables and one picture a case of this rank's share; and the case that a user has to mend, with what is wrong."""
    metrics = run.metrics()
    panels: dict[str, figures.Panel] = {}
    if predictions is not None:
        predictions.mkdir(exist_ok=True)

    def one(case: str) -> dict[str, Rows]:
        run.experiment.geometry.check_spacing(f"case '{case}'", trusted=store.info(case).spacing_trusted)
        volume, reference = store.volume(case), store.reference(case)
        with run.autocast():
            result = evaluate_case(
                case,
                volume,
                reference,
                inferer=run.inferer,
                postprocess=run.postprocess,
                metrics=metrics,
                info=store.info(case),
                grid=store.grid(case),
            )
        image, spacing = result.image, store.info(case).native_spacing_mm
        panels[case] = figures.make_panel(case, image, result.labels, reference, spacing)
        if predictions is not None:
            write_labels(predictions / f"{case}.nii.gz", result.labels, volume.native)
        return result.tables

    share = cases[dist.rank() :: dist.world()]
    results: Iterable[tuple[str, dict[str, Rows] | Exception]] = (
        map_cases(one, share, workers=0, description="evaluating")
        if dist.rank() == 0
        else ((case, _caught(one, case)) for case in share)
    )
    parts: list[dict[str, Rows]] = []
    for case, result in results:
        if isinstance(result, UserError):
            text = str(result)
            return parts, panels, {case: text if f"case '{case}'" in text else f"case '{case}': {text}"}
        if isinstance(result, Exception):
            print(f"case '{case}' failed:", file=sys.stderr)
            raise result
        parts.append(result)
    return parts, panels, {}


def _caught(function: Callable[[str], dict[str, Rows]], case: str) -> dict[str, Rows] | Exception:
    try:
        return function(case)
    except Exception as error:
        return error


def _write(
    run: Run,
    store: Store,
    cases: Sequence[str],
    args: argparse.Namespace,
    folder: Path,
    measured: Mapping[str, Rows],
    shown: Sequence[tuple[str, figures.Panel]],
) -> None:
    summary = summarise(run.metrics(), measured)
    phantom = _phantom(store, cases)
    source = _provenance(run, store, cases, args)
    for name, rows in measured.items():
        tables.write_csv(folder / f"{name}.csv", name, rows)
    optimistic = run.experiment.prepare.crop == "liver"
    marks = {"phantom": phantom, **({"cropped": CROPPED} if optimistic else {})}
    tables.write_json(folder / "summary.json", {**summary, **marks, "provenance": source})
    if args.split != "val":
        dice = {name: summary.get(name, {}).get("dice", {}).get("mean") for name in ("liver", "tumour")}
        kept = ("time", "command", "checkpoint", "checkpoint_hash", "step", "overrides", "cases")
        tables.append_line(folder / "looks.jsonl", {**{key: source[key] for key in kept}, "dice": dice})
    written = [f"{name}.csv" for name in measured] + ["summary.json"]
    title = f"{'PHANTOM  ' if phantom else ''}{run.folder.resolve().name}, {args.split} split"
    if shown:
        count = f"{len(cases)} case{'s' if len(cases) != 1 else ''}"
        figures.dice_distribution(folder / "dice.png", measured, title=f"{title}, {count}")
        figures.overlays(folder / "overlays.png", shown, measured["cases"], title=title)
        written += ["dice.png", "overlays.png"]
    else:
        print("no metric gives 'dice', so there is no dice.png and no overlays.png")
    print(f"\n{tables.terminal(summary)}\n")
    if optimistic:
        print(f"note: {CROPPED}\n")
    print(f"written to {folder}: {', '.join(written)}")
    if args.split != "val":
        with open(folder / "looks.jsonl", encoding="utf-8") as file:
            print(f"look {sum(1 for _ in file)} at this {args.split} split (looks.jsonl)")
    print(f"next: python tools/predict.py {shlex.quote(str(args.run))} scan.nii.gz -o out/")


def _head(run: Run, split: str, cases: Sequence[str], store: Store) -> str:
    bearing = sum(store.info(case).tumour_voxels > 0 for case in cases)
    weights = ", averaged weights" if run.averaged else ""
    lines = [f"note: {run.note}"] if run.note else []
    if _phantom(store, cases):
        lines.append("PHANTOM: synthetic scans; these figures say nothing about patients")
    lines.append(
        f"{run.folder}: {split} split, {len(cases)} cases ({bearing} with tumour), "
        f"checkpoint {run.checkpoint.name} at step {run.step}{weights}, on {run.device} x {dist.world()}"
    )
    return "\n".join(lines)


def _phantom(store: Store, cases: Sequence[str]) -> bool:
    return any(store.info(case).origin.startswith("PHANTOM") for case in cases)


def _provenance(run: Run, store: Store, cases: Sequence[str], args: argparse.Namespace) -> dict[str, Any]:
    return {
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "run": str(run.folder),
        "split": args.split,
        "cases": len(cases),
        "spacing_not_trusted": [case for case in cases if not store.info(case).spacing_trusted],
        "origin": sorted({store.info(case).origin for case in cases}),
        "store": str(store.root),
        "config_hash": hashlib.sha256(run.experiment.resolved().encode()).hexdigest(),
        "overrides": list(args.overrides),
        "split_hash": digest(run.folder / "split.json"),
        "checkpoint": run.checkpoint.name,
        "checkpoint_hash": digest(run.checkpoint),
        "step": run.step,
        "averaged_weights": run.averaged,
        "precision": run.experiment.train.precision,
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else platform.machine(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "ranks": dist.world(),
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    run_tool(main)
