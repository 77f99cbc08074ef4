"""Predict label maps for scans: 0 background, 1 liver, 2 tumour, on each scan's own grid.

A scan is a NIfTI, NRRD or MetaImage file, or a folder with a DICOM series.

python tools/predict.py runs/NAME scan.nii.gz -o out/
python tools/predict.py runs/NAME folder/ -o out/
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import registry
from core.data.dicom import holds_series
from core.data.volume import SUFFIXES, read_image, write_labels
from core.errors import UserError
from core.experiment import run_tool
from core.infer.run import load_run
from core.parallel import map_cases

_OVERRIDE = re.compile(r"[a-z_]+[\w.\[\]]*=")


def main() -> int:
    """Predict; a bad file is reported and the rest goes on."""
    args = _parse()
    registry.discover("plugins")
    overrides = [word for word in args.inputs if _OVERRIDE.match(word) and not Path(word).exists()]
    jobs = _jobs([Path(word) for word in args.inputs if word not in overrides], args.out)
    done = [scan for scan, target in jobs if target.exists() and not args.overwrite]
    if done:
        print(f"{len(done)} of {len(jobs)} already in {args.out}, left as they are (--overwrite predicts them again)")
    todo = [(scan, target) for scan, target in jobs if scan not in done]
    if not todo:
        return 0
    run = load_run(args.run, args.checkpoint, args.device, overrides, tuned=not args.untuned)
    for text in (run.note, run.tuned.text if run.tuned is not None else ""):
        if text:
            print(f"note: {text}")
    args.out.mkdir(parents=True, exist_ok=True)

    def one(job: tuple[Path, Path]) -> None:
        scan, target = job
        volume = read_image(scan)
        write_labels(target, run.predict(volume).labels, volume.native)

    bad = []
    for (scan, _), error in map_cases(one, todo, workers=0, description="predicting"):
        if isinstance(error, Exception):
            bad.append(_reason(scan, error))
    good = len(todo) - len(bad)
    print(f"{good} label map{'s' if good != 1 else ''} written to {args.out} (0 background, 1 liver, 2 tumour)")
    if bad:
        print(f"{len(bad)} of {len(todo)} failed:", *(f"  {text}" for text in bad), sep="\n", file=sys.stderr)
    return 1 if bad else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="input",
        help="NIfTI, NRRD or MetaImage files, folders with a DICOM series, or folders of these (files called "
        "segmentation* are passed over); also overrides such as inferer.batch=8",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for the label maps, <stem>.nii.gz each")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a file (default: best)")
    parser.add_argument("--device", help="e.g. cpu, cuda:1 (default: a GPU where there is one)")
    parser.add_argument("--untuned", action="store_true", help="leave aside the post-processing that tune.py chose")
    parser.add_argument("--overwrite", action="store_true", help="predict again what is in the folder already")
    return parser.parse_intermixed_args()


def _jobs(inputs: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Scans and where their label maps go.

    Raises:
        UserError: if nothing is to be done, or a label map would land on a scan or on another label map.
    """
    if out.name.lower().endswith(SUFFIXES) or (out.exists() and not out.is_dir()):
        raise UserError(f"-o {out}: want a folder; each label map is named after its scan")
    scans = [scan for path in inputs for scan in _scans(path)]
    if not scans:
        raise UserError("nothing to predict: give a scan, or a folder of them")
    taken: dict[Path, Path] = {}
    for scan in scans:
        target = out / f"{_stem(scan)}.nii.gz"
        if out.resolve() in (scan.resolve().parent, scan.resolve()):
            raise UserError(f"-o {out} is the folder of {scan}: label maps must not land among the scans; name another")
        if target in taken and taken[target].resolve() != scan.resolve():
            raise UserError(
                f"{taken[target]} and {scan} would both be written to {target}; predict them into two folders"
            )
        taken[target] = scan
    return [(scan, target) for target, scan in taken.items()]


def _scans(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]  # one that does not exist is reported with the bad files
    entries = [p for p in sorted(path.iterdir()) if not p.name.startswith((".", "segmentation"))]
    files = [p for p in entries if p.name.lower().endswith(SUFFIXES) and p.is_file()]
    # A series in several folders is one scan, so the outermost folder with files of a series stands for it.
    if not files and any(p.is_file() for p in entries) and holds_series(path, below=False):
        return [path]
    found = files + [p for p in entries if p.is_dir() and holds_series(p)]
    if not found:
        raise UserError(f"{path}: no scan (*{', *'.join(SUFFIXES)}, or a DICOM series) in this folder")
    return found


def _stem(path: Path) -> str:
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix) and not path.is_dir():
            return path.name[: -len(suffix)]
    return path.resolve().name if path.is_dir() else path.name


def _reason(scan: Path, error: Exception) -> str:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return text if str(scan) in text else f"{scan}: {text}"


if __name__ == "__main__":
    run_tool(main)
