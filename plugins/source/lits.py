"""LiTS, the Liver Tumor Segmentation Challenge."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from core.contracts import Case
from core.data.overlaps import lits_patient
from core.data.store import natural
from registry import register, suggest

_NAME = re.compile(r"(test-)?(volume|segmentation)-(\d+)\.nii(\.gz)?")
_REPAIRS = {53: ("label_affine",)}
"""Volume 53: the label's affine is the identity, the image's is not."""


@register("source", "lits")
class Lits:
    """LiTS-layout scans: volume-N.nii with segmentation-N.nii, anywhere below one folder.

    Also gzipped, spread over ``Training Batch 1`` and ``Training Batch 2``, and with scans that have no segmentation
    (``volume-N`` or ``test-volume-N``): those are stored, and take part in no split. The layout's parts (split
    ``official``): ``test-volume-N`` test, the others train. Known of LiTS: volumes 0 and 1
    are one patient, and so are 6 to 10; the label of 53 lacks its affine, which `prepare` mends and says; 28 to 48
    (copies of 3D-IRCADb) carry an identity affine, so their mm and ml are left out, as for every such scan.

    Bilic et al. 2023, The Liver Tumor Segmentation Benchmark, arXiv:1901.04056.

    Args:
        root: the folder.
        exclude: case ids to leave out, e.g. ``[volume-53]``.
        intensity: "windowed" if the scans were windowed or rescaled before; figures in HU are then left blank.

    Raises ValueError if the folder is missing or holds no such file.

    Example: {name: lits, root: data/raw/lits}
    """

    def __init__(
        self,
        *,
        root: Path = Path("data/raw/lits"),
        exclude: list[str] | None = None,
        intensity: Literal["hu", "windowed"] = "hu",
    ) -> None:
        self._root = Path(root).expanduser()
        self._exclude, self._hu = exclude or [], intensity == "hu"

    def cases(self) -> list[Case]:
        """All scans, by number; those of the challenge's test set last."""
        if not self._root.is_dir():
            raise ValueError(f"{self._root}: no such folder\n{self._help()}")
        scans: dict[str, list[Path]] = {}
        labels: dict[str, list[Path]] = {}
        visited: set[str] = set()
        for folder, folders, files in os.walk(self._root, followlinks=True):
            folders.sort()
            real = os.path.realpath(folder)
            if real in visited:  # a link to a folder that is here too, or a circle
                folders.clear()
                continue
            visited.add(real)
            for name in sorted(files):
                match = _NAME.fullmatch(name)
                if match:
                    case = f"{match[1] or ''}volume-{int(match[3])}"
                    (scans if match[2] == "volume" else labels).setdefault(case, []).append(Path(folder) / name)
        if not scans and not labels:
            raise ValueError(f"{self._root}: no volume-N.nii in it\n{self._help()}")
        known = sorted({*scans, *labels}, key=natural)
        for case in self._exclude:
            if case not in known:
                raise ValueError(f"exclude: no case '{case}' below {self._root}{suggest(case, known)}")
        known = [case for case in known if case not in self._exclude]
        known.sort(key=lambda case: case.startswith("test-"))
        return [found for case in known for found in self._pair(case, scans.get(case, []), labels.get(case, []))]

    def _pair(self, case: str, scans: list[Path], labels: list[Path]) -> list[Case]:
        if not scans:
            # Named where the scan should be, so that `prepare` reports the pair as broken and goes on.
            name = labels[0].name.replace("segmentation", "volume")
            scans = [labels[0].with_name(name)]
        number = int(case.rsplit("-", 1)[1])
        test = case.startswith("test-")
        count = max(len(scans), len(labels))
        # Two files of one number become two cases of one id, which `prepare` refuses, naming both.
        scans, labels = (found + found[-1:] * (count - len(found)) for found in (scans, labels))
        return [
            Case(
                id=case,
                patient=f"test-patient-{number}" if test else lits_patient(number),
                image=scans[i],
                label=labels[i] if labels else None,
                origin="LiTS",
                hu_trusted=self._hu,
                part="test" if test else "train",
                repairs=() if test else _REPAIRS.get(number, ()),
            )
            for i in range(count)
        ]

    def _help(self) -> str:
        return (
            "  LiTS goes into one folder with volume-N.nii and segmentation-N.nii (subfolders and .nii.gz are fine);\n"
            "  give it with source.root=/path/to/LiTS, to tools/prepare.py or tools/train.py, which prepares first\n"
            "  without LiTS, the synthetic phantom needs no download: experiments/quickstart.yaml"
        )
