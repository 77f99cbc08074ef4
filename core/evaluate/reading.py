"""One case of two folders, read and checked: nothing that does not fit is measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from core.data.checks import LabelCheck, geometry_note, intensity_note, whole_numbers
from core.data.volume import ITK_SUFFIXES, Volume, VolumeError, read_image, same_grid
from core.errors import UserError
from core.evaluate.pairing import CaseFiles
from core.measure.pair import CasePair
from core.values import LIVER, TUMOUR

ALLOW = {
    "missing": "references without a prediction: they score as missed",
    "extra": "predictions without a reference: they are left aside",
    "affine": "predictions with another affine than the reference's: the reference's is taken",
    "labels": "values that mean nothing: they count as background",
    "spacing": "spacing that cannot be trusted: mm and ml are given all the same",
    "image": "references without a scan, where --images gives scans",
}
"""What can be let through, and what then happens."""


@dataclass(frozen=True)
class Rules:
    """How label files are read.

    Attributes:
        allow: of `ALLOW`.
        pred_labels: value in a prediction -> label; empty: 0, 1, 2 as they are.
        ref_labels: the same of references.
        images: whether scans are expected.
    """

    allow: frozenset[str] = frozenset()
    pred_labels: Mapping[int, int] = field(default_factory=dict)
    ref_labels: Mapping[int, int] = field(default_factory=dict)
    images: bool = False


@dataclass
class Checked:
    """One case's volumes and all that was found out about them.

    Attributes:
        pair: None if there are problems.
        problems: a line each, with what to do.
        repairs: what was mended.
        allowed: what was let through, of `ALLOW`.
        doubt: why the spacing cannot be trusted, or an empty string.
        windowed: the scan's intensities were windowed or rescaled before.
    """

    pair: CasePair | None = None
    problems: list[str] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    doubt: str = ""
    windowed: bool = False


def parse_labels(text: str) -> dict[int, int]:
    """``liver=1,tumour=2`` -> value in the file -> label. A name may come several times.

    Raises:
        UserError: if it says anything else.
    """
    meaning = {"background": 0, "liver": LIVER, "parenchyma": LIVER, "tumour": TUMOUR, "tumor": TUMOUR}
    out: dict[int, int] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in meaning or not re.fullmatch(r"-?[0-9]+", value):
            raise UserError(f"--labels: want liver=VALUE,tumour=VALUE (also background=VALUE), got '{text}'")
        if out.setdefault(int(value), meaning[name]) != meaning[name]:
            raise UserError(f"--labels: the value {value} has two meanings in '{text}'")
    if not any(out.values()):
        raise UserError(f"--labels: '{text}' gives neither liver nor tumour a value")
    return out


def read_pair(files: CaseFiles, rules: Rules) -> Checked:
    """Read a case's files onto the reference's grid; whatever is wrong with them is listed, not raised."""
    out = Checked()
    here = f"case '{files.case}'"
    pred = _try(out, here, files.pred, rules, rules.pred_labels)
    image = _image(out, here, files, rules)
    ref, source = _reference(out, here, files, rules, pred, image)
    if files.pred is None and not _let(out, rules, "missing"):
        out.problems.append(
            f"{here}: no prediction for {files.ref}; add it, or let it count as missed with --allow missing"
        )
    if pred is not None and ref is not None and files.pred is not None:
        pred = _same_grid(out, here, files.pred, pred, files.ref, ref, rules)
    if image is not None and ref is not None and (wrong := same_grid(ref, image)):
        out.problems.append(f"{here}: {files.image}: {wrong.replace('the scan', 'the reference')} ({files.ref})")
    if out.problems or ref is None or source is None:
        return out
    # As `prepare` does: the scan decides, where there is one.
    out.doubt = geometry_note(source.native.affine, source.native.header, source.spacing_mm) or files.doubt
    out.windowed = image is not None and intensity_note(image.array) is not None
    trusted = not out.doubt or _let(out, rules, "spacing")
    labels = np.zeros_like(ref.array) if pred is None else pred.array
    try:
        out.pair = CasePair(
            files.case,
            labels,
            ref.array,
            ref.spacing_mm,
            patient=files.patient,
            spacing_trusted=trusted,
            image=None if image is None else image.array,
        )
    except UserError as error:
        out.problems.append(str(error))
    return out


def _reference(
    out: Checked, here: str, files: CaseFiles, rules: Rules, pred: Volume | None, image: Volume | None
) -> tuple[Volume | None, Volume | None]:
    """The reference, mended where `prepare` would mend it; and the volume whose header says the spacing."""
    ref = _try(out, here, files.ref, rules, rules.ref_labels)
    scan, name = (image, "scan's") if image is not None else (pred, "prediction's")
    if ref is None or scan is None or "label_affine" not in files.repairs:
        return ref, image or ref
    if ref.native.shape != scan.native.shape or same_grid(scan, ref) is None:
        return ref, image or ref
    out.repairs.append(f"the reference's affine, replaced by the {name}")
    return _try(out, here, files.ref, rules, rules.ref_labels, scan.native.affine), scan


def _image(out: Checked, here: str, files: CaseFiles, rules: Rules) -> Volume | None:
    if files.image is not None:
        try:
            return read_image(files.image)
        except VolumeError as error:
            out.problems.append(f"{here}: {error}")
    elif rules.images and not _let(out, rules, "image"):
        out.problems.append(f"{here}: no scan for {files.ref}; add it, or do without it with --allow image")
    return None


def _same_grid(
    out: Checked, here: str, path: Path, pred: Volume, ref_path: Path, ref: Volume, rules: Rules
) -> Volume | None:
    wrong = same_grid(ref, pred)
    if wrong is None:
        return pred
    if pred.native.shape == ref.native.shape and _let(out, rules, "affine"):
        return _try(out, here, path, rules, rules.pred_labels, ref.native.affine)
    what = "resample it onto the reference's grid"
    if pred.native.shape == ref.native.shape:
        what += ", or, if only its header is wrong, --allow affine"
    out.problems.append(f"{here}: {path}: {wrong.replace('the scan', 'the reference')} ({ref_path}); {what}")
    return None


def _try(
    out: Checked,
    here: str,
    path: Path | None,
    rules: Rules,
    labels: Mapping[int, int],
    affine: np.ndarray | None = None,
) -> Volume | None:
    if path is None:
        return None
    check = _Labels(labels, "labels" in rules.allow)
    try:
        volume = _read(path, check, affine)
    except VolumeError as error:
        out.problems.append(f"{here}: {error}")
        return None
    if check.dropped and "labels" not in out.allowed:
        out.allowed.append("labels")
    return volume


def _read(path: Path, check: _Labels, affine: np.ndarray | None) -> Volume:
    # Readers are imported when first needed: each brings a library of its own.
    if path.name.lower().endswith(ITK_SUFFIXES):
        from core.data import itk

        return itk.read(path, np.dtype(np.uint8), check, affine)
    from core.data import nifti

    return nifti.read(path, np.dtype(np.uint8), check, affine)


def _let(out: Checked, rules: Rules, kind: str) -> bool:
    if kind not in rules.allow:
        return False
    out.allowed.append(kind)
    return True


class _Labels:
    """Gives the values of a label file their meaning and remembers those that have none."""

    def __init__(self, mapping: Mapping[int, int], drop: bool) -> None:
        self.plain = LabelCheck() if not mapping and not drop else None
        self.mapping, self.drop = dict(mapping) or {LIVER: LIVER, TUMOUR: TUMOUR}, drop
        self.fractions, self.strange = set[float](), set[int]()

    @property
    def dropped(self) -> bool:
        """Whether values without a meaning became background."""
        return self.drop and bool(self.strange)

    def add(self, slab: np.ndarray) -> np.ndarray:
        """The slab as uint8 labels."""
        if self.plain is not None:
            return self.plain.add(slab)
        slab, fractions = whole_numbers(slab)
        self.fractions |= fractions
        out, known = np.zeros(slab.shape, np.uint8), slab == 0
        for value, label in self.mapping.items():
            here = slab == value
            out[here] = label
            known |= here
        if not known.all():
            self.strange.update(int(v) for v in np.unique(slab[~known])[:10] if np.isfinite(v))
        return out

    def complaint(self) -> str | None:
        """Which values have no meaning, or None."""
        if self.plain is not None:
            text = self.plain.complaint()
            return text and f"{text}; say what they mean with --labels liver=VALUE,tumour=VALUE"
        if self.fractions:
            return f"labels must be whole numbers; it also holds {_few(self.fractions)}"
        if self.strange and not self.drop:
            return (
                f"--labels does not say what {_few(self.strange)} means; name it (background=VALUE too), or make "
                f"background of it with --allow labels"
            )
        return None


def _few(values: Sequence[float] | set[float] | set[int]) -> str:
    return ", ".join(f"{v:g}" for v in sorted(values)[:10])
