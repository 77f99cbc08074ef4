"""An evaluation folder as tools/evaluate.py leaves one, made in a moment: real pairs and views, invented intervals."""

import dataclasses
from pathlib import Path

import numpy as np

from core.measure.pair import CasePair
from core.report.tables import write_csv, write_json
from core.report.views import make_view, write_view
from tests.core.report.fake_summary import PLACES, summary_of

EVIL = '<script>document.title="1"</script>&\'"'
SPACING = (2.5, 0.9, 0.9)


def pair(case: str, lesions: list[tuple], *, shape=(24, 96, 104), seed=0, image=True, trusted=True) -> CasePair:
    """A liver with round lesions, each (z, y, x, radius in voxels, "found" | "missed" | "false" | "partly")."""
    rng = np.random.default_rng(seed)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    centre = [n / 2 for n in shape]
    liver = ((z - centre[0]) / (0.42 * shape[0])) ** 2 + ((y - centre[1]) / (0.36 * shape[1])) ** 2
    liver = liver + ((x - centre[2]) / (0.38 * shape[2])) ** 2 < 1
    ref, pred = liver.astype(np.uint8), np.roll(liver, 1, axis=2).astype(np.uint8)
    body = np.broadcast_to(
        ((y - centre[1]) / (0.49 * shape[1])) ** 2 + ((x - centre[2]) / (0.49 * shape[2])) ** 2 < 1, shape
    )
    hu = np.where(liver, 108.0, np.where(body, 40.0, -900.0)) + 14 * rng.standard_normal(shape)
    for lz, ly, lx, radius, kind in lesions:
        ball = ((z - lz) * SPACING[0] / SPACING[1]) ** 2 + (y - ly) ** 2 + (x - lx) ** 2 <= radius**2
        if kind != "false":
            ref[ball] = 2
            hu[ball] -= 18 if kind == "missed" else 50
        if kind == "partly":
            pred[ball & ((x - lx) + 0 * y + 0 * z < radius * 0.3)] = 2
        elif kind != "missed":
            pred[np.roll(ball, 1, axis=1)] = 2
    hu = np.rint(hu).astype(np.int16)
    return CasePair(case, pred, ref, SPACING, image=hu if image else None, spacing_trusted=trusted)


def rows_of(pair: CasePair, lesions: list[tuple], patient: str) -> dict[str, list]:
    """The tables of one case."""
    cases, slices, rows, candidates = [], [], [], []
    reals = [lesion for lesion in lesions if lesion[4] != "false"]
    hits = sum(lesion[4] in ("found", "partly") for lesion in lesions)
    for structure in ("liver", "parenchyma", "tumour"):
        counts = pair.counts(structure)
        both_empty = counts.pred + counts.ref == 0
        dice = 1.0 if both_empty else 2 * counts.both / (counts.pred + counts.ref)
        some = counts.pred and counts.ref
        row = {"case": pair.case, "patient": patient, "structure": structure, "dice": dice, "iou": dice / (2 - dice)}
        row |= {"voe": 1 - dice / (2 - dice), "rvd": (counts.pred - counts.ref) / counts.ref if counts.ref else None}
        row |= {"precision": counts.both / counts.pred if counts.pred else None}
        row |= {"volume_ml_pred": counts.pred * pair.voxel_ml, "volume_ml_ref": counts.ref * pair.voxel_ml}
        row |= {"assd_mm": 3 * (1 - dice) + 0.4 if some else None, "hd95_mm": 20 * (1 - dice) + 1 if some else None}
        row |= {"nsd_1mm": dice * 0.8, "nsd_2mm": dice * 0.9, "nsd_3mm": dice * 0.95}
        row |= {"voxels_pred": counts.pred, "voxels_ref": counts.ref, "voxels_both": counts.both}
        if structure == "tumour":
            row |= {"lesions_ref": len(reals), "lesions_pred": hits + len(lesions) - len(reals), "tp_any": hits}
            row |= {"slice_thickness_mm": SPACING[0], "burden": counts.ref / max(1, pair.counts("liver").ref)}
        cases.append(row)
        for z, (p, r, b) in enumerate(pair.slice_counts(structure)):
            if p or r:
                slices.append({"case": pair.case, "z": z, "structure": structure, "dice": 2 * b / (p + r)})
    number = {"ref": 0, "pred": 0}
    for k, (z, y, x, radius, kind) in enumerate(lesions):
        diameter, at = 2 * radius * SPACING[1], {"z": z, "y": y, "x": x}
        thick = round(radius * SPACING[1] / SPACING[0])
        volume = np.pi / 6 * diameter**3 / 1000
        shared = {
            "case": pair.case,
            "patient": patient,
            "volume_ml": volume,
            "diameter_mm": diameter,
            "voxels": 9 * (k + 1),
        }
        shared |= {**at, "z_first": z - thick, "z_last": z + thick, "slices": 2 * thick + 1}
        found = kind in ("found", "partly")
        if kind != "false":
            number["ref"] += 1
            dice = {"found": 0.9, "partly": 0.55}.get(kind)
            row = {**shared, "lesion": number["ref"], "side": "ref", "matched": number["pred"] + 1 if found else None}
            row |= {
                "dice": dice,
                "iou": dice and dice / (2 - dice),
                "coverage": {"found": 0.9, "partly": 0.4}.get(kind, 0.0),
            }
            row |= {"covered": found, "merged": False, "split": False, "ignored": False, "cc_dice": dice or 0.0}
            row |= {"matched_iou_0.1": row["matched"], "matched_iou_0.5": row["matched"] if kind == "found" else None}
            row |= {
                "contrast_hu": -18.0 if kind == "missed" else -50.0,
                "noise_hu": 14.0,
                "cnr": 1.3 if kind == "missed" else 3.6,
            }
            row |= {
                "border_hu_per_mm": 6.0,
                "border_distance_mm": 7.5,
                "slice_thickness_mm": SPACING[0],
                "probability": 0.3,
            }
            row |= {"features": "small;low_contrast" if kind == "missed" else ""}
            rows.append(row)
        if kind != "missed":
            number["pred"] += 1
            row = {**shared, "lesion": number["pred"], "side": "pred", "matched": number["ref"] if found else None}
            row |= {"dice": None, "ignored": False, "probability": 0.7}
            if kind == "false":
                row |= {"mean_hu": 88.0, "place": PLACES[k % len(PLACES)]}
            rows.append(row)
            candidates.append({"case": pair.case, "patient": patient, "candidate": number["pred"], "score_mean": 0.7})
    return {"cases": cases, "slices": slices, "lesions": rows, "candidates": candidates}


SMALL = [
    ("case-2", [(8, 40, 40, 9, "found"), (14, 60, 66, 4, "missed"), (17, 50, 50, 3, "false")]),
    ("case-10", [(12, 44, 60, 12, "found"), (7, 52, 40, 6, "partly")]),
    ("case-1", [(12, 40, 62, 3, "missed"), (9, 58, 44, 5, "missed")]),
    (EVIL, [(12, 50, 40, 8, "partly")]),
    ("free", []),
    ("flagged", [(11, 50, 60, 5, "false")]),
]


def make(folder: Path, cases=SMALL, *, views=True, image=True, phantom=True, **kwargs) -> dict:
    """Write the folder; returns the summary."""
    tables: dict[str, list] = {name: [] for name in ("cases", "slices", "lesions", "candidates")}
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, lesions) in enumerate(cases):
        one = pair(name, lesions, seed=seed, image=image, **kwargs)
        for table, rows in rows_of(one, lesions, f"patient {name}").items():
            tables[table] += rows
        if views:
            write_view(folder / "views" / f"{seed}.npz", make_view(one))
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", name, rows)
    summary = summary_of(tables, phantom=phantom)
    write_json(folder / "summary.json", summary)
    return summary


def make_large(folder: Path, *, cases=131, slices=100, side=208) -> None:
    """Cases whose views are as large as views get: one is made, and its bytes are repeated under other names."""
    rng = np.random.default_rng(0)
    kinds = ("found", "found", "partly", "missed", "false")

    def lesion():
        z, y, x, radius = (int(rng.integers(*limits)) for limits in ((5, 19), (35, 61), (35, 69), (2, 13)))
        return z, y, x, radius, str(rng.choice(kinds))

    names = [f"volume-{k}" for k in range(cases)]
    make(
        folder, [(name, [lesion() for _ in range(int(rng.integers(0, 9)))]) for name in names], views=False, image=False
    )
    lesions = [(30, 90, 80, 12, "found"), (50, 130, 110, 8, "missed"), (70, 100, 150, 16, "partly")]
    view = make_view(pair("x", lesions, shape=(slices * 6 // 5, side + 80, side + 70)))
    for k, name in enumerate(names):
        write_view(folder / "views" / f"{k}.npz", dataclasses.replace(view, case=name, patient=name))
