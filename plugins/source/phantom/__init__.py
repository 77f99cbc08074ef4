"""The embedded synthetic data set: portal-venous CT of the liver with known truth, made on the spot from a seed."""

from __future__ import annotations

import functools
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from core.contracts import Case
from core.parallel import map_cases
from plugins.source.phantom.case import make_case
from plugins.source.phantom.scanner import encode
from registry import register

STALE_S = 3600.0  # a temporary file this old belongs to nobody any more


@register("source", "phantom")
class Phantom:
    """Synthetic portal-venous CT of the liver with tumours, made from a seed and learnable in minutes.

    Missing cases are made when `cases()` is called, into `root/<version>-seed<seed>/` in LiTS' file layout
    (`volume-N.nii.gz`, `segmentation-N.nii.gz`), with `manifest.json` beside them: patient, spacing_mm, orientation,
    shape and every tumour's centre_mm, diameter_mm, contrast_hu and location. Case N depends on the seed and N only,
    never on how many are asked for; a run that was killed goes on where it stopped. Geometry (orientation, permuted
    axes, 1-5 mm slices) and number formats vary as LiTS' do. Of each eight cases, the last two are one patient's, with
    the tumours grown or shrunk in between.

    Ranges held by tests, in HU (means of a tissue's interior): liver 90..130, spleen 100..140, kidney 140..220, fat
    -120..-80, muscle 45..75, trabecular bone 120..250, aorta and portal vein 130..190, gallbladder 0..20, lung under
    -700, air about -1000. Noise: SD 8..25 in the liver. Liver 900..2300 ml. Tumours: 0..12 a case, 3..60 mm, their
    solid part 10..70 HU darker or, rarely, brighter than liver, contrast over noise 0.4..8.5. One case in ten has none.

    Args:
        root: folder of the data set, shared by seeds and versions.
        version: of the generator; a version's cases never change.
        cases: how many to list.
        seed: another seed is another population.

    Raises:
        ValueError: for a count under 1 or a negative seed.

    Example: {name: phantom, root: data/phantom, cases: 40}
    """

    def __init__(
        self,
        *,
        root: Path = Path("data/phantom"),
        version: Literal["v1"] = "v1",
        cases: int = 48,
        seed: int = 0,
    ) -> None:
        if version != "v1":
            raise ValueError(f"phantom: unknown version {version!r}; the only one there is: 'v1'")
        if cases < 1:
            raise ValueError(f"phantom: cases must be 1 or more, got {cases}")
        if seed < 0:
            raise ValueError(f"phantom: seed must be 0 or more, got {seed}")
        self.version, self.count, self.seed = version, cases, seed
        self.folder = Path(root) / f"{version}-seed{seed}"

    def cases(self) -> list[Case]:
        """Make what is missing, then list all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [index for index in range(self.count) if not is_whole(self.folder, index)]
        if missing:
            remove_stale(self.folder)
            generate(self.folder, self.seed, missing)
        manifest = write_manifest(self.folder, self.version, self.seed)
        listed = []
        for index in range(self.count):
            volume, segmentation, _ = paths_of(self.folder, index)
            patient = manifest["cases"][str(index)]["patient"]
            origin = f"PHANTOM {self.version}"
            listed.append(Case(f"phantom-{self.seed}-{index:04d}", patient, volume, segmentation, origin))
        return listed


def paths_of(folder: Path, index: int) -> tuple[Path, Path, Path]:
    """Image, label, and the case's own part of the manifest."""
    truth = folder / "truth" / f"{index}.json"
    return folder / f"volume-{index}.nii.gz", folder / f"segmentation-{index}.nii.gz", truth


def is_whole(folder: Path, index: int) -> bool:
    """Whether all files of a case are there; each arrives complete or not at all."""
    return all(path.is_file() for path in paths_of(folder, index))


def generate(folder: Path, seed: int, missing: list[int]) -> None:
    """Make the missing cases, one process a core."""
    write = functools.partial(write_case, folder, seed)
    for _, error in map_cases(write, missing, description="making phantom cases"):
        if error is not None:
            raise error


def write_case(folder: Path, seed: int, index: int) -> None:
    """Make one case and put its three files in place, each at one stroke."""
    made = make_case(seed, index)
    volume, segmentation, truth = paths_of(folder, index)
    replace(volume, encode(made.image, made.grid, made.protocol.orientation, made.protocol.stored))
    replace(segmentation, encode(made.label, made.grid, made.protocol.orientation, "uint8"))
    truth.parent.mkdir(exist_ok=True)
    replace(truth, json.dumps(made.describe(), indent=1).encode())


def replace(path: Path, content: bytes) -> None:
    """Write to a name of this process's own, then rename: others see the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def remove_stale(folder: Path) -> None:
    """Remove what killed runs left half-written."""
    for left in (*folder.glob(".*.tmp"), *folder.glob("truth/.*.tmp")):
        try:
            if time.time() - left.stat().st_mtime > STALE_S:
                left.unlink()
        except FileNotFoundError:
            pass  # another process cleaned up too


def write_manifest(folder: Path, version: str, seed: int) -> dict[str, Any]:
    """Gather the cases' truths into one file, whoever made them."""
    while True:
        found = sorted(int(path.stem) for path in folder.glob("truth/[0-9]*.json"))
        whole = [index for index in found if is_whole(folder, index)]
        cases = {str(index): json.loads(paths_of(folder, index)[2].read_text()) for index in whole}
        manifest = {"version": version, "seed": seed, "cases": cases}
        content = json.dumps(manifest, indent=1).encode()
        path = folder / "manifest.json"
        if not path.is_file() or path.read_bytes() != content:
            replace(path, content)
        if sorted(int(path.stem) for path in folder.glob("truth/[0-9]*.json")) == found:
            return manifest
