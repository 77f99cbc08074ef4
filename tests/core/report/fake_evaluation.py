"""An evaluation folder as tools/evaluate.py leaves one, made in a moment: real pairs and views, invented intervals."""

import dataclasses
from pathlib import Path

import numpy as np

from core.measure.pair import CasePair
from core.report.tables import write_csv, write_json
from core.report.views import make_view, read_view, write_view

EVIL = '<script>document.title="1"</script>&\'"'
SPACING = (2.5, 0.9, 0.9)
PLACES = ("inside", "vessel_like", "liver_border", "outside_liver", "gallbladder_like")


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


def describe(numbers) -> dict:
    """As core.measure.statistics.describe, its interval invented."""
    numbers = np.array([np.nan if n is None else n for n in numbers], float)
    kept = numbers[np.isfinite(numbers)]
    out = dict.fromkeys(("mean", "median", "q25", "q75", "min", "max", "ci95", "ci_method"))
    if len(kept):
        q25, median, q75 = (float(q) for q in np.quantile(kept, (0.25, 0.5, 0.75)))
        out.update(
            mean=float(kept.mean()), median=median, q25=q25, q75=q75, min=float(kept.min()), max=float(kept.max())
        )
    if len(kept) >= 10:
        out.update(ci95=interval(out["mean"], len(kept)), ci_method="bca")
    return {**out, "n": len(kept), "left_out": len(numbers) - len(kept), "patients": len(kept)}


def interval(value, n):
    """Some 95 % interval, None below ten."""
    if value is None or n < 10:
        return None
    half = 0.8 / np.sqrt(n)
    return [max(0.0, value - half), value + half if value > 1 else min(1.0, value + half)]


def rate(found, n):
    """Counted, and the share."""
    return {
        "n": n,
        "found": found,
        "recall": found / n if n else None,
        "recall_ci95": interval(found / n if n else None, n),
    }


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


def summary_of(tables: dict[str, list], *, phantom=True) -> dict:
    """``summary.json`` from the tables: true sums, invented intervals."""
    out: dict = {}
    tumour = [row for row in tables["cases"] if row["structure"] == "tumour"]
    bearing = [row for row in tumour if row["voxels_ref"]]
    for structure in ("liver", "parenchyma", "tumour"):
        own = [row for row in tables["cases"] if row["structure"] == structure]
        part: dict = {}
        for name in ("dice", "iou", "voe", "rvd", "assd_mm", "hd95_mm", "nsd_1mm", "nsd_2mm", "nsd_3mm"):
            part[name] = describe([row[name] for row in own])
        pooled = [sum(row[f"voxels_{side}"] for row in own) for side in ("both", "pred", "ref")]
        part["dice"] |= {"global": 2 * pooled[0] / max(1, pooled[1] + pooled[2]), "empty": "lits"}
        part["dice"]["global_ci95"] = interval(part["dice"]["global"], len(own))
        part["dice"] |= {"both_empty": sum(not row["voxels_ref"] and not row["voxels_pred"] for row in own)}
        part["dice"] |= {"one_empty": sum(bool(row["voxels_ref"]) != bool(row["voxels_pred"]) for row in own)}
        out[structure] = part
    some = describe([row["dice"] for row in bearing])
    out["tumour"]["dice"] |= {f"{key}_tumour_bearing": some[key] for key in ("mean", "median", "n", "ci95")}
    refs = [row for row in tables["lesions"] if row["side"] == "ref"]
    false = [row for row in tables["lesions"] if row["side"] == "pred" and row["matched"] is None]
    found = [row for row in refs if row["matched"] is not None]

    def counts(tp, n, fp):
        recall, precision = tp / n if n else None, tp / (tp + fp) if tp + fp else None
        f1 = 2 * tp / (2 * tp + fp + n - tp) if n + fp else None
        named = {"recall": recall, "precision": precision, "f1": f1}
        return {"tp": tp, "fp": fp, "fn": n - tp, **named, **{f"{k}_ci95": interval(v, n) for k, v in named.items()}}

    bins = {}
    for name, low, high in (("[0,10)", 0, 10), ("[10,20)", 10, 20), ("[20,inf)", 20, 1e9)):
        own = [row for row in refs if low <= row["diameter_mm"] < high]
        wrong = sum(low <= row["diameter_mm"] < high for row in false)
        bins[name] = {
            **counts(sum(r["matched"] is not None for r in own), len(own), wrong),
            "dice": describe([r["dice"] for r in own]),
        }
    strict = sum(row["matched_iou_0.5"] is not None for row in refs)
    case_f1 = describe([row["tp_any"] / row["lesions_ref"] for row in bearing])
    fp = [k / 2 for k in range(17)]
    out["lesions"] = {
        "any": counts(len(found), len(refs), len(false)),
        "iou_0.1": counts(len(found), len(refs), len(false)),
        "iou_0.5": counts(strict, len(refs), len(false) + len(found) - strict),
        "coverage": {
            "found": len(found),
            "missed": len(refs) - len(found),
            **{k: v for k, v in rate(len(found), len(refs)).items() if "recall" in k},
        },
        "by_size": {"any": bins, "iou_0.1": bins, "iou_0.5": bins},
        "per_case": {"recall": case_f1, "precision": case_f1, "f1": case_f1},
        "false_positives_per_case": describe([len(false) / max(1, len(tumour))] * len(tumour)),
        **{"merges": 1, "splits": 0, "min_lesion_ml": 0.0, "ignored": 0},
        "pq": {"pq": 0.44, "sq": 0.8, "rq": 0.55, "pq_ci95": interval(0.44, len(tumour))},
        "cc_dice": describe([row["cc_dice"] for row in refs]),
        "dice_detected": describe([row["dice"] for row in found]),
        "dice_with_misses": describe([row["dice"] or 0.0 for row in refs]),
        "boundary": {"assd_mm": describe([1.2] * len(found)), "hd95_mm": describe([3.1] * len(found))},
        "froc": {
            **{
                "available": True,
                "why": None,
                "recall_at": {k: 1 - 0.6 / (1 + 2 * float(k)) for k in ("0.25", "0.5", "1", "2", "4", "8")},
            },
            "curve": [[f, 1 - 0.6 / (1 + 2 * f)] for f in fp],
        },
    }
    free = [row for row in tumour if not row["voxels_ref"]]
    flagged = sum(row["voxels_pred"] > 0 for row in free)
    out["tumour_free"] = {
        "n": len(free),
        "false_positive_cases": flagged,
        "specificity": 1 - flagged / len(free) if free else None,
    }
    out["tumour_free"] |= {"false_positive_volume_ml": describe([row["volume_ml_pred"] for row in free])}
    out["tumour_free"] |= {"false_positive_lesions": describe([row["lesions_pred"] for row in free])}
    out["calibration"] = {"ece": 0.021, "brier": 0.034}
    for mode in ("lits_published", "lits_documented"):
        out[mode] = {"tumour_dice_per_case": out["tumour"]["dice"]["mean"], "recall_0.5": 0.41, "assd": 1.9}
    edges = {
        "diameter_mm": (0, 10, 15, 20, 60),
        "cnr": (0, 1, 2, 3, 6),
        "contrast_hu": (-80, -40, -20, 0),
        "border_hu_per_mm": (0, 5, 10),
    }
    recall_by = {
        name: [
            {
                "low": a,
                "high": b,
                **rate(sum(r["matched"] is not None for r in own), len(own)),
                "dice": describe([r["dice"] or 0 for r in own]),
            }
            for a, b in zip(cut, cut[1:], strict=False)
            for own in [[r for r in refs if a <= r[name] < b]]
        ]
        for name, cut in edges.items()
    }
    scores = {kind: [row["dice"] for row in tables["slices"] if row["structure"] == "tumour"] for kind in ("slice",)}
    scores |= {"lesion": [row["dice"] or 0.0 for row in refs], "case": [row["dice"] for row in bearing]}
    distribution = {}
    for kind, values in scores.items():
        zero = sum(v == 0 for v in values)
        distribution[kind] = {"n": len(values), "zero": zero, "p_zero": zero / len(values) if values else None}
        distribution[kind] |= {
            "p_zero_ci95": interval(zero / max(1, len(values)), len(values)),
            "positive": describe([v for v in values if v]),
        }
        distribution[kind] |= {"histogram": np.histogram(values, 20, (0, 1))[0].tolist()}
        distribution[kind] |= {
            "bimodality": {"test": "dip test of Hartigan", "statistic": 0.06, "p": 0.003, "why": None}
        }
    missed = len(refs) - len(found)
    names = (
        ("small", "small (below 10 mm)"),
        ("low_contrast", "low contrast (CNR below 2)"),
        ("at_liver_border", "at the liver's border"),
    )
    out["error_analysis"] = {
        "recall_by": recall_by,
        "cases_by": {
            "tumour_ml": [
                {"low": 0, "high": 5, "n": 4, "dice": describe([0.2, 0.5, 0.6, 0.7])},
                {"low": 5, "high": None, "n": 12, "dice": describe(np.linspace(0.5, 0.9, 12))},
            ]
        },
        "detection_model": {
            **{"available": True, "why": None, "events": missed, "patients": len(tumour)},
            "terms": [
                {
                    "name": "log_diameter",
                    "unit": "doubling of the diameter",
                    "odds_ratio": 3.1,
                    "ci95": [1.9, 5.2],
                    "p": 0.0001,
                },
                {"name": "cnr", "unit": "1", "odds_ratio": 1.7, "ci95": [1.1, 2.6], "p": 0.01},
                {"name": "border", "unit": "5 HU/mm", "odds_ratio": 0.9, "ci95": [0.6, 1.4], "p": 0.6},
            ],
        },
        "features": [
            {
                "name": n,
                "title": t,
                "missed": missed - i if missed > i else 0,
                "missed_n": missed,
                "found": 2 * i,
                "found_n": len(found),
            }
            for i, (n, t) in enumerate(names)
        ],
        "false_positives": {
            "n": len(false),
            "by_place": [
                {
                    "place": p,
                    "n": len(own),
                    "volume_ml": describe([r["volume_ml"] for r in own]),
                    "mean_hu": describe([88.0] * len(own)),
                }
                for p in PLACES
                for own in [[r for r in false if r.get("place") == p]]
            ],
        },
        "distribution": distribution,
    }
    out["phantom"] = phantom
    out["provenance"] = {
        **{
            "time": "2026-11-24T19:00:00+00:00",
            "command": "tools/evaluate.py runs/quick",
            "run": "runs/quick",
            "split": "test",
        },
        **{
            "cases": len(tumour),
            "spacing_not_trusted": [],
            "origin": ["PHANTOM test 1"] if phantom else ["test"],
            "config_hash": "0f" * 32,
        },
        **{
            "split_hash": "1e" * 32,
            "checkpoint": "best.pt",
            "checkpoint_hash": "2d" * 32,
            "step": 1200,
            "overrides": [],
            "allowed": [],
        },
        "versions": {"python": "3.12", "torch": "2.9"},
    }
    return out


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


def make_large(folder: Path, *, cases=131, slices=100, side=208, seed=0) -> dict:
    """`cases` cases whose views have the greatest size there is: three of them made, their bytes repeated under other names."""
    rng = np.random.default_rng(seed)
    kinds = ("found", "found", "partly", "missed", "false")
    small = [
        (
            f"volume-{k}",
            [
                (
                    *(int(rng.integers(*r)) for r in ((5, 19), (35, 61), (35, 69))),
                    int(rng.integers(2, 13)),
                    str(rng.choice(kinds)),
                )
                for _ in range(int(rng.integers(0, 9)))
            ],
        )
        for k in range(cases)
    ]
    summary = make(folder, small, views=False, image=False)
    made = []
    for k in range(3):
        lesions = [
            (int(slices * f), int(side * g), int(side * h), int(side * 0.06), kinds[i])
            for i, (f, g, h) in enumerate(((0.3, 0.4, 0.4), (0.5, 0.6, 0.5), (0.7, 0.4, 0.7)))
        ]
        one = pair("x", lesions, shape=(slices, round(side / 0.72), round(side / 0.76)), seed=k)
        made.append(make_view(one))
    for k, (name, _) in enumerate(small):
        write_view(folder / "views" / f"{k}.npz", dataclasses.replace(made[k % 3], case=name, patient=name))
    assert read_view(folder / "views" / "0.npz").case == small[0][0]
    return summary
