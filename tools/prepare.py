"""Scans -> checked store, as an experiment says. Safe to run again: it does only what is missing or has changed.

python tools/prepare.py experiments/unet_r34_cedice.yaml source.root=/data/LiTS
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import registry
from core.data.prepare import prepare_experiment
from core.experiment import load, run_tool


def main() -> int:
    """Prepare; exit 1 if a case was bad, 2 if nothing could be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, help="an experiment file or a run directory")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="e.g. source.root=/data/LiTS store=data/lits")
    args = parser.parse_args()
    registry.discover("plugins")
    report = prepare_experiment(load(args.experiment, args.overrides))
    print(report.table())
    return 1 if report.bad else 0


if __name__ == "__main__":
    run_tool(main)
