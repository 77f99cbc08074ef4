import json
import math
from pathlib import Path

import numpy as np
import pytest

from core.analysis.detection import TERMS
from core.analysis.strata import CASE_BINS, LESION_BINS
from core.infer.evaluate import measure, merge_tables
from core.measure.pair import CasePair
from core.report.tables import read_csv, write_csv
from plugins.metric.dice import Dice
from plugins.metric.error_analysis import ErrorAnalysis
from plugins.metric.lesions import Lesions

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "error_analysis.md").read_text(encoding="utf-8")
SHAPE = (10, 40, 40)
COLUMNS = {
    *("voxels", "volume_ml", "diameter_mm", "slices", "matched", "dice", "merged", "contrast_hu", "noise_hu", "cnr"),
    *("border_hu_per_mm", "border_distance_mm", "slice_thickness_mm", "probability", "features"),
    *("dice_first_slice", "dice_last_slice", "dice_middle_slices", "zero_middle_slices"),
}


def pair(case="a", seed=0, **more):
    """Of three lesions one is found, one missed and small; the third is merged with the first by one prediction."""
    reference = np.zeros(SHAPE, np.uint8)
    reference[1:9, 3:37, 3:37] = 1
    image = np.where(reference == 1, 110, 40) + np.random.default_rng(seed).normal(0, 8, SHAPE)
    boxes = [(slice(3, 7), slice(8, 16), slice(8, 16)), (slice(5, 6), slice(33, 35), slice(33, 35))]
    boxes.append((slice(4, 6), slice(10, 14), slice(20, 24)))
    for box in boxes:
        reference[box] = 2
        image[box] -= 60
    pred = np.minimum(reference, 1)
    pred[4:6, 8:16, 9:22] = 2
    pred[5:7, 24:28, 10:14] = 2  # a false positive
    probabilities = np.where(pred == 2, 0.75, 0.25).astype(np.float16)[None].repeat(3, axis=0)
    given = {"image": np.rint(image).astype(np.int16), "probabilities": probabilities, **more}
    return CasePair(case, pred, reference, (2.0, 1.0, 1.0), **given)


def test_rows_of_lesions_of_either_side():
    rows = {(row["side"], row["voxels"]): row for row in ErrorAnalysis().measure(pair())["lesions"]}
    assert len(rows) == 5
    found, missed, merged = rows["ref", 256], rows["ref", 4], rows["ref", 32]
    assert set(found) == {"case", "side", "lesion", *COLUMNS}
    assert (found["merged"], merged["merged"], missed["merged"]) == (1, 1, 0)
    assert (found["matched"] is None, merged["matched"] is None) == (False, True)  # one prediction finds one lesion
    assert missed["features"] == "small;at_liver_border;doubtful_label"
    assert merged["features"] == "small;merged"
    assert found["contrast_hu"] == pytest.approx(-60, abs=2)
    assert found["cnr"] == pytest.approx(60 / 8, rel=0.2)
    assert (found["dice_first_slice"], found["dice_last_slice"], found["zero_middle_slices"]) == (0, 0, 0)
    assert found["dice_middle_slices"] == pytest.approx(2 * 56 / (64 + 56 + 40))
    assert merged["dice_middle_slices"] is None
    assert (missed["probability"], missed["slice_thickness_mm"]) == (0.25, 2.0)
    false = rows["pred", 32]
    assert (false["place"], false["matched"], false["probability"]) == ("inside", None, 0.75)
    assert false["mean_hu"] == pytest.approx(110, abs=4)
    assert "place" not in rows["pred", 208]


@pytest.mark.parametrize("first", [True, False])
def test_says_the_same_as_the_metrics_beside_it(first):
    others = [Lesions(), Dice(empty="nan")]
    both = measure([ErrorAnalysis(), *others] if first else [*others, ErrorAnalysis()], pair())
    alone = ErrorAnalysis().measure(pair())
    for table, keys in (("lesions", ("side", "lesion")), ("slices", ("structure", "z")), ("cases", ("structure",))):
        joined = {tuple(row[key] for key in keys): row for row in both[table]}
        for row in alone[table]:
            assert {name: joined[tuple(row[key] for key in keys)][name] for name in row} == row
    assert {row["patient"] for row in both["lesions"]} == {"a"}


def tables(count, **more):
    return merge_tables(ErrorAnalysis().measure(pair(f"c{i:02}", i, **more)) for i in range(count))


def rounded(figures):
    return json.loads(json.dumps(figures), parse_float=lambda text: round(float(text), 3))


def test_summary_has_what_the_report_shows(tmp_path):
    got = ErrorAnalysis().summarise(tables(12))["error_analysis"]
    json.dumps(got, allow_nan=False)
    sizes = {(b["low"], b["high"]): b for b in got["recall_by"]["diameter_mm"]}
    assert {bounds: (b["n"], b["found"]) for bounds, b in sizes.items() if b["n"]} == {
        (0, 5): (24, 0),
        (5, 10): (12, 12),
    }
    assert (sizes[5, 10]["recall"], sizes[5, 10]["dice"]["n"], sizes[50, None]["recall"]) == (1, 12, None)
    assert [b["n"] for b in got["cases_by"]["lesion_count"]] == [0, 12, 0, 0]
    burden = got["cases_by"]["burden"]
    assert [b["n"] for b in burden] == [0, 12, 0, 0]
    assert burden[1]["dice"]["mean"] == pytest.approx(2 * 128 / (292 + 240))
    features = {f["name"]: f for f in got["features"]}
    small = features["small"]
    assert (small["missed"], small["missed_n"], small["found"], small["found_n"]) == (24, 24, 12, 12)
    assert (features["merged"]["missed"], features["merged"]["found"], features["none"]["found"]) == (12, 12, 0)
    assert got["false_positives"]["n"] == 12
    assert {p["place"]: p["n"] for p in got["false_positives"]["by_place"] if p["n"]} == {"inside": 12}
    inside = next(p for p in got["false_positives"]["by_place"] if p["place"] == "inside")
    means = (inside["volume_ml"], inside["mean_hu"], got["probability"]["missed"], got["probability"]["found"])
    assert [(mean["patients"], mean["ci95"] is not None) for mean in means] == [(12, True)] * 4
    model = got["detection_model"]
    assert (model["available"], model["events"], model["patients"]) == (True, 12, 12)
    lesions = got["distribution"]["lesion"]
    assert (lesions["n"], lesions["zero"], lesions["p_zero"]) == (36, 24, pytest.approx(2 / 3))
    assert sum(lesions["histogram"]) == 36
    assert lesions["histogram"][0] == 24
    slices = got["distribution"]["slice"]
    assert (slices["n"], slices["zero"], slices["zero_without_reference"]) == (48, 24, 0)
    ends = got["distribution"]["end_slices"]
    assert (ends["lesions"], ends["first"]["p_zero"], ends["middle"]["p_zero"], ends["middle"]["n"]) == (12, 1, 0, 24)
    # The same from the files.
    for name, rows in tables(12).items():
        write_csv(tmp_path / f"{name}.csv", name, rows)
    again = {name: read_csv(tmp_path / f"{name}.csv") for name in ("cases", "lesions", "slices")}
    assert rounded(ErrorAnalysis().summarise(again)["error_analysis"]) == rounded(got)


def test_without_image_probabilities_and_spacing_less_is_known_and_nothing_breaks():
    got = ErrorAnalysis().summarise(tables(3, image=None, probabilities=None, spacing_trusted=False))["error_analysis"]
    assert sum(b["n"] for column in got["recall_by"].values() for b in column) == 0
    features = {f["name"]: f for f in got["features"]}
    assert (features["small"]["missed_n"], features["doubtful_label"]["missed"]) == (0, 3)
    assert got["detection_model"]["why"].startswith("3 events")
    assert got["distribution"]["case"]["n"] == 3


def test_thresholds_are_arguments():
    rows = ErrorAnalysis(small_mm=1, border_mm=0, doubtful_voxels=0).measure(pair())["lesions"]
    missed = next(row for row in rows if row["voxels"] == 4)
    assert missed["features"] == "doubtful_label"  # on one slice
    with pytest.raises(ValueError, match="border_mm must be a number of at least 0, got nan"):
        ErrorAnalysis(border_mm=float("nan"))


def test_the_page_has_the_bins_the_terms_and_the_columns():
    for edges in (*LESION_BINS.values(), *CASE_BINS.values()):
        assert f"| {', '.join(f'{edge:g}' for edge in edges if math.isfinite(edge))} |" in PAGE
    assert [PAGE.index(f"| `{term.name}` | {term.unit} |") for term in TERMS] == sorted(
        PAGE.index(f"| `{term.name}` |") for term in TERMS
    )
    assert all(f"`{column}`" in PAGE for column in COLUMNS - {"voxels", "volume_ml", "slices"})
