from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import registry
from core.data.prepare import prepare
from core.data.store import Store

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
Lits = registry.get("source", "lits").target


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(root, **more):
    return {c.id: c for c in Lits(root=root, **more).cases()}


def test_pairs_are_found_over_batches_gzipped_or_not_and_test_scans_come_last(tmp_path):
    touch(
        tmp_path,
        *("Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii"),
        *("Training Batch 2/volume-28.nii.gz", "labels/segmentation-28.nii"),
        *("Test/test-volume-2.nii", "Test/test-volume-10.nii", "volume-9.nii", "volume-100.nii.gz"),
        *("._volume-3.nii", "volume-x.nii", "volume-3.txt", "readme.md"),
    )
    cases = Lits(root=tmp_path).cases()
    assert [c.id for c in cases] == [
        *("volume-0", "volume-9", "volume-28", "volume-100", "test-volume-2", "test-volume-10")
    ]
    by = {c.id: c for c in cases}
    assert by["volume-0"].label == tmp_path / "Training Batch 1/segmentation-0.nii"
    assert by["volume-28"].image == tmp_path / "Training Batch 2/volume-28.nii.gz"
    assert by["volume-28"].label == tmp_path / "labels/segmentation-28.nii"
    assert by["volume-9"].label is None
    assert by["test-volume-2"].patient == "test-patient-2"
    assert {c.origin for c in cases} == {"LiTS"}


def test_links_are_followed_and_what_is_found_again_through_one_counts_once(tmp_path):
    touch(tmp_path, "raw/here/volume-1.nii", "elsewhere/volume-2.nii")
    (tmp_path / "raw" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw" / "again").symlink_to(tmp_path / "raw" / "here")
    (tmp_path / "raw" / "here" / "circle").symlink_to(tmp_path / "raw")
    assert [c.id for c in Lits(root=tmp_path / "raw").cases()] == ["volume-1", "volume-2"]


def test_known_patients_and_repairs(tmp_path):
    touch(tmp_path, *(f"volume-{i}.nii" for i in range(60)), *(f"segmentation-{i}.nii" for i in range(60)))
    touch(tmp_path, "test-volume-53.nii", "test-volume-7.nii")
    cases = listed(tmp_path)
    assert cases["volume-0"].patient == cases["volume-1"].patient
    assert len({cases[f"volume-{i}"].patient for i in range(6, 11)}) == 1
    assert len({c.patient for c in cases.values()}) == 62 - 1 - 4
    assert {c.id: c.repairs for c in cases.values() if c.repairs} == {"volume-53": ("label_affine",)}
    parts = {c.id: c.part for c in cases.values()}
    assert {parts[f"volume-{i}"] for i in range(60)} == {"train"}
    assert (parts["test-volume-53"], parts["test-volume-7"]) == ("test", "test")


def test_missing_and_empty_folders_say_where_lits_goes(tmp_path):
    hint = (
        "  LiTS goes into one folder with volume-N.nii and segmentation-N.nii (subfolders and .nii.gz are fine);\n"
        "  give it with source.root=/path/to/LiTS, to tools/prepare.py or tools/train.py, which prepares first\n"
        "  without LiTS, the synthetic phantom needs no download: experiments/quickstart.yaml"
    )
    for root, what in ((tmp_path / "no", "no such folder"), (tmp_path, "no volume-N.nii in it")):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            Lits(root=root).cases()
        assert str(error.value) == f"{root}: {what}\n{hint}"


def test_excluded_cases_are_left_out_and_a_misspelt_one_is_named(tmp_path):
    touch(tmp_path, "volume-1.nii", "volume-53.nii")
    assert list(listed(tmp_path, exclude=["volume-53"])) == ["volume-1"]
    with pytest.raises(ValueError, match=r"^exclude: no case 'volume-54' below .*, did you mean 'volume-53'\?$"):
        listed(tmp_path, exclude=["volume-54"])


def test_broken_pairs_and_doubled_numbers_become_bad_cases_and_the_rest_goes_on(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    image = np.random.default_rng(0).integers(-1000, 1000, (8, 7, 6)).astype(np.int16)
    nib.save(nib.Nifti1Image(image, np.diag([2.0, 2, 2, 1])), raw / "volume-5.nii")
    nib.save(nib.Nifti1Image(np.ones((8, 7, 6), np.uint8), np.diag([2.0, 2, 2, 1])), raw / "segmentation-5.nii")
    touch(raw, "segmentation-7.nii", "a/volume-8.nii", "b/volume-8.nii.gz", "volume-9.nii", "c/segmentation-9.nii")
    touch(raw, "d/segmentation-9.nii")
    report = prepare(Lits(root=raw), tmp_path / "store", workers=1, source_config={"name": "lits"})
    assert report.stored == ["volume-5"]
    assert [(case, message) for case, _, message in report.bad] == [
        ("volume-7", f"{raw}/volume-7.nii: the scan is missing; its label is there: {raw}/segmentation-7.nii"),
        (
            "volume-8",
            f"{raw}/a/volume-8.nii: found more than once; keep one of {raw}/a/volume-8.nii, {raw}/b/volume-8.nii.gz",
        ),
        (
            "volume-9",
            f"{raw}/c/segmentation-9.nii: found more than once; "
            f"keep one of {raw}/c/segmentation-9.nii, {raw}/d/segmentation-9.nii",
        ),
    ]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real CT at {SHARED}")
def test_real_scans_are_stored_with_what_is_wrong_about_them(tmp_path):
    root = SHARED / "lits_real"
    report = prepare(Lits(root=root), tmp_path / "store", workers=1, source_config={"name": "lits"})
    assert report.bad == []
    assert len(report.notes) == 6
    store = Store(tmp_path / "store")
    assert store.cases == ("volume-4", "volume-5", "volume-6")
    for case in store.cases:
        info = store.info(case)
        assert not info.spacing_trusted
        assert not info.hu_trusted
        label = np.asanyarray(nib.load(root / f"segmentation-{case[-1]}.nii.gz").dataobj)
        assert (info.liver_voxels, info.tumour_voxels) == ((label > 0).sum(), (label == 2).sum())
        assert (store.lesions(case)["contrast_hu"] < 0).mean() > 0.5  # metastases darker than the liver


def test_scans_that_were_windowed_before_can_be_declared(tmp_path):
    touch(tmp_path, "volume-4.nii", "segmentation-4.nii")
    assert {c.hu_trusted for c in Lits(root=tmp_path).cases()} == {True}
    assert {c.hu_trusted for c in Lits(root=tmp_path, intensity="windowed").cases()} == {False}
