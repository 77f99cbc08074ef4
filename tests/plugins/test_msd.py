import json

import nibabel as nib
import numpy as np
import pytest

import registry
from core.data.prepare import prepare
from core.data.store import Store

Msd = registry.get("source", "msd").target
LIVER = {"0": "background", "1": "liver", "2": "cancer"}


def write(root, *, name="Liver", labels=LIVER, training=(0, 1, 7), test=(131,), stem="liver", packed=True, **more):
    """A task as the Decathlon ships it, with real small files and what macOS leaves beside them."""
    ending = ".nii.gz" if packed else ".nii"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"._{stem}_0.nii.gz").write_bytes(b"\x00\x05\x16\x07")
    for number in (*training, *test):
        rng = np.random.default_rng(number)
        image = rng.integers(-1000, 1000, (12, 11, 6)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[2:9, 2:9, 1:5] = 1
        label[4:6, 4:6, 2:4] = 2
        folder = "imagesTr" if number in training else "imagesTs"
        nib.save(nib.Nifti1Image(image, np.diag([0.8, 0.8, 2.5, 1])), root / folder / f"{stem}_{number}{ending}")
        if number in training:
            nib.save(
                nib.Nifti1Image(label, np.diag([0.8, 0.8, 2.5, 1])), root / "labelsTr" / f"{stem}_{number}{ending}"
            )
    described = {
        "name": name,
        "modality": {"0": "CT"},
        "labels": labels,
        "training": [
            {"image": f"./imagesTr/{stem}_{n}.nii.gz", "label": f"./labelsTr/{stem}_{n}.nii.gz"} for n in training
        ],
        "test": [f"./imagesTs/{stem}_{n}.nii.gz" for n in test],
        **more,
    }
    (root / "dataset.json").write_text(json.dumps(described))
    return root


@pytest.mark.parametrize("packed", [True, False], ids=["nii.gz", "unpacked"])
def test_task_three_is_stored_as_it_is_listed_with_lits_patients(tmp_path, packed):
    root = write(tmp_path / "Task03_Liver", packed=packed)
    cases = {c.id: c for c in Msd(root=root).cases()}
    assert list(cases) == ["liver_0", "liver_1", "liver_7", "liver_131"]
    assert [c.patient for c in cases.values()] == ["patient-0", "patient-0", "patient-6", "test-liver_131"]
    assert [c.part for c in cases.values()] == ["train", "train", "train", "test"]
    assert {c.origin for c in cases.values()} == {"MSD Task03"}
    assert {c.label_map for c in cases.values()} == {()}
    report = prepare(Msd(root=root), tmp_path / "store", workers=1, source_config={"name": "msd"})
    assert report.bad == []
    store = Store(tmp_path / "store")
    for case in ("liver_0", "liver_1", "liver_7"):
        assert (store.info(case).liver_voxels, store.info(case).tumour_voxels) == (7 * 7 * 4, 2 * 2 * 2)
        image = np.asarray(nib.load(cases[case].image if packed else root / f"imagesTr/{case}.nii").dataobj)
        assert np.array_equal(store.image(case), image.T[:, ::-1, ::-1])
    assert not store.info("liver_131").labelled


def test_task_eight_needs_a_label_map_and_gets_its_own_patients(tmp_path):
    vessels = {"0": "background", "1": "Vessel", "2": "Tumour"}
    root = write(tmp_path / "hv", name="HepaticVessel", labels=vessels, stem="hepaticvessel", test=())
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Msd(root=root).cases()
    assert str(error.value) == (
        f"{root}/dataset.json: is 'Vessel' (1) liver, tumour or background? say which value means what with "
        f"label_map, e.g. label_map: {{1: 1, 2: 2}} (value of the file: 1 liver, 2 tumour)"
    )
    cases = Msd(root=root, label_map={2: 2}).cases()
    assert cases[1].patient == "hepaticvessel_1"
    assert {c.origin for c in cases} == {"MSD Task08"}
    assert {c.label_map for c in cases} == {((2, 2),)}
    report = prepare(Msd(root=root, label_map={2: 2}), tmp_path / "store", workers=1, source_config={"name": "msd"})
    assert report.bad == []
    info = Store(tmp_path / "store").info("hepaticvessel_0")
    assert (info.liver_voxels, info.tumour_voxels) == (8, 8)  # liver counts labels 1 and 2


@pytest.mark.parametrize(
    ("labels", "want"),
    [
        ({"0": "background", "1": "Liver", "2": "Liver tumor"}, ()),
        ({"background": 0, "liver": 1, "cancer": 2}, ()),
        ({"background": 0, "tumour": 1, "liver": 2}, ((1, 2), (2, 1))),
        ({"background": 0, "whole_liver": [1, 2, 3], "lesion": [2, 3]}, ((1, 1), (2, 2), (3, 2))),
    ],
)
def test_labels_are_found_by_their_names(tmp_path, labels, want):
    root = write(tmp_path / "Task03_Liver", labels=labels)
    assert Msd(root=root).cases()[0].label_map == want


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"background": 0, "liver": 1}, "no label is called tumour; "),
        ({"0": "background"}, "no label is called liver or tumour; "),
        (
            {"background": 0, "liver": 1, "kidney tumour": 2, "spleen": 3},
            "is 'kidney tumour' (2) or 'spleen' (3) liver, tumour or background? ",
        ),
        ({"background": 0, "liver": "x1", "tumour": 2}, "labels: want whole numbers for 'liver', got ['x1']"),
        (None, "want labels, a mapping of names and values\n  or "),
    ],
)
def test_labels_that_do_not_tell_are_refused(tmp_path, labels, message):
    root = write(tmp_path / "Task03_Liver", training=(), test=(1,), labels=labels)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Msd(root=root).cases()
    assert str(error.value).startswith(f"{root}/dataset.json: {message}")


@pytest.mark.parametrize("given", [{}, {1: 1, 2: 3}, {1: 0}])
def test_a_label_map_to_other_labels_is_refused(tmp_path, given):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Msd(root=write(tmp_path / "Task03_Liver"), label_map=given).cases()
    assert str(error.value) == f"label_map: want a value of the file: 1 (liver), 2 (tumour) or 0, got {given}"


def test_missing_and_wrong_descriptions_are_named(tmp_path):
    root, help = tmp_path / "Task03_Liver", "want a task's folder, such as Task03_Liver, with dataset.json, imagesTr"
    for what in ("no such folder", "no dataset.json in it"):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            Msd(root=root).cases()
        assert str(error.value) == f"{root}: {what}\n  {help} and labelsTr"
        root.mkdir(exist_ok=True)
    for text, message in (
        ("{", "cannot be read as JSON: "),
        ("[]", "want a mapping, got a list"),
        (json.dumps({"labels": LIVER}), "lists no scan, neither under training nor under test"),
        (json.dumps({"labels": LIVER, "training": "x"}), "training: want a list, got a str"),
        (
            json.dumps({"labels": LIVER, "training": [{"image": "a.nii"}]}),
            "training: want {image: ..., label: ...}, got {'image': 'a.nii'}",
        ),
        (json.dumps({"labels": LIVER, "test": [3]}), "test: want a scan's path, got 3"),
    ):
        (root / "dataset.json").write_text(text)
        with pytest.raises(ValueError) as error:  # noqa: PT011
            Msd(root=root).cases()
        assert str(error.value).startswith(f"{root}/dataset.json: {message}")


def test_files_that_are_missing_become_bad_cases_and_excluded_ones_are_left_out(tmp_path):
    root = write(tmp_path / "Task03_Liver")
    (root / "labelsTr" / "liver_1.nii.gz").unlink()
    (root / "imagesTr" / "liver_7.nii.gz").unlink()
    report = prepare(Msd(root=root), tmp_path / "store", workers=1, source_config={"name": "msd"})
    assert report.stored == ["liver_0", "liver_131"]
    assert [(case, message) for case, _, message in report.bad] == [
        (
            "liver_1",
            f"{root}/labelsTr/liver_1.nii.gz: the label is missing; its scan is there: {root}/imagesTr/liver_1.nii.gz",
        ),
        (
            "liver_7",
            f"{root}/imagesTr/liver_7.nii.gz: the scan is missing; its label is there: {root}/labelsTr/liver_7.nii.gz",
        ),
    ]
    assert [c.id for c in Msd(root=root, exclude=["liver_1", "liver_7"]).cases()] == ["liver_0", "liver_131"]
    with pytest.raises(ValueError, match=r"^exclude: no case 'liver_53' below .*, did you mean 'liver_131'\?$"):
        Msd(root=root, exclude=["liver_53"]).cases()


def test_scans_that_were_windowed_before_can_be_declared(tmp_path):
    write(tmp_path)
    assert {c.hu_trusted for c in Msd(root=tmp_path).cases()} == {True}
    assert {c.hu_trusted for c in Msd(root=tmp_path, intensity="windowed").cases()} == {False}
