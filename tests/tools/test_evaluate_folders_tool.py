import csv
import json

import nibabel as nib
import numpy as np
import pytest
from tiny_run import call

from core.config import ConfigError
from core.errors import UserError

AFFINE = np.diag([-0.8, 0.9, 3.0, 1.0])
AFFINE[:3, 3] = (12.5, -40.0, 7.0)


def labels(*, tumour=True, shift=0):
    out = np.zeros((24, 20, 6), np.uint8)
    out[4:18, 3:16, 1:5] = 1
    if tumour:
        out[6 + shift : 12 + shift, 5:10, 2:4] = 2
    return out


def write(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


@pytest.fixture
def two(tmp_path):
    """LiTS' references 5, 6, 7 (the last without a tumour), and a submission's predictions."""
    for n in (5, 6, 7):
        write(tmp_path / "ref" / f"segmentation-{n}.nii", labels(tumour=n != 7))
        write(tmp_path / "pred" / f"test-segmentation-{n}.nii", labels(tumour=n != 7, shift=n - 5))
    return tmp_path


def evaluate(two, *words):
    return call("evaluate", "--pred", two / "pred", "--ref", two / "ref", "--workers", "0", *words)


def rows(folder, table="cases"):
    with open(folder / f"{table}.csv", newline="") as file:
        return list(csv.DictReader(file))


def of(folder, case, structure="tumour"):
    return next(row for row in rows(folder) if (row["case"], row["structure"]) == (case, structure))


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def test_two_folders_are_measured_and_written_like_a_run(two, capsys):
    assert evaluate(two, "metric=[dice, lesions]") == 0
    out, folder = capsys.readouterr().out, two / "pred_evaluation"
    assert f"3 references of {two / 'ref'}, predictions of {two / 'pred'}\n" in out
    assert "3 references are LiTS' by their names: its patients and repairs are taken as known" in out
    assert "note: no scans (--images): contrast, noise and border sharpness of lesions are empty" in out
    assert "look 1 at these references (looks.jsonl)" in out
    assert float(of(folder, "volume-5")["dice"]) == 1
    counts = [int(of(folder, "volume-6")[f"voxels_{side}"]) for side in ("pred", "ref", "both")]
    assert float(of(folder, "volume-6")["dice"]) == pytest.approx(2 * counts[2] / (counts[0] + counts[1]))
    assert {row["patient"] for row in rows(folder)} == {"patient-5", "patient-6"}  # 6 and 7 are one patient
    assert {row["case"] for row in rows(folder, "lesions")} == {"volume-5", "volume-6"}
    found = summary(folder)
    assert found["tumour"]["dice"]["n"] == 3
    assert found["provenance"]["pred"] == str(two / "pred")
    assert found["allowed"] == {}
    assert {path.name for path in (folder / "views").iterdir()} == {f"volume-{n}.npz" for n in (5, 6, 7)}
    assert {"report.html", "dice.png", "overlays.png"} < {path.name for path in folder.iterdir()}
    assert not (folder / ".parts").exists()


def test_every_problem_is_listed_at_once_and_nothing_is_written(two):
    (two / "pred" / "test-segmentation-5.nii").unlink()
    write(two / "pred" / "test-segmentation-6.nii", labels()[:-1])
    write(two / "pred" / "test-segmentation-9.nii", labels())
    broken = two / "pred" / "test-segmentation-7.nii"
    broken.write_bytes(broken.read_bytes()[:900])
    with pytest.raises(UserError) as error:
        evaluate(two)
    lines = str(error.value).splitlines()
    assert lines[0] == f"4 problems with {two / 'pred'} and {two / 'ref'}"
    assert lines[1:4] == [
        f"  {two / 'pred' / 'test-segmentation-9.nii'} has no reference; take it out, or leave it aside with "
        "--allow extra",
        f"  case 'volume-5': no prediction for {two / 'ref' / 'segmentation-5.nii'}; add it, or let it count as missed "
        "with --allow missing",
        f"  case 'volume-6': {two / 'pred' / 'test-segmentation-6.nii'}: shape (6, 20, 23) [Z,Y,X], the reference has "
        f"(6, 20, 24) ({two / 'ref' / 'segmentation-6.nii'}); resample it onto the reference's grid",
    ]
    assert lines[4].startswith(
        f"  case 'volume-7': {broken}: cut short: its header promises 3232 bytes, the file has 900"
    )
    assert not (two / "pred_evaluation" / "cases.csv").exists()


def test_a_missing_prediction_that_is_let_through_scores_as_missed_everywhere(two, capsys):
    for n in (6, 7):
        (two / "pred" / f"test-segmentation-{n}.nii").unlink()
    write(two / "pred" / "another.nii", labels())
    assert evaluate(two, "--allow", "missing,extra", "metric=[{name: dice, empty: nan}, surface, lesions, lits]") == 0
    folder = two / "pred_evaluation"
    for case in ("volume-6", "volume-7"):
        for structure in ("liver", "parenchyma", "tumour", "background"):
            row = of(folder, case, structure)
            assert (row["dice"], row["missing"]) == ("0", "1")
            if structure in ("liver", "tumour"):
                assert row["nsd_2mm"] == "0"
    found = summary(folder)
    assert found["tumour"]["dice"]["mean"] == pytest.approx(1 / 3)
    assert found["lesions"]["any"]["fn"] == 1
    assert found["allowed"] == {"extra": [str(two / "pred" / "another.nii")], "missing": ["volume-6", "volume-7"]}
    out = capsys.readouterr().out
    assert (
        "note: --allow missing: 2: volume-6, volume-7 (references without a prediction: they score as missed)\n" in out
    )


def test_what_is_let_through_later_keeps_what_was_measured(two, capsys):
    for n in (5, 7):
        write(two / "pred" / f"test-segmentation-{n}.nii", labels() + np.uint8(n == 5))
    (two / "pred" / "test-segmentation-6.nii").unlink()
    with pytest.raises(UserError, match="it also holds 3"):
        evaluate(two, "--allow", "missing", "metric=[dice]")
    write(two / "pred" / "test-segmentation-5.nii", labels())
    with pytest.raises(UserError) as error:
        evaluate(two, "metric=[dice]")
    assert str(error.value).startswith(
        f"1 problem with {two / 'pred'} and {two / 'ref'}\n  case 'volume-6': no prediction"
    )
    assert evaluate(two, "--allow", "missing,extra", "metric=[dice]") == 0
    assert "2 of 3 cases measured before\n" in capsys.readouterr().out


def test_spacing_that_is_not_known_is_left_out_and_counted(two, capsys):
    write(two / "ref" / "segmentation-30.nii", labels())
    write(two / "pred" / "test-segmentation-30.nii", labels())
    assert evaluate(two, "metric=[dice, lesions]") == 0
    folder = two / "pred_evaluation"
    assert summary(folder)["provenance"]["spacing_not_trusted"] == ["volume-30"]
    assert of(folder, "volume-30")["volume_ml_ref"] == ""
    assert of(folder, "volume-30")["dice"] == "1"
    assert (
        "note: the spacing of 1 of 4 cases cannot be trusted, no mm or ml of volume-30 "
        "(volume-30: LiTS copied it from 3D-IRCADb without its spacing)" in capsys.readouterr().out
    )


def test_what_was_measured_before_is_not_measured_again(two, capsys):
    write(two / "pred" / "test-segmentation-6.nii", labels() + np.uint8(1))
    with pytest.raises(UserError, match="it also holds 3"):
        evaluate(two, "metric=[dice]")
    parts = two / "pred_evaluation" / ".parts"
    assert {path.name for path in parts.glob("*.json")} == {"volume-5.json", "volume-7.json"}
    kept = json.loads((parts / "volume-5.json").read_text())
    kept["tables"]["cases"][0]["dice"] = 0.25  # to see where the figure comes from
    (parts / "volume-5.json").write_text(json.dumps(kept))
    write(two / "pred" / "test-segmentation-6.nii", labels())
    assert evaluate(two, "metric=[dice]") == 0
    assert "2 of 3 cases measured before\n" in capsys.readouterr().out
    folder = two / "pred_evaluation"
    assert {row["dice"] for row in rows(folder) if row["case"] == "volume-5"} == {"0.25", "1"}
    assert evaluate(two, "metric=[dice]") == 0  # complete: from the beginning
    assert {row["dice"] for row in rows(folder) if row["case"] == "volume-5"} == {"1"}


def test_nothing_else_is_written_over(two):
    out = two / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("")
    with pytest.raises(UserError) as error:
        evaluate(two, "-o", out)
    assert str(error.value) == f"{out}: it holds other files (1: thesis.txt); name another folder with -o"
    (out / "summary.json").write_text(json.dumps({"provenance": {"pred": "/a", "ref": "/b"}}))
    with pytest.raises(UserError) as error:
        evaluate(two, "-o", out)
    assert str(error.value) == f"{out}: it holds the evaluation of /a on /b; name another folder with -o"


def test_wrong_words_are_errors(two):
    for words, said in (
        (("--allow", "mising"), "--allow mising: no such thing, did you mean 'missing'?"),
        (("model.name=unet",), "model: without an experiment file only metric= and plugins= can be given"),
        (("metric=[dyce]",), "unknown metric 'dyce', did you mean 'dice'?"),
        (("plugins=[absent.py]",), "plugins: no such file: absent.py"),
    ):
        with pytest.raises((UserError, ConfigError)) as error:
            evaluate(two, *words)
        assert said in str(error.value)
    for words, said in (
        (("--split", "val"), "--split does not go with --pred and --ref"),
        (("--workers", "-1"), "--workers: want 0 or more, got -1"),
    ):
        with pytest.raises(UserError) as error:
            evaluate(two, *words)
        assert str(error.value) == said
    for words, said in (
        (("run", "-o", "x"), "-o does not go with a run, which is evaluated into its own folder"),
        (("run", "--allow", "missing"), "--allow does not go with a run"),
        (("--folds", "a", "b", "--device", "cpu"), "--device does not go with --folds"),
    ):
        with pytest.raises(UserError) as error:
            call("evaluate", *words)
        assert str(error.value) == said
    with pytest.raises(UserError, match="want both --pred FOLDER"):
        call("evaluate", "--pred", two / "pred")
    with pytest.raises(UserError, match="want a run directory, or --pred FOLDER --ref FOLDER, or --folds RUN RUN"):
        call("evaluate")
