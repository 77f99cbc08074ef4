"""Which prediction belongs to which reference: label files of two folders, by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import registry
from core.data.casefile import natural
from core.data.layouts import ENDINGS, bare, read_csv
from core.errors import UserError
from core.types import Case

_LITS = re.compile(r"(test-)?segmentation-(\d+)")
_SCAN = re.compile(r"(test-)?volume-(\d+)")
_WORDS = r"prediction|pred|segmentation|seg|labels|label|mask|gt|test|reference|ref|volume|image|img|scan|ct"
_PREFIX = re.compile(rf"(?:{_WORDS})[-_](?=.)", re.IGNORECASE)
_SUFFIX = re.compile(rf"(?<=.)[-_](?:{_WORDS})$", re.IGNORECASE)
_NUMBER = re.compile(r"(?:(?:liver|case)[-_])?0*(\d+)", re.IGNORECASE)
_IRCADB = range(28, 49)
"""LiTS volumes that are copies of 3D-IRCADb (28 to 47, by another count to 48), whose true spacing is not known."""
_HOW = "names pair when they are equal, or equal without words around them such as segmentation-, test-, _pred"


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    Attributes:
        case: the case's id: the reference's name; of ``segmentation-N`` it is ``volume-N``, as in a store.
        patient: whose scan it is.
        ref: the reference.
        pred: the prediction, None if it is missing.
        image: the scan, None if there is none.
        repairs: known faults of the reference, as `Case.repairs`.
        doubt: why the spacing cannot be trusted whatever the file says, or an empty string.
    """

    case: str
    patient: str
    ref: Path
    pred: Path | None = None
    image: Path | None = None
    repairs: tuple[str, ...] = ()
    doubt: str = ""


@dataclass
class Pairs:
    """What two folders hold.

    Attributes:
        cases: one for each reference.
        extra: predictions that have no reference.
        problems: what no option lets through, a line each.
        lits: how many references are LiTS' own, by their names.
    """

    cases: list[CaseFiles] = field(default_factory=list)
    extra: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lits: int = 0


def pair_files(pred: Path, ref: Path, images: Path | None = None, patients: Path | None = None) -> Pairs:
    """Pair the label files of two folders, and the scans of a third.

    Args:
        pred: predictions.
        ref: references.
        images: scans.
        patients: CSV with the columns case and patient.

    Raises:
        UserError: if a folder is missing or holds no volume, no name of one pairs with any of the other, or the table
            of patients cannot be read.
    """
    if pred.resolve() == ref.resolve():
        raise UserError(f"{pred}: predictions and references are the same folder")
    out = Pairs()
    refs, preds = (_by_name(folder, out.problems) for folder in (ref, pred))
    scans = {} if images is None else _by_name(images, out.problems, images=True)
    names = {name: _case(name) for name in refs}
    for case in sorted({c for c in names.values() if list(names.values()).count(c) > 1}):
        files = [str(refs[name]) for name in refs if names[name] == case]
        out.problems.append(f"case '{case}': two references, {' and '.join(files)}; take one of them out")
    found = _match(refs, preds, out.problems)
    if not found:
        raise UserError(f"no file of {pred} pairs with one of {ref}, e.g. {_first(preds)} and {_first(refs)}\n  {_HOW}")
    shown = _match(refs, scans, out.problems)
    known = _lits(ref) if any(_LITS.fullmatch(name) for name in refs) else {}
    table = None if patients is None else _patients(patients)
    for name, path in refs.items():
        lits = known.get(path)
        patient = lits.patient if lits is not None else names[name]
        if table is not None:
            given = next((table[n] for n in (names[name], name, path.name) if n in table), None)
            if given is None:
                out.problems.append(f"case '{names[name]}': {patients} does not name its patient; add a row")
            patient = given or patient
        out.lits += lits is not None
        repairs = () if lits is None else lits.repairs
        image = scans.get(shown.get(name, ""))
        prediction = preds.get(found.get(name, ""))
        doubt = _doubt(names[name]) if lits is not None else ""
        out.cases.append(CaseFiles(names[name], patient, path, prediction, image, repairs, doubt))
    out.extra = [preds[name] for name in preds if name not in found.values()]
    out.cases.sort(key=lambda files: natural(files.case))
    return out


def _by_name(folder: Path, problems: list[str], *, images: bool = False) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    files = list(_files(folder))
    volumes = [file for file in files if file.name.lower().endswith(ENDINGS) and not file.name.startswith(".")]
    if any(_LITS.fullmatch(bare(file.name)) for file in volumes):
        # LiTS has scans and labels side by side.
        other = _LITS if images else _SCAN
        volumes = [file for file in volumes if not other.fullmatch(bare(file.name))]
    if not volumes:
        holds = f"; it holds {', '.join(sorted(file.name for file in files)[:5])}" if files else "; it is empty"
        kind = "scan" if images else "label file"
        raise UserError(f"{folder}: no {kind} in it ({', '.join(ENDINGS)}){holds}")
    out: dict[str, Path] = {}
    for file in sorted(volumes):
        name = bare(file.name)
        name = name.removesuffix("_0000") if images else name
        if name in out:
            problems.append(f"'{name}' is there twice: {out[name]} and {file}; take one of them out")
        out.setdefault(name, file)
    return dict(sorted(out.items(), key=lambda item: natural(item[0])))


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder; a folder that links lead to again is not read twice."""
    seen = set[str]()
    for at, inside, names in os.walk(folder, followlinks=True):
        if os.path.realpath(at) in seen:
            inside.clear()
            continue
        seen.add(os.path.realpath(at))
        yield from (Path(at) / name for name in sorted(names))


def _match(refs: Mapping[str, Path], others: Mapping[str, Path], problems: list[str]) -> dict[str, str]:
    """Reference's name -> other's name: those that are equal, then those that are when words around them go."""
    out = {name: name for name in refs if name in others}
    left = _by_stem(name for name in others if name not in out)
    for stem, names in _by_stem(name for name in refs if name not in out).items():
        near = left.get(stem, [])
        if len(names) == len(near) == 1:
            out[names[0]] = near[0]
        elif near:
            sides = " and ".join(", ".join(str(of[n]) for n in held) for of, held in ((refs, names), (others, near)))
            problems.append(f"unclear which belongs to which: {sides}; rename them, or take some out")
    return out


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for name in names:
        out.setdefault(_stem(name), []).append(name)
    return out


def _stem(name: str) -> str:
    before = ""
    while before != name:
        before, name = name, _SUFFIX.sub("", _PREFIX.sub("", name, count=1))
    number = _NUMBER.fullmatch(name)
    return number[1] if number else name


def _case(name: str) -> str:
    match = _LITS.fullmatch(name)
    return f"{match[1] or ''}volume-{int(match[2])}" if match else name


def _doubt(case: str) -> str:
    number = re.fullmatch(r"volume-(\d+)", case)
    return "LiTS copied it from 3D-IRCADb without its spacing" if number and int(number[1]) in _IRCADB else ""


def _lits(folder: Path) -> dict[Path, Case]:
    """What the source that `prepare` uses knows of LiTS' references."""
    cases = registry.get("source", "lits").target(root=folder).cases()
    return {case.label: case for case in cases if case.label is not None}


def _patients(file: Path) -> dict[str, str]:
    try:
        rows = read_csv(file, ("case", "patient"), ("case", "patient"))
    except ValueError as error:
        raise UserError(str(error)) from error
    table: dict[str, str] = {}
    for place, row in rows:
        if table.setdefault(row["case"], row["patient"]) != row["patient"]:
            raise UserError(f"{place}: '{row['case']}' is there twice, with patients of two names")
    return table


def _first(files: Mapping[str, Path]) -> str:
    return next(iter(files.values())).name
