"""Ways to the figures of one pair of label volumes: Hepar's, and those of others where they are installed.

Every way gives Dice, IoU, VOE, RVD, ASSD, RMSD, HD, HD95 and NSD at three tolerances of liver and tumour, and lesion
counts at three thresholds, as far as it has them; what a system lacks is left out and not made up for.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata, util
from typing import Any

import numpy as np

from core.bench.measures_pair import LabelPair
from core.bench.measures_systems import SYSTEMS
from core.errors import UserError
from core.measure import overlap, surface
from core.measure.matching import THRESHOLDS, match_at, overlaps
from core.measure.pair import CasePair, Structure

STRUCTURES: tuple[Structure, ...] = ("liver", "tumour")
TOLERANCES = (1.0, 2.0, 3.0)

Part = Callable[[str], AbstractContextManager[None]]
Way = Callable[[LabelPair], object]


def hepar(pair: LabelPair, part: Part = lambda name: nullcontext()) -> dict[str, Any]:
    """Hepar's functions, from label volumes that nothing is known of; `part` may look at the clock."""
    out: dict[str, Any] = {}
    case = CasePair("pair", pair.pred, pair.ref, pair.spacing_mm)
    with part("box and masks"):
        for structure in STRUCTURES:
            case.structure(structure)
    with part("overlap"):
        for structure in STRUCTURES:
            counts = case.counts(structure)
            out[structure] = {name: overlap.figure(name, counts) for name in ("dice", "iou", "voe", "rvd")}
    for structure in STRUCTURES:
        with part(f"surface distances, {structure}"):
            found = surface.of_pair(case, structure)
        with part("figures of distances"):
            if found is not None:
                out[structure] |= {"assd": found.assd(), "rmsd": found.rmsd(), "hd": found.hd(), "hd95": found.hd95()}
                out[structure] |= {f"nsd_{tolerance:g}": found.nsd(tolerance) for tolerance in TOLERANCES}
    with part("lesions"):
        ref, pred = case.lesions("ref"), case.lesions("pred")
        touching = overlaps(ref, pred)
        out["lesions"] = {name: len(match_at(touching, threshold)) for name, threshold in THRESHOLDS.items()}
    return out


def lits(pair: LabelPair) -> dict[str, Any]:
    """The LiTS scorer's way: cropped to the object, edges by erosion with 18 neighbours, a k-d tree, scipy's lesions.

    Kinder than its program: the overlaps of lesions come from one table in place of two passes for each pair.
    """
    from scipy import ndimage
    from scipy.spatial import cKDTree

    out: dict[str, Any] = {}
    kernel = ndimage.generate_binary_structure(3, 2)
    for structure, (p, r) in masks(pair):
        box = ndimage.find_objects((p | r).astype(np.uint8))[0]
        p, r = p[box], r[box]
        points = [np.argwhere(mask ^ ndimage.binary_erosion(mask, kernel)) * pair.spacing_mm for mask in (p, r)]
        trees = [cKDTree(at) for at in points]
        apart = [np.asarray(trees[1].query(points[0])[0]), np.asarray(trees[0].query(points[1])[0])]
        out[structure] = {**_overlap(p, r), **_distances(*apart)}
    # The last box is the tumours'.
    pred, ref = (np.asarray(ndimage.label(labels == 2)[0])[box] for labels in (pair.pred, pair.ref))
    table = np.zeros((ref.max() + 1, pred.max() + 1), np.int64)
    np.add.at(table, (ref.ravel(), pred.ravel()), 1)
    union = table.sum(axis=0) + table.sum(axis=1)[:, None] - table
    iou = (table / np.maximum(union, 1))[1:, 1:]
    out["lesions"] = {name: int((iou > threshold).any(axis=1).sum()) for name, threshold in THRESHOLDS.items()}
    return out


def surface_distance(pair: LabelPair) -> dict[str, Any]:
    """DeepMind's surface-distance; it has no RMSD and no lesions."""
    import surface_distance as package

    out: dict[str, Any] = {}
    for structure, (p, r) in masks(pair):
        found = package.compute_surface_distances(r, p, pair.spacing_mm)
        figures = {"dice": package.compute_dice_coefficient(r, p)}
        figures["assd"] = package.compute_average_surface_distance(found)
        figures |= {name: package.compute_robust_hausdorff(found, q) for name, q in (("hd", 100), ("hd95", 95))}
        figures |= {f"nsd_{t:g}": package.compute_surface_dice_at_tolerance(found, t) for t in TOLERANCES}
        out[structure] = figures
    return out


def monai(pair: LabelPair) -> dict[str, Any]:
    """MONAI's functions, called one by one, each for both structures at once; it has no RMSD and no lesions."""
    import torch
    from monai import metrics as package

    sides = zip(*(pairs for _, pairs in masks(pair)), strict=True)
    # Channels: background, which the functions leave out, liver and tumour.
    p, r = (torch.from_numpy(np.stack([~liver, liver, tumour]))[None] for liver, tumour in sides)
    spacing = pair.spacing_mm
    return {
        "dice": package.compute_dice(p, r, include_background=False),
        "iou": package.compute_iou(p, r, include_background=False),
        "assd": package.compute_average_surface_distance(p, r, symmetric=True, spacing=spacing),
        "hd": package.compute_hausdorff_distance(p, r, spacing=spacing),
        "hd95": package.compute_hausdorff_distance(p, r, percentile=95, spacing=spacing),
        **{f"nsd_{t:g}": package.compute_surface_dice(p, r, [t, t], spacing=spacing) for t in TOLERANCES},
    }


def medpy(pair: LabelPair) -> dict[str, Any]:
    """The functions of medpy, called one by one on the whole volume; it has no RMSD and no NSD."""
    from medpy.metric import binary

    out: dict[str, Any] = {}
    for structure, (p, r) in masks(pair):
        figures = {"dice": binary.dc(p, r), "iou": binary.jc(p, r), "rvd": binary.ravd(p, r)}
        figures |= {name: getattr(binary, name)(p, r, pair.spacing_mm) for name in ("assd", "hd", "hd95")}
        out[structure] = figures
    out["lesions"] = {"found": binary.obj_tpr(*tumours(pair)), "invented": binary.obj_fpr(*tumours(pair))}
    return out


WAYS: dict[str, Way] = {"lits": lits, "surface_distance": surface_distance, "monai": monai, "medpy": medpy}


def masks(pair: LabelPair) -> Iterator[tuple[Structure, tuple[np.ndarray, np.ndarray]]]:
    """Both sides' masks of the whole volume, by structure."""
    yield "liver", (pair.pred >= 1, pair.ref >= 1)
    yield "tumour", tumours(pair)


def tumours(pair: LabelPair) -> tuple[np.ndarray, np.ndarray]:
    """Both sides' tumour masks."""
    return pair.pred == 2, pair.ref == 2


def versions(names: Sequence[str]) -> dict[str, str]:
    """The version of each package.

    Raises:
        UserError: before any long work, if one of them is not there.
    """
    found = {}
    for name in names:
        system = SYSTEMS[name]
        if util.find_spec(system.module) is None:
            raise UserError(
                f"--against {name}: the package {system.package} is not installed here (the project does not need it); "
                f"pip install {system.package}, or leave {name} out"
            )
        found[system.package] = metadata.version(system.package)
    return found


def quietly(way: Way) -> Way:
    """The same without its warnings: one package calls names that scipy is about to take away."""

    def run(pair: LabelPair) -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return way(pair)

    return run


def _overlap(pred: np.ndarray, ref: np.ndarray) -> dict[str, float]:
    p, r, both = (int(np.count_nonzero(mask)) for mask in (pred, ref, pred & ref))
    iou = both / (p + r - both)
    return {"dice": 2 * both / (p + r), "iou": iou, "voe": 1 - iou, "rvd": p / r - 1}


def _distances(pred: np.ndarray, ref: np.ndarray) -> dict[str, float]:
    every = np.concatenate([pred, ref])
    hd95 = max(float(np.percentile(side, 95)) for side in (pred, ref))
    near = {f"nsd_{t:g}": float(np.mean(every <= t)) for t in TOLERANCES}
    return {"assd": every.mean(), "rmsd": np.sqrt(np.mean(every**2)), "hd": every.max(), "hd95": hd95, **near}
