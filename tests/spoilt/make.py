"""Write every spoilt input beside two good cases, or the page that says what `prepare` makes of them.

python tests/spoilt/make.py FOLDER     a folder each, in LiTS' layout or as DICOM series
python tests/spoilt/make.py --table    docs/spoilt.md
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from body import Pair, Spoilt
from dicom_inputs import DICOM
from file_inputs import FILES
from grid_inputs import GRIDS
from label_inputs import LABELS

import core.contracts  # noqa: F401  (declares the kinds)
import registry
from core.audit.rules import RULES
from core.audit.run import audit
from core.contracts import Case
from core.data.outcome import Report
from core.data.prepare import prepare
from core.errors import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spoilt.md"
INPUTS = [*FILES, *LABELS, *GRIDS, *DICOM]
GOOD = ["volume-11", "volume-13"]
NOBODY = 65534
_LIBRARY = re.compile(r"(unreadable or cut short )\(.*\)$")
"""What a library says itself stands in parentheses, and differs from version to version."""


@dataclass(frozen=True)
class Batch:
    """Two good cases and a spoilt one between them, prepared twice.

    Attributes:
        first: what `prepare` reported.
        again: what it reported when run once more.
        says: the answer to the spoilt case: its message, or the remarks on it; the folder's name left out.
        files: of the store's folder, hidden ones included.
        audit: what `tools/prepare.py --check` finds in a spoilt case that is taken, and not in a good one.
    """

    first: Report
    again: Report
    says: str
    files: list[str]
    audit: str


def write(one: Spoilt, folder: Path) -> None:
    """Write the batch."""
    folder.mkdir(parents=True)
    for number in (11, 13):
        Pair.clean(folder, number)
    one.make(Pair.clean(folder))


def cases(folder: Path) -> list[Case]:
    """The cases of a batch: LiTS' layout, and any series folder or MetaImage file in place of a scan."""
    found = list(registry.get("source", "lits").target(root=folder).cases())
    for path in sorted(folder.glob("volume-12*")):
        if path.is_dir() or path.suffix in (".mha", ".mhd", ".nrrd"):
            label = next(folder.glob("segmentation-12*"))
            found = [case for case in found if case.id != "volume-12"]
            found.insert(1, Case("volume-12", "patient-12", path, label))
    return found


def run(folder: Path, store: Path) -> Batch:
    """Prepare a batch, in this process, and once more."""

    class Found:
        def cases(self) -> list[Case]:
            return cases(folder)

    def once() -> Report:
        with contextlib.redirect_stderr(io.StringIO()):  # the progress bar
            return prepare(Found(), store, workers=1, source_config={"name": "lits"})

    with as_nobody(folder.parent):
        first, again = once(), once()
    messages = [message for case, _, message in first.bad if case == "volume-12"]
    notes = [note for case, note in first.notes if case == "volume-12"]
    says = _LIBRARY.sub(r"\1(...)", "; ".join(messages or notes).replace(f"{folder}/", ""))
    files = sorted(path.name for path in store.iterdir())
    return Batch(first, again, says, files, audited(folder) if "volume-12" in first.stored else "")


def audited(folder: Path) -> str:
    """The rules that the audit finds broken by the spoilt case and by no good one, the worst first."""
    with contextlib.redirect_stderr(io.StringIO()):
        found = audit(cases(folder), "spoilt", "", workers=1)
    usual = {finding.rule for case in GOOD for finding in found.of_case(case) if "volume-12" not in finding.cases}
    rules = dict.fromkeys(f.rule for f in found.of_case("volume-12") if f.rule not in usual)
    return ", ".join(f"{RULES[rule].severity} {rule}" for rule in rules)


@contextlib.contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """For root, who may read everything: in here with the rights of an ordinary user, who owns `folder`."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            os.chown(path, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def prepared(one: Spoilt) -> Batch:
    """Write a batch into a temporary folder and prepare it."""
    with tempfile.TemporaryDirectory(prefix="hepar_spoilt_") as name:
        place = Path(name)
        place.chmod(0o755)  # or nobody could not enter
        write(one, place / "in")
        return run(place / "in", place / "store")


def page(found: list[tuple[Spoilt, str, str]]) -> str:
    """The page docs/spoilt.md, of the inputs, what `prepare` said to each and what the audit found."""
    refused = [(one, says) for one, says, _ in found if not one.taken]
    taken = [(one, says, rules) for one, says, rules in found if one.taken]
    lines = [
        "# Spoilt inputs",
        "",
        f"`tests/spoilt/make.py` writes {len(found)} batches of three scans: two good ones and, between them, one that",
        "is spoilt. Each is prepared for real; this page is what came out: `python tests/spoilt/make.py --table`",
        "writes it, and a test keeps it current. The folder in front of each path is left out, and so is, (...), what",
        "a library has to say. Where root runs it, an ordinary user's rights are taken on: root may read everything.",
        "",
        "**What the rest of the batch did**, in every one of them: both good cases were stored, nothing half-written",
        "was left, and a second run stored nothing, left both as they were and said the same again.",
        "",
        f"## Refused: {len(refused)}",
        "",
        "The case is not in the store, the tool exits with 1.",
        "",
        "| input | message |",
        "|---|---|",
        *(f"| {one.what} | {cell(says)} |" for one, says in refused),
        "",
        f"## Taken: {len(taken)}",
        "",
        "The case is in the store. A remark is in the report and in the case's file; what spoils the spacing or the",
        "HU keeps the case out of the figures in mm, ml or HU. The last column is what `tools/prepare.py --check`",
        "finds: it looks at what the label lies on, and compares scans with each other.",
        "",
        "| input | remark | the audit |",
        "|---|---|---|",
        *(f"| {one.what} | {cell(says)} | {cell(rules)} |" for one, says, rules in taken),
        "",
    ]
    return "\n".join(lines)


def cell(text: str) -> str:
    """A text as a table's cell."""
    return f"`{text}`".replace("|", "\\|").replace("\n", " ") if text else "-"


def main() -> int:
    """Write the folders or the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="where the inputs go")
    parser.add_argument("--table", action="store_true", help="write docs/spoilt.md")
    args = parser.parse_args()
    registry.discover("plugins")
    if args.folder is not None:
        if args.folder.exists():
            raise UserError(f"{args.folder}: exists already; name a new folder")
        for one in INPUTS:
            write(one, args.folder / one.name)
    if args.table:
        batches = [(one, prepared(one)) for one in INPUTS]
        PAGE.write_text(page([(one, batch.says, batch.audit) for one, batch in batches]), encoding="utf-8")
    if args.folder is None and not args.table:
        parser.error("want a folder or --table")
    return 0


if __name__ == "__main__":
    sys.exit(main())
