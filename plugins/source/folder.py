"""Scans in any layout: listed in a CSV file, or found by two patterns."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Literal

from core.contracts import Case
from core.data.layouts import bare, check_label_map, compiled, leave_out, patient, read_csv
from core.data.overlaps import patient_of
from core.data.store import natural
from registry import register, suggest

_COLUMNS = ("image", "label", "patient", "split", "id", "origin")
_SPLITS = ("train", "val", "test", "external")
_WILD = re.compile(r"\*\*/|\*|\?")


@register("source", "folder")
class Folder:
    """Scans in any layout, listed in a CSV file or found by two patterns.

    The CSV has the columns ``image`` (needed), ``label``, ``patient``, ``split`` (train, val, test for split
    ``official``, or external), ``id`` and ``origin``; paths are relative to the file, an empty value means none.
    Patterns know ``*``, ``?`` and ``**``; scan and label are a pair if the wildcards stand for the same text, which
    also names the case.

    Args:
        csv: the file; null if patterns are given.
        root: the folder that the patterns search.
        images: pattern of the scans, e.g. ``"*/ct.nii.gz"``; a folder that it finds is read as a DICOM series.
        labels: pattern of the labels, with as many wildcards; null if there are none.
        label_map: value in the label files -> 0, 1 (liver) or 2 (tumour); values not named become background. Null
            takes 0, 1, 2 as they are.
        patient_regex: finds the patient in the scan's path (as listed, or below `root`): its first group, or all that
            it matches. Null takes the column ``patient``, else each case for a patient of its own.
        origin: the data set's name, for provenance and for what is known of public sets.
        intensity: "windowed" if the scans were windowed or rescaled before; figures in HU are then left blank.
        spacing: "untrusted" if the voxel size in the files is wrong; figures in mm and ml are then left blank.
        exclude: case ids to leave out.

    Raises ValueError for a CSV that does not say what it should, with file:line, or patterns that pair nothing.

    Example: {name: folder, root: data/raw/hospital, images: "*/ct.nii.gz", labels: "*/seg.nii.gz"}
    """

    def __init__(
        self,
        *,
        csv: Path | None = None,
        root: Path | None = None,
        images: str | None = None,
        labels: str | None = None,
        label_map: dict[int, int] | None = None,
        patient_regex: str | None = None,
        origin: str = "",
        intensity: Literal["hu", "windowed"] = "hu",
        spacing: Literal["trusted", "untrusted"] = "trusted",
        exclude: list[str] | None = None,
    ) -> None:
        if (csv is None) == (root is None):
            raise ValueError("give either csv, a file that lists the scans, or root with images, a pattern")
        if csv is not None and (images or labels):
            raise ValueError("images and labels are patterns below root; with csv the file lists both")
        if root is not None and not images:
            raise ValueError("with root, give images, a pattern such as '*/ct.nii.gz'")
        for name, pattern in (("images", images), ("labels", labels)):
            if pattern and (pattern.startswith("/") or ".." in Path(pattern).parts):
                raise ValueError(f"{name}: want a pattern below root, got '{pattern}'")
        if labels and len(_WILD.findall(labels)) != len(_WILD.findall(images or "")):
            raise ValueError(f"images '{images}' and labels '{labels}' must have as many wildcards, which pair them")
        self._csv = None if csv is None else Path(csv).expanduser()
        self._root = Path() if root is None else Path(root).expanduser()
        self._images, self._labels = images or "", labels
        self._map, self._pattern = check_label_map(label_map), compiled(patient_regex)
        self._origin, self._hu, self._mm = origin, intensity == "hu", spacing == "trusted"
        self._exclude = exclude

    def cases(self) -> list[Case]:
        """The cases, in the file's order or by name."""
        found = self._searched() if self._csv is None else self._listed(self._csv)
        return leave_out(found, self._exclude, self._csv or self._root)

    def _listed(self, file: Path) -> list[Case]:
        rows = read_csv(file, _COLUMNS, ["image"])
        if not rows:
            raise ValueError(f"{file}: lists no scan")
        names = _names([row["image"] for _, row in rows])
        cases: list[Case] = []
        lines: dict[str, str] = {}
        for (here, row), name in zip(rows, names, strict=True):
            case, part = row.get("id") or name, row.get("split", "").lower()
            if part and part not in _SPLITS:
                raise ValueError(f"{here}: split '{part}'{suggest(part, _SPLITS)} Want {', '.join(_SPLITS)} or nothing")
            if case in lines:
                raise ValueError(f"{here}: case '{case}' is there twice, also in line {lines[case].rpartition(':')[2]}")
            lines[case] = here
            label = file.parent / row["label"] if row.get("label") else None
            made = self._case(
                case, row["image"], file.parent / row["image"], label, row.get("patient", ""), row.get("origin", "")
            )
            external = part == "external"
            cases.append(dataclasses.replace(made, part="" if external else part, external=external))
        return cases

    def _searched(self) -> list[Case]:
        if not self._root.is_dir():
            raise ValueError(f"{self._root}: no such folder")
        labels = {} if self._labels is None else self._glob(self._labels)
        taken = set(labels.values())
        scans = {key: path for key, path in self._glob(self._images).items() if path not in taken}
        if not scans:
            raise ValueError(f"{self._root}: images '{self._images}' finds nothing")
        if self._labels is not None and not scans.keys() & labels.keys():
            shown = [", ".join("/".join(k) for k in sorted(keys)[:3]) or "nothing" for keys in (scans, labels)]
            raise ValueError(
                f"{self._root}: no label belongs to a scan: the wildcards of images '{self._images}' stand for "
                f"{shown[0]}, those of labels '{self._labels}' for {shown[1]}"
            )
        cases: dict[str, Case] = {}
        for key in {**scans, **labels}:
            # A missing scan is named where it should be, so that `prepare` reports it and goes on.
            path = scans.get(key) or self._root / _filled(self._images, key)
            listed = path.relative_to(self._root).as_posix()
            case = _id("-".join(part.strip("/") for part in key if part.strip("/"))) or _id(bare(path.name))
            if case in cases:
                raise ValueError(f"{self._root}: two scans would be called '{case}': {cases[case].image} and {path}")
            cases[case] = self._case(case, listed, path, labels.get(key), "", "")
        return [cases[case] for case in sorted(cases, key=natural)]

    def _case(self, case: str, listed: str, image: Path, label: Path | None, owner: str, origin: str) -> Case:
        origin = origin or self._origin
        if not owner:
            owner = patient(self._pattern, listed) if self._pattern else patient_of(origin, case)
        return Case(
            id=case,
            patient=owner,
            image=image,
            label=label,
            origin=origin,
            spacing_trusted=self._mm,
            hu_trusted=self._hu,
            label_map=() if label is None else self._map,
        )

    def _glob(self, pattern: str) -> dict[tuple[str, ...], Path]:
        expression = re.compile("".join(_expression(part) for part in re.split(f"({_WILD.pattern})", pattern)))
        found = {}
        for path in sorted(self._root.glob(pattern)):
            relative = path.relative_to(self._root)
            match = expression.fullmatch(relative.as_posix())
            if match and not any(part.startswith(".") for part in relative.parts):
                found[match.groups()] = path
        return found


def _expression(part: str) -> str:
    return {"**/": "((?:.*/)?)", "*": "([^/]*)", "?": "([^/])"}.get(part, re.escape(part))


def _filled(pattern: str, key: tuple[str, ...]) -> str:
    values = iter(key)
    return _WILD.sub(lambda _: next(values), pattern)


def _names(images: list[str]) -> list[str]:
    """Ids by file name, or by the whole path where several files have one name."""
    names = [_id(bare(Path(image).name)) for image in images]
    count = Counter(names)
    return [n if count[n] == 1 else _id(bare(i).replace("\\", "/")) for n, i in zip(names, images, strict=True)]


def _id(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", text).strip("-._+")
