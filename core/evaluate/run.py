"""A run evaluated on one part of its split: inferred here, measured here or beside, gathered from all ranks."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core import dist
from core.contracts import Rows
from core.data.store import Store
from core.data.summary import check_grid
from core.data.volume import write_labels
from core.errors import UserError
from core.evaluate import output
from core.evaluate.measuring import Measurers, Recipe, choose_workers
from core.evaluate.parts import Parts, code_hash
from core.infer.evaluate import evaluate_case, merge_tables, want_probabilities
from core.infer.run import Run, digest, load_run, read_split
from core.measure.pair import CasePair
from core.parallel import map_cases
from core.report import figures
from core.report.tables import make_folder

FOLDERS = {"test": "evaluation", "val": "evaluation_val", "external": "evaluation_external"}
CROPPED = "cropped to the reference's liver: optimistic"
SELECTED = "selected on these cases: optimistic"


def evaluate_run(args: argparse.Namespace) -> int:
    """Evaluate; every rank does its share of the cases, rank 0 writes.

    Args:
        args: of ``tools/evaluate.py``: target, overrides, split, checkpoint, device, save_predictions, untuned,
            workers.
    """
    device = dist.start()
    try:
        run = load_run(args.target, args.checkpoint, args.device or device, args.overrides, tuned=not args.untuned)
        store = Store(run.experiment.store)
        check_grid(store.root, run.experiment.prepare)
        cases = read_split(run.folder, args.split, store)
        folder = run.folder / FOLDERS[args.split]
        make_folder(folder)
        share = _Share(run, store, folder, args.save_predictions)
        if dist.rank() == 0:
            print(_head(run, args.split, cases, store), flush=True)
        share.measure(cases, args.workers)
        # Together, so that one rank's error does not leave the others waiting for it.
        failures = [text for part in dist.gather(share.failed) for text in part.values()]
        if failures:
            raise UserError("\n".join(failures))
        measured = merge_tables(itertools.chain.from_iterable(dist.gather(list(share.tables.values()))), order=cases)
        chosen = figures.choose_cases(measured.get("cases", []))
        mine = {case: share.panel(case) for _, case in chosen if case in share.tables}
        shown = {case: panel for part in dist.gather(mine) for case, panel in part.items()}
        if dist.rank() == 0:
            panels = [(rank, shown[case]) for rank, case in chosen]
            output.write(_evaluation(run, store, cases, args, folder, measured, panels), share.parts)
            print(f"next: python tools/predict.py {shlex.quote(str(args.target))} scan.nii.gz -o out/")
    except UserError:
        # Every rank is here: rank 0 says what is wrong.
        first = dist.rank() == 0
        dist.stop()
        if first:
            raise
        return 2
    dist.stop()
    return 0


class _Share:
    """One rank's cases: inferred, measured and kept."""

    def __init__(self, run: Run, store: Store, folder: Path, save: bool) -> None:
        self.run, self.store = run, store
        self.predictions = folder / "predictions" if save else None
        self.recipe = Recipe.of(run.experiment.metric)
        common = {
            "checkpoint": digest(run.checkpoint),
            "config": run.experiment.resolved(),
            "versions": output.versions(),
            "code": code_hash(self.recipe),
            "device": run.device.type,
        }
        self.parts = Parts(folder, common)
        self.tables: dict[str, dict[str, Rows]] = {}
        self.failed: dict[str, str] = {}
        self._raised: Exception | None = None
        self._probabilities = want_probabilities(self.recipe.build())

    def measure(self, cases: Sequence[str], workers: int | None) -> None:
        """Measure what no earlier evaluation has measured; `tables` then has every case of this rank, or `failed`."""
        share = cases[dist.rank() :: dist.world()]
        todo = [case for case in share if not self._measured_before(case)]
        if self.predictions is not None:
            self.predictions.mkdir(exist_ok=True)
        before = sum(dist.gather(len(share) - len(todo)))
        if before and dist.rank() == 0:
            print(f"{before} of {len(cases)} cases measured before", flush=True)
        count = choose_workers(workers, len(todo), dist.world())
        with Measurers(self.recipe, count, self._keep) as measurers:
            results: Iterable[tuple[str, Exception | None]] = (
                map_cases(lambda case: self._one(case, measurers), todo, workers=0, description="evaluating")
                if dist.rank() == 0
                else ((case, _caught(lambda case: self._one(case, measurers), case)) for case in todo)
            )
            for case, error in results:
                if error is not None:
                    self._fail(case, error)
                if self.failed:
                    return
            measurers.finish()

    def panel(self, case: str) -> figures.Panel:
        """What the overlays show of a case."""
        held = self.parts.read_arrays(case)
        assert held is not None
        spacing_yx = (float(held["spacing_yx"][0]), float(held["spacing_yx"][1]))
        return figures.Panel(case, int(held["z"]), held["image"], held["pred"], held["reference"], spacing_yx)

    def _measured_before(self, case: str) -> bool:
        found = self.parts.read(case, self._content(case))
        if found is None or self.parts.read_arrays(case) is None:
            return False
        if self.predictions is not None and not self._file(case).is_file():
            return False
        self.tables[case] = found
        return True

    def _one(self, case: str, measurers: Measurers) -> None:
        run, info, grid = self.run, self.store.info(case), self.store.grid(case)
        run.experiment.geometry.check_spacing(f"case '{case}'", trusted=info.spacing_trusted)
        volume, reference = self.store.volume(case), self.store.reference(case)
        with run.autocast():
            found = evaluate_case(
                case,
                volume,
                reference,
                inferer=run.inferer,
                postprocess=run.postprocess,
                info=info,
                probabilities=self._probabilities,
                grid=grid,
            )
        panel = figures.make_panel(case, found.image, found.labels, reference, info.native_spacing_mm)
        held = {name: getattr(panel, name) for name in ("z", "image", "pred", "reference", "spacing_yx")}
        self.parts.write_arrays(case, held)
        if self.predictions is not None:
            write_labels(self._file(case), found.labels, volume.native)
        pair = CasePair(
            case,
            found.labels,
            reference,
            volume.spacing_mm if grid is None else grid.scan_spacing_mm,
            patient=info.patient,
            spacing_trusted=info.spacing_trusted,
            image=found.image,
            probabilities=found.probabilities,
        )
        measurers.put(pair, self.parts.view(case))

    def _keep(self, case: str, tables: dict[str, Rows] | Exception) -> None:
        if isinstance(tables, Exception):
            self._fail(case, tables)
            return
        self.parts.write(case, self._content(case), tables)
        self.tables[case] = tables

    def _content(self, case: str) -> str:
        info = self.store.info(case)
        known = (info.content_hash, info.label_hash, info.patient, info.spacing_trusted)
        return "\n".join(map(str, known))

    def _file(self, case: str) -> Path:
        assert self.predictions is not None
        return self.predictions / f"{case}.nii.gz"

    def _fail(self, case: str, error: Exception) -> None:
        """What a user has to mend is gathered; anything else is raised."""
        if not isinstance(error, UserError):
            if error is not self._raised:
                print(f"case '{case}' failed:", file=sys.stderr)
            self._raised = error
            raise error
        text = str(error)
        self.failed[case] = text if "case '" in text else f"case '{case}': {text}"


def _caught(function: Callable[[str], None], case: str) -> Exception | None:
    try:
        function(case)
    except Exception as error:
        return error
    return None


def _evaluation(
    run: Run,
    store: Store,
    cases: Sequence[str],
    args: argparse.Namespace,
    folder: Path,
    measured: Mapping[str, Rows],
    shown: Sequence[tuple[str, figures.Panel]],
) -> output.Evaluation:
    phantom = _phantom(store, cases)
    notes, marks = _notes(run, cases, args.split), {"phantom": phantom}
    source = _provenance(run, store, cases, args)
    kept = ("time", "command", "checkpoint", "checkpoint_hash", "step", "overrides", "cases")
    return output.Evaluation(
        folder=folder,
        title=f"{'PHANTOM  ' if phantom else ''}{run.folder.resolve().name}, {args.split} split",
        metrics=run.metrics(),
        tables=measured,
        cases=cases,
        provenance=source,
        marks={**marks, **notes, "notes": [*notes.values(), *_doubts(store, cases)]},
        shown=shown,
        look=None if args.split == "val" else {key: source[key] for key in kept},
        looked_at=f"this {args.split} split",
    )


def _notes(run: Run, cases: Sequence[str], split: str) -> dict[str, str]:
    """What makes the figures better than they are, under the summary's key.

    Validation cases chose the best checkpoint; post-processing may have been chosen on any.
    """
    out = {}
    if run.experiment.prepare.crop == "liver":
        out["cropped"] = CROPPED
    chose = split == "val" and run.checkpoint.name == "best.pt"
    if chose or (run.tuned is not None and set(run.tuned.cases) & set(cases)):
        out["selected"] = SELECTED
    return out


def _doubts(store: Store, cases: Sequence[str]) -> list[str]:
    """What is to be said of the cases themselves."""
    infos = [store.info(case) for case in cases]
    spacing = [info.case for info in infos if not info.spacing_trusted]
    hu = [info.case for info in infos if not info.hu_trusted]
    out = [output.left_out(spacing, len(cases))] if spacing else []
    return [*out, output.windowed(hu, len(cases))] if hu else out


def _head(run: Run, split: str, cases: Sequence[str], store: Store) -> str:
    bearing = sum(store.info(case).tumour_voxels > 0 for case in cases)
    weights = ", averaged weights" if run.averaged else ""
    lines = [f"note: {text}" for text in (run.note, run.tuned.text if run.tuned is not None else "") if text]
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
    common = output.provenance()
    return {
        **common,
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
        "tuned": None if run.tuned is None else run.tuned.text,
        "precision": run.experiment.train.precision,
        "machine": {
            **common["machine"],
            **({"device": torch.cuda.get_device_name(run.device)} if run.device.type == "cuda" else {}),
            "threads": torch.get_num_threads(),
            "ranks": dist.world(),
        },
    }
