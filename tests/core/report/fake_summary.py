"""The summary of a made-up evaluation: true sums, invented intervals."""

import itertools

import numpy as np

PLACES = ("inside", "vessel_like", "liver_border", "outside_liver", "gallbladder_like")


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
    out["calibration"] = {
        **{
            "available": True,
            "why": None,
            "inside": "liver of the reference",
            "of": "tumour",
            "ece": 0.021,
            "brier": 0.034,
        },
        "per_case": {"ece": describe([0.02, 0.03]), "brier": describe([0.03, 0.04])},
        "reliability": [
            {"low": 0.0, "high": 0.5, "voxels": 900, "predicted": 0.1, "observed": 0.2},
            {"low": 0.5, "high": 1.0, "voxels": 90, "predicted": 0.9, "observed": 0.75},
        ],
    }
    for mode in ("lits_published", "lits_documented"):
        lesion = {
            "dice_per_case": out["tumour"]["dice"]["mean"],
            "recall": 0.41,
            "recall_ci95": interval(0.41, len(tumour)),
        }
        out[mode] = {"cases": len(tumour), "lesion": lesion, "liver": {"assd_mm": 1.9}}
    out["surface"] = {"definition": "edge6", "cases_with_slices_above_tolerance": {"1": len(tumour), "2": 0}}
    out["tumour_burden"] = {"rmse": 0.012, "rmse_ci95": None, "max_abs": 0.03}
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
            for a, b in itertools.pairwise(cut)
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
    out["error_analysis"]["probability"] = {"missed": describe([0.1]), "found": describe([0.7, 0.9])}
    fares = {"n": 5, "zero": 2, "p_zero": 0.4, "p_zero_ci95": None, "dice": describe([0.0, 0.5])}
    distribution["end_slices"] = {"lesions": 5, "first": fares, "middle": fares, "last": fares}
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
