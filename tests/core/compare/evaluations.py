"""Evaluation folders with rows as `tools/evaluate.py` writes them, made up; a run may be better than another."""

from pathlib import Path

import numpy as np

from core.document import dump
from core.report.tables import append_line, write_csv, write_json

THRESHOLDS = ("matched", "matched_iou_0.1", "matched_iou_0.5")


def make(
    folder: Path, cases=131, *, better=0.0, seed=0, world=0, patients=None, config=None, phantom=False, looks=1, **more
):
    """An evaluation of a made-up run: `world` makes cases and lesions, `seed` what the run finds of them.

    Args:
        folder: the evaluation folder.
        cases: how many.
        better: added to the log odds of finding a lesion, and a tenth of it to Dice.
        seed: of the run.
        world: of the cases.
        patients: whose each case is; else each its own.
        config: written beside the folder, which is then a run's.
        phantom: whether it says that scans are synthetic.
        looks: lines of ``looks.jsonl``.
        more: into ``summary.json``.
    """
    folder.mkdir(parents=True)
    truth, run = np.random.default_rng(world), np.random.default_rng([seed, 7])
    case_rows, lesion_rows = [], []
    for i in range(cases):
        case = f"case_{i:03}"
        patient = patients[i] if patients else f"patient_{i:03}"
        thickness = float(truth.choice([0.8, 1.0, 2.0, 2.5, 5.0]))
        count = 0 if truth.random() < 0.1 else truth.geometric(0.2)
        hard = truth.normal(0, 1)
        liver = int(truth.normal(1.5e6, 2e5))
        voxels_ref = voxels_both = voxels_pred = 0
        for lesion in range(1, count + 1):
            diameter = float(np.clip(truth.lognormal(2.6, 0.6), 3, 120))
            contrast = float(truth.normal(-35, 18))
            voxels = max(1, int(diameter**3 * 0.52 / (0.7 * 0.7 * thickness)))
            odds = 1.3 * np.log(diameter / 11) + 0.02 * -contrast + 0.7 * hard + better
            found = run.random() < 1 / (1 + np.exp(-odds))
            score = float(np.clip(run.beta(6, 2) + 0.1 * better, 0.02, 0.98)) if found else 0.0
            hits = [found, found and score > 0.2, found and score > 0.67]
            key = {"case": case, "patient": patient, "lesion": lesion}
            place = {"z": int(truth.integers(10, 90)), "y": int(truth.integers(100, 400)), "x": 200}
            size = {"voxels": voxels, "volume_ml": diameter**3 * 0.52 / 1000, "diameter_mm": diameter}
            matched = {name: lesion if hit else None for name, hit in zip(THRESHOLDS, hits, strict=True)}
            features = ";".join(
                name for name, is_so in (("small", diameter < 10), ("low_contrast", contrast > -20)) if is_so
            )
            lesion_rows.append(
                {
                    **{**key, "side": "ref", **size, **place, **matched, "dice": score or None, "ignored": 0},
                    **{"contrast_hu": contrast, "slice_thickness_mm": thickness, "features": features},
                }
            )
            if found:
                lesion_rows.append({**key, "side": "pred", **size, **place, **matched, "ignored": 0})
                voxels_both += int(voxels * score)
                voxels_pred += voxels
            voxels_ref += voxels
        for extra in range(run.poisson(0.8)):
            diameter = float(np.clip(run.lognormal(2.1, 0.4), 3, 40))
            key = {"case": case, "patient": patient, "lesion": count + 1 + extra, "side": "pred"}
            lesion_rows.append({**key, "voxels": 50, "diameter_mm": diameter, "ignored": 0})
            voxels_pred += int(diameter**3)
        tumour = 2 * voxels_both / (voxels_ref + voxels_pred) if voxels_ref + voxels_pred else 1.0
        good = float(np.clip(0.95 + 0.02 * hard + run.normal(0, 0.006) + 0.002 * better, 0, 1))
        for structure, dice, n in (("liver", good, liver), ("tumour", tumour, voxels_ref)):
            case_rows.append(
                {
                    **{"case": case, "structure": structure, "dice": dice, "iou": dice / (2 - dice)},
                    **{"hd95_mm": None if structure == "tumour" and not voxels_both else 30 * (1 - dice)},
                    **{"voxels_pred": voxels_pred, "voxels_ref": n, "voxels_both": voxels_both, "patient": patient},
                }
            )
    write_csv(folder / "cases.csv", "cases", case_rows)
    write_csv(folder / "lesions.csv", "lesions", lesion_rows)
    provenance = {"split": "test", "split_hash": "s", "checkpoint": "best.pt", "step": 1200}
    summary = {"tumour": {"dice": {"empty": "lits"}}, "lesions": {"min_lesion_ml": 0.0}, "phantom": phantom}
    write_json(folder / "summary.json", {**summary, **more, "provenance": provenance})
    for _ in range(looks):
        append_line(folder / "looks.jsonl", {"time": "now"})
    if config is not None:
        (folder.parent / "config.yaml").write_text(dump(config), encoding="utf-8")
    return folder


def make_run(folder: Path, sampler="uniform", seed=0, **more):
    """A run directory with its evaluation."""
    config = {"sampler": {"name": sampler}, "train": {"seed": seed, "epochs": 60}, "run": str(folder)}
    make(folder / "evaluation", seed=seed, config=config, **more)
    return folder
