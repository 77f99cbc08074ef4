"""Write the report of an evaluation again: one HTML page from the tables and pictures that tools/evaluate.py left.

    python tools/report.py runs/NAME
    python tools/report.py FOLDER

Of a run, every evaluation in it gets its page. Nothing is measured again, and no network, scan or store is needed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.errors import UserError
from core.experiment import run_tool
from core.report.page import write_report


def main() -> int:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="RUN|FOLDER", help="run directory, or evaluation folder"
    )
    for target in parser.parse_args().folders:
        for folder in _evaluations(target):
            path = write_report(folder)
            print(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


def _evaluations(target: Path) -> list[Path]:
    if not target.is_dir():
        raise UserError(f"{target}: no such folder")
    if (target / "summary.json").is_file():
        return [target]
    found = sorted(path.parent for path in target.glob("evaluation*/summary.json"))
    if not found:
        raise UserError(f"{target}: no evaluation in it (no summary.json); run tools/evaluate.py {target} first")
    return found


if __name__ == "__main__":
    run_tool(main)
