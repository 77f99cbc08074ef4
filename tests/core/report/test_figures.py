import csv
import json

import cv2
import numpy as np
import pytest

from core.report import figures, tables


def row(case, structure, dice, pred=10, ref=10):
    return {"case": case, "structure": structure, "dice": dice, "voxels_pred": pred, "voxels_ref": ref}


def test_best_median_and_worst_by_tumour_dice():
    rows = [row(c, "tumour", d) for c, d in (("a", 0.9), ("b", 0.1), ("c", 0.5), ("d", 0.7))]
    rows += [row(c, "liver", 0.9) for c in "abcd"]
    assert figures.choose_cases(rows) == [("best", "a"), ("median", "c"), ("worst", "b")]


def test_cases_without_a_tumour_on_either_side_stand_back():
    rows = [row("a", "tumour", 1.0, 0, 0), row("b", "tumour", 0.4), row("c", "tumour", 0.0, 5, 0)]
    assert figures.choose_cases(rows) == [("best", "b"), ("worst", "c")]


def test_without_any_tumour_the_livers_dice_decides():
    rows = [
        row("a", "tumour", 1.0, 0, 0),
        row("a", "liver", 0.7),
        row("b", "tumour", None, 0, 0),
        row("b", "liver", 0.9),
    ]
    assert figures.choose_cases(rows) == [("best", "b"), ("worst", "a")]
    assert figures.choose_cases(rows[:2]) == [("only case", "a")]
    assert figures.choose_cases([]) == []


def test_the_slice_is_that_of_the_greatest_reference_tumour():
    ref, pred = np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8), np.uint8)
    ref[1, 2:6, 2:6], ref[1, 3, 3:5], ref[2, 2:6, 2:6], ref[2, 3, 3:6] = 1, 2, 1, 2
    pred[3, :, :] = 2
    assert figures.choose_slice(pred, ref) == 2
    assert figures.choose_slice(pred, np.minimum(ref, 1)) == 3  # no tumour: the greatest error
    assert figures.choose_slice(np.minimum(ref, 1), np.minimum(ref, 1)) == 1  # no error: the most liver


def panel(offset):
    y, x = np.mgrid[:96, :128]
    ref = ((y - 48) ** 2 + (x - 50) ** 2 < 30**2).astype(np.uint8)
    ref[(y - 44) ** 2 + (x - 44) ** 2 < 8**2] = 2
    pred = np.roll(ref, offset, axis=1)
    image = np.where(ref == 1, 100, np.where(ref == 2, 60, -80)).astype(np.int16)
    return figures.make_panel("a", image[None], pred[None], ref[None], (3.0, 1.0, 0.8))


def test_overlays_show_reference_and_prediction_in_their_colours(tmp_path):
    path = tmp_path / "overlays.png"
    shown = [("best", panel(0)), ("median", panel(3)), ("worst", panel(12))]
    figures.overlays(path, shown, [row("a", "tumour", 0.5), row("a", "liver", 0.9)], title="PHANTOM  run, test split")
    picture = cv2.imread(str(path))
    assert picture.shape[1] > 1500
    for colour in (figures.REFERENCE, figures.PREDICTION):
        bgr = [int(colour[i : i + 2], 16) for i in (5, 3, 1)]
        close = (np.abs(picture.astype(int) - bgr) < 12).all(axis=2)
        assert close.sum() > 300, colour
    assert [p.name for p in tmp_path.iterdir()] == ["overlays.png"]


def test_the_view_holds_both_livers_and_is_square_in_mm():
    far = panel(0)
    far.pred[5, 120] = 1
    y, x = figures._view(far)
    assert y.start <= 5 < y.stop
    assert x.start <= 120 < x.stop
    near = panel(3)
    y, x = figures._view(near)
    assert (y.stop - y.start) * 1.0 == pytest.approx((x.stop - x.start) * 0.8, abs=1)


def test_overlays_of_a_case_without_any_label_show_the_whole_slice(tmp_path):
    empty = np.zeros((1, 16, 16), np.uint8)
    one = figures.make_panel("a", np.zeros((1, 16, 16), np.int16), empty, empty, (1.0, 1.0, 1.0))
    figures.overlays(tmp_path / "one.png", [("only case", one)], [], title="run")
    assert cv2.imread(str(tmp_path / "one.png")) is not None


@pytest.mark.parametrize("scores", [[0.9], [0.2, 0.5, 0.9, 1.0], [None, 0.3], []])
def test_dice_distribution_is_drawn_for_any_number_of_cases(tmp_path, scores):
    cases = [row(str(i), s, d) for i, d in enumerate(scores) for s in ("liver", "tumour")]
    slices = [{"case": str(i), "z": i, "structure": "liver", "dice": d} for i, d in enumerate(scores)]
    figures.dice_distribution(tmp_path / "dice.png", {"cases": cases, "slices": slices}, title="run, test split")
    picture = cv2.imread(str(tmp_path / "dice.png"))
    assert picture.shape[1] > 1200
    blue = [int(figures.COLOURS["liver"][i : i + 2], 16) for i in (5, 3, 1)]
    drawn = (np.abs(picture[110:].astype(int) - blue) < 30).all(axis=2).sum()
    assert (drawn > 20) == any(s is not None for s in scores)


def test_the_same_figures_come_out_every_time(tmp_path):
    cases = [row(str(i), s, i / 9) for i in range(10) for s in ("liver", "tumour")]
    for name in ("a.png", "b.png"):
        figures.dice_distribution(tmp_path / name, {"cases": cases}, title="run")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_csv_has_the_columns_in_order_and_empty_fields_for_what_is_no_number(tmp_path):
    rows = [
        {"case": "1", "structure": "liver", "mine": np.float32(0.5), "iou": 0.25, "dice": float("nan")},
        {"case": "2", "structure": "liver", "dice": None, "iou": 1 / 3, "voxels_ref": np.int64(7)},
    ]
    tables.write_csv(tmp_path / "cases.csv", "cases", rows)
    text = (tmp_path / "cases.csv").read_text()
    assert text == "case,structure,dice,iou,mine,voxels_ref\n1,liver,,0.25,0.5,\n2,liver,,0.33333333,,7\n"
    with open(tmp_path / "cases.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["cases.csv"]


def test_json_has_null_for_what_is_no_number(tmp_path):
    tables.write_json(
        tmp_path / "s.json", {"a": float("nan"), "b": np.float64(0.5), "c": [np.inf, (1, None)], "p": tmp_path}
    )
    assert json.loads((tmp_path / "s.json").read_text()) == {
        "a": None,
        "b": 0.5,
        "c": [None, [1, None]],
        "p": str(tmp_path),
    }


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "summary.json"
    tables.write_json(path, {"a": 1})

    def cut_off():
        with tables.whole_file(path) as file:
            file.write(b"half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        cut_off()
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_lines_are_appended(tmp_path):
    for n in (1, 2):
        tables.append_line(tmp_path / "looks.jsonl", {"n": n})
    assert (tmp_path / "looks.jsonl").read_text() == '{"n": 1}\n{"n": 2}\n'
