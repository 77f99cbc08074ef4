"""DICOM series below a folder, as a PACS exports them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from core.contracts import Case
from core.data.dicom import objection
from core.data.dicom_headers import SEG_CLASSES, Found, Header, Series, find
from core.data.layouts import check_label_map, leave_out
from core.data.store import natural
from registry import register

_FIELD = re.compile(r"{(\w*)}")
_FIELDS = ("id", "folder", "series")


@register("source", "dicom")
class Dicom:
    """CT series in folders, as a PACS exports them, with DICOM-SEG or other label files.

    Files may have any names and lie in any folders; whatever is no axial CT (scouts, dose sheets, reformats, other
    modalities) is passed over. A series that cannot be read is a bad case and stops no other.

    Labels are DICOM-SEG files anywhere below the folder, which name the series they belong to, or, with `labels`,
    files such as NIfTI. Names, birth dates and the like are not read. PatientID is kept as the first 12 digits of its
    sha256, which holds scans of one patient together; ids come from the folders' names.

    Args:
        root: the folder.
        series: which series of a study are cases. "largest": the one with most slices, among those with a label where
            any has one; "all"; else a regular expression that SeriesDescription must match somewhere, in any case.
        labels: null for DICOM-SEG, else a path below root with {id} (of the case), {folder} (of the series, below
            root) or {series} (SeriesInstanceUID), e.g. "masks/{id}.nii.gz".
        label_map: value in the label file, or number of the segment -> 0, 1 (liver) or 2 (tumour); those not named
            become background. Null takes values as they are, and segments by their names.
        least_slices: series with fewer are passed over.
        ids: "folder" for the names of the folders below root, "hashed" for 12 digits of the sha256 of
            SeriesInstanceUID, where folders are named after patients.
        patient: "id" for PatientID, "folder" for the first folder below root, where PatientID was made alike or empty.
        origin: the data set's name, for provenance and for what is known of public sets.
        intensity: "windowed" if the scans were windowed or rescaled before; figures in HU are then left blank.
        spacing: "untrusted" if the voxel size in the files is wrong; figures in mm and ml are then left blank.
        exclude: case ids to leave out.

    Raises ValueError if the folder is missing or holds no such series, or `labels` finds nothing.

    Example: {name: dicom, root: data/raw/pacs, series: largest}
    """

    def __init__(
        self,
        *,
        root: Path,
        series: str = "largest",
        labels: str | None = None,
        label_map: dict[int, int] | None = None,
        least_slices: int = 10,
        ids: Literal["folder", "hashed"] = "folder",
        patient: Literal["id", "folder"] = "id",
        origin: str = "",
        intensity: Literal["hu", "windowed"] = "hu",
        spacing: Literal["trusted", "untrusted"] = "trusted",
        exclude: list[str] | None = None,
    ) -> None:
        if least_slices < 2:
            raise ValueError(f"least_slices: want at least 2, got {least_slices}")
        try:
            self._wanted = re.compile(series, re.IGNORECASE)
        except re.error as error:
            raise ValueError(f"series: '{series}' is neither largest, all nor a regular expression: {error}") from error
        if labels is not None:
            fields = _FIELD.findall(labels)
            if not fields or not set(fields) <= set(_FIELDS):
                raise ValueError(f"labels: want a path with {{id}}, {{folder}} or {{series}} in it, got '{labels}'")
            if labels.startswith("/") or ".." in Path(labels).parts:
                raise ValueError(f"labels: want a path below root, got '{labels}'")
        self._root = Path(root).expanduser()
        self._series, self._labels, self._map = series, labels, check_label_map(label_map)
        self._least, self._ids, self._patient, self._origin = least_slices, ids, patient, origin
        self._hu, self._mm, self._exclude = intensity == "hu", spacing == "trusted", exclude

    def cases(self) -> list[Case]:
        """The cases by name; a series with two segmentations is there twice, which `prepare` refuses.

        Folders in which no DICOM file can be read are cases too, for the same reason.
        """
        if not self._root.is_dir():
            raise ValueError(f"{self._root}: no such folder")
        found = find(self._root)
        scans = [scan for series in found.series.values() for scan in self._scans(series)]
        good = [scan for scan in scans if objection(scan.series) is None and scan.series.slices >= self._least]
        if not good:
            raise ValueError(f"{self._root}: {self._nothing(found, scans)}")
        segmented = _segmentations(found) if self._labels is None else {}
        studies: dict[tuple[str, str, Path], list[_Scan]] = defaultdict(list)
        for scan in good:
            first = scan.series.first
            # Without an id of the study, or of a copy, the folder stands for it.
            folder = scan.folder if scan.copied or not first.study else Path()
            studies[first.study, first.patient, folder].append(scan)
        chosen = [scan for scans in studies.values() for scan in self._choose(scans, segmented)]
        if not chosen:
            raise ValueError(f"{self._root}: no SeriesDescription matches '{self._series}'; there are:{_shown(good)}")
        cases = [*self._named(chosen, segmented), *self._damaged(found)]
        if self._labels is not None and not any(case.label for case in cases):
            case = cases[0]
            raise ValueError(f"{self._root}: labels '{self._labels}' finds nothing, e.g. for case '{case.id}'")
        return leave_out(cases, self._exclude, self._root)

    def _scans(self, series: Series) -> list[_Scan]:
        """A series as it lies: in one folder, over several, or copied into several."""
        folders: dict[Path, list[Header]] = defaultdict(list)
        for file in series.files:
            folders[file.path.parent].append(file)
        copied = len({file.instance for file in series.files}) < len(series.files) and len(folders) > 1
        if copied:
            return [_Scan(Series(series.uid, tuple(files)), folder, True) for folder, files in folders.items()]
        return [_Scan(series, Path(os.path.commonpath(folders)), False)]

    def _choose(self, scans: Sequence[_Scan], segmented: dict[str, list[Path]]) -> list[_Scan]:
        if self._series == "all":
            return list(scans)
        if self._series != "largest":
            return [scan for scan in scans if self._wanted.search(scan.series.first.description)]
        labelled = [scan for scan in scans if scan.series.uid in segmented] or [
            scan for scan in scans if self._labels is not None and self._file(scan, self._id(scan, False)).exists()
        ]
        return [max(labelled or scans, key=lambda scan: (scan.series.slices, scan.series.uid))]

    def _named(self, scans: Sequence[_Scan], segmented: dict[str, list[Path]]) -> list[Case]:
        plain = [self._id(scan, False) for scan in scans]
        cases: list[Case] = []
        for scan, name in zip(scans, plain, strict=True):
            case = self._id(scan, True) if plain.count(name) > 1 else name
            labels: list[Path | None] = list(segmented.get(scan.series.uid, []))
            if self._labels is not None:
                file = self._file(scan, case)
                labels = [file] if file.exists() else []
            cases += [self._case(scan, case, label) for label in labels or [None]]
        return sorted(cases, key=lambda case: natural(case.id))

    def _damaged(self, found: Found) -> list[Case]:
        """Folders in which no file can be read, so that `prepare` reports them."""
        homes = {file.path.parent for series in found.series.values() for file in series.files}
        lost = sorted({path.parent for path, _ in found.unreadable} - homes)
        scans = [_Scan(Series("", ()), folder, True) for folder in lost]
        return [Case(id=self._id(scan, False), patient=str(scan.folder), image=scan.folder) for scan in scans]

    def _case(self, scan: _Scan, case: str, label: Path | None) -> Case:
        first = scan.series.first
        below = scan.folder.relative_to(self._root).parts
        owner = first.patient if self._patient == "id" else (below[0] if below else "")
        return Case(
            id=case,
            patient=owner or case,
            image=scan.folder,
            label=label,
            origin=self._origin,
            spacing_trusted=self._mm,
            hu_trusted=self._hu,
            series=scan.series.uid,
            label_map=() if label is None else self._map,
        )

    def _id(self, scan: _Scan, alone: bool) -> str:
        """The folder's name; where it holds several chosen series, the series' number and a part of its hash too."""
        digest = sha256(f"{scan.series.uid}{scan.folder if scan.copied else ''}".encode()).hexdigest()
        if self._ids == "hashed":
            return digest[:12]
        folder = scan.folder.relative_to(self._root).as_posix()
        name = re.sub(r"[^A-Za-z0-9._+-]+", "-", folder).strip("-._+") or _plain(self._root.resolve().name)
        return f"{name}-s{_plain(scan.series.first.number) or '0'}-{digest[:6]}" if alone else name

    def _file(self, scan: _Scan, case: str) -> Path:
        values = {"id": case, "folder": scan.folder.relative_to(self._root).as_posix(), "series": scan.series.uid}
        return self._root / _FIELD.sub(lambda match: values[match[1]], self._labels or "")

    def _nothing(self, found: Found, scans: Sequence[_Scan]) -> str:
        if not found.series:
            damaged = [f"; {len(found.unreadable)} damaged, e.g. {path}" for path, _ in found.unreadable[:1]]
            return "no DICOM files in it" + "".join(damaged)
        return f"no axial CT series of {self._least} slices or more (least_slices) in it; there are:{_shown(scans)}"


@dataclass(frozen=True)
class _Scan:
    """A series in one folder; `copied` if other folders hold it too."""

    series: Series
    folder: Path
    copied: bool


def _segmentations(found: Found) -> dict[str, list[Path]]:
    """SeriesInstanceUID of the images -> segmentations that name it; copies of one count once."""
    named: dict[str, dict[str, Path]] = defaultdict(dict)
    for series in found.series.values():
        for file in series.files:
            for uid in file.refers_to if file.sop_class in SEG_CLASSES else ():
                named[uid].setdefault(file.instance, file.path)
    return {uid: list(files.values()) for uid, files in named.items()}


def _shown(scans: Sequence[_Scan]) -> str:
    lines = [f"\n  {scan.series} {objection(scan.series) or ''}".rstrip() for scan in scans[:20]]
    return "".join(lines) + ("\n  ..." if len(scans) > 20 else "")


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")
