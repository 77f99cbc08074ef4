"""Compare evaluations of the same cases: paired tests, differences with intervals, lesions that one alone finds.

compare.py runs/uniform runs/focused
compare.py runs/a runs/b runs/c/evaluation_val -o out/
compare.py runs/a runs/b --metrics tumour/dice liver/hd95_mm lesions/any/recall

Takes run directories (their evaluation/) and evaluation folders, of any model. Writes comparison.html, .csv and .json,
and tables of cases and lesions side by side, into compare_A_vs_B beside the first run.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.compare.evaluation import load
from core.compare.metrics import DEFAULT
from core.compare.output import FILES, check_folder, default_folder, write
from core.compare.result import compare
from core.compare.terminal import terminal
from core.experiment import run_tool


def main() -> int:
    """Read, compare, write, print."""
    args = _parse()
    comparison = compare(load(args.runs), args.metrics)
    folder: Path = args.out or default_folder(comparison)
    replaces = check_folder(folder, comparison)
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="minutes")
    write(folder, comparison, when=when, command=shlex.join(sys.argv))
    print(f"{terminal(comparison)}\n")
    print(f"written to {folder}{' (the earlier comparison is replaced)' * replaces}: {', '.join(FILES)}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory or evaluation folder")
    parser.add_argument(
        "--metrics", nargs="+", metavar="NAME", help=f"default: the runs' compare:, else {' '.join(DEFAULT)}"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="default: compare_A_vs_B beside the first run")
    return parser.parse_args()


if __name__ == "__main__":
    run_tool(main)
