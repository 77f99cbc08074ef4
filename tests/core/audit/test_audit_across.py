"""What cases say against one another, and the audit of a whole source."""

import csv
import json

import numpy as np
import pytest

from core.audit.result import conclude
from core.audit.run import audit, check
from core.data.prepare import SourceError
from core.errors import UserError
from core.experiment import load
from tests.core.audit.bodies import AFFINE, body, case, save


def found(result, rule):
    return [(f.cases, f.saw) for f in result.findings if f.rule == rule]


def test_copies_mixed_labels_and_mirrored_copies_are_found(tmp_path):
    image, label = body()
    smaller = label.copy()
    smaller[:, :, :30] = 0
    cases = [
        case(tmp_path, "first"),
        case(tmp_path, "copy"),
        case(tmp_path, "relabelled", label=smaller),
        case(tmp_path, "other", image=body(3)[0]),
        case(tmp_path, "turned", image=np.flip(image[2:], 2), label=np.flip(label[2:], 2), patient="somebody"),
        case(tmp_path, "again", image=image[:14] + 1, label=label[:14], patient="first"),
    ]
    result = audit(cases, "t", "s", workers=1)
    same = ("first", "copy", "relabelled")
    files = ", ".join(str(c.image) for c in cases[:3])
    assert found(result, "duplicate") == [(same, f"the same voxels in {files}")]
    labels = f"{cases[0].label}, {cases[2].label}"
    assert found(result, "two_labels") == [(same, f"the labels differ: {labels}")]
    labels = f"{cases[0].label}, {cases[1].label}, {cases[3].label}"
    assert found(result, "same_label") == [
        (("first", "copy", "other"), f"the same {result.cases[0].row['liver_voxels']} voxels in {labels}")
    ]
    near = dict(found(result, "near_duplicate"))
    assert near["first", "turned"] == "first and turned: 14 slices, 100 % of the shorter one's, show the same"
    assert ("first", "again") not in near
    assert dict(found(result, "near_duplicate_known"))["first", "again"].startswith("first and again: 14 slices, 100 %")
    assert found(result, "same_patient") == [(("first", "again"), "all of patient first")]


def test_identity_affines_of_lits_and_differing_axes_are_found(tmp_path):
    turned = AFFINE.copy()
    turned[1] *= -1
    cases = [
        case(tmp_path, "volume-28", affine=np.eye(4), origin="LiTS"),
        case(tmp_path, "volume-3", seed=1, origin="LiTS"),
        case(tmp_path, "volume-4", seed=2, affine=turned, origin="LiTS"),
    ]
    result = audit(cases, "t", "s", workers=1)
    assert found(result, "mixed_affines") == [(("volume-28",), "1 of 3 scans have the identity as affine")]
    assert found(result, "ircadb") == [(("volume-28",), "volumes 28, all with the identity as affine")]
    assert found(result, "axes_differ") == [((), "number of scans by the directions of the axes: RAS 1, LPS 1, LAS 1")]
    assert found(result, "near_duplicate") == found(result, "duplicate") == []


def test_a_broken_case_stops_no_other_and_two_of_one_name_are_refused(tmp_path, monkeypatch):
    good, broken = case(tmp_path, "good"), case(tmp_path, "broken", seed=1)
    broken.image.write_bytes(b"no scan at all")
    result = audit([good, broken, good], "t", "s", workers=1)
    name = f"{good.image} with {good.label}"
    assert found(result, "found_twice") == [(("good",), name)]
    assert found(result, "refused") == [(("broken",), f"{broken.image}: not a NIfTI file")]

    def run_out(path, series):
        raise MemoryError("cannot allocate")

    monkeypatch.setattr("core.data.reading.read_image", run_out)
    result = audit([good, broken], "t", "s", workers=1)
    assert found(result, "refused")[0] == (("good",), f"{good.image}: MemoryError: cannot allocate")
    assert len(result.cases) == 2


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    """Two scans in LiTS' layout; the second one's mask is mirrored."""
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    for n in (0, 2):
        image, label = body(n)
        save(tmp_path / "raw" / f"volume-{n}.nii", image)
        save(tmp_path / "raw" / f"segmentation-{n}.nii", label if n == 0 else np.flip(label, 2))
    return _experiment(tmp_path)


def _experiment(folder):
    file = folder / "tiny.yaml"
    file.write_text(
        "source: {name: lits, root: raw}\nstore: data/tiny\nsplit: {name: stratified}\ndataset: {name: slices}\n"
        "model: {name: unet, weights: null}\nloss:\n  - {name: dice}\noptimizer: {name: adamw}\n"
    )
    return load(file)


def test_check_prints_a_table_and_writes_three_files_whole(tmp_path, experiment, capsys):
    (tmp_path / "audit" / "tiny").mkdir(parents=True)
    (tmp_path / "audit" / "tiny" / "audit.csv").write_text("of yesterday")
    assert check(experiment, workers=1) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["case", "axes", "size", "mm", "HU", "liver", "ml", "lesions", "found"]
    assert out[2].startswith("volume-2  LPS   16 x 96 x 128  6 x 2 x 2  -1024 to ")
    assert out[2].endswith("1 error")
    assert out[3] == "error: Mask mirrored against its scan"
    assert out[4].startswith("  volume-2: ")
    assert out[-2:] == ["2 cases: 1 error, 0 warnings, 0 remarks", "pictures and details: audit/tiny/audit.html"]
    folder = tmp_path / "audit" / "tiny"
    assert sorted(p.name for p in folder.iterdir()) == ["audit.csv", "audit.html", "audit.json"]
    rows = list(csv.DictReader((folder / "audit.csv").open()))
    assert [(r["case"], r["severity"], r["errors"], r["lesions"]) for r in rows] == [
        ("volume-0", "", "0", "1"),
        ("volume-2", "error", "1", "1"),
    ]
    told = json.loads((folder / "audit.json").read_text())
    assert [f["rule"] for f in told["findings"]] == ["mirrored_mask"]
    assert told["rules"]["mirrored_mask"]["severity"] == "error"
    assert not (tmp_path / "data").exists()  # no store


def test_a_source_without_scans_and_a_folder_that_cannot_be_written_are_the_users(tmp_path, experiment):
    (tmp_path / "taken").write_text("")
    with pytest.raises(
        UserError, match=r"^taken: cannot write the audit there \(.*\); name another folder with --out$"
    ):
        check(experiment, tmp_path.__class__("taken"), workers=1)
    for path in (tmp_path / "raw").iterdir():
        path.unlink()
    with pytest.raises(SourceError, match=r"^source 'lits': raw: no volume-N.nii in it"):
        check(experiment, workers=1)


def test_an_empty_audit_can_be_concluded():
    result = conclude("t", "s", [])
    assert (result.findings, result.cases) == ([], [])
