import json

import numpy as np
import pytest
import SimpleITK

import registry
from core.data.prepare import prepare
from core.data.store import Store

NnunetRaw = registry.get("source", "nnunet_raw").target
V2 = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumor": 2}, "numTraining": 2}
V1 = {
    "modality": {"0": "CT"},
    "labels": {"0": "background", "1": "liver", "2": "tumor"},
    "training": [{"image": "./imagesTr/liver_3.nii.gz", "label": "./labelsTr/liver_3.nii.gz"}],
}


def scan(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(-1000, 1000, (6, 11, 12)).astype(np.int16)
    label = np.zeros(image.shape, np.uint8)
    label[1:5, 2:9, 2:9] = 1
    label[2:4, 4:6, 4:6] = 2
    return image, label


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.8, 2.5))
    SimpleITK.WriteImage(image, str(path))


def write(root, *, ending=".nii.gz", described=V2, train=("liver_3", "liver_9"), test=(), tested=()):
    for i, case in enumerate((*train, *test)):
        image, label = scan(i)
        name = "Tr" if case in train else "Ts"
        save(root / f"images{name}" / f"{case}_0000{ending}", image)
        if case in train or case in tested:
            save(root / f"labels{name}" / f"{case}{ending}", label)
    (root / "imagesTr" / f"._liver_3_0000{ending}").write_bytes(b"\x00\x05\x16\x07")
    (root / "dataset.json").write_text(
        json.dumps({**described, **({"file_ending": ending} if "channel_names" in described else {})})
    )
    return root


@pytest.mark.parametrize(
    ("ending", "described"),
    [(".nii.gz", V2), (".nrrd", V2), (".mha", V2), (".nii.gz", V1)],
    ids=["nii.gz", "nrrd", "mha", "version 1"],
)
def test_pairs_are_stored(tmp_path, ending, described):
    root = write(tmp_path / "Dataset777_Mine", ending=ending, described=described)
    cases = NnunetRaw(root=root).cases()
    assert [(c.id, c.patient, c.origin, c.part) for c in cases] == [
        ("liver_3", "liver_3", "Dataset777_Mine", "train"),
        ("liver_9", "liver_9", "Dataset777_Mine", "train"),
    ]
    report = prepare(NnunetRaw(root=root), tmp_path / "store", workers=1, source_config={"name": "nnunet_raw"})
    assert report.bad == []
    store = Store(tmp_path / "store")
    for i, case in enumerate(store.cases):
        image, label = scan(i)
        assert np.array_equal(store.image(case), image)  # SimpleITK's default axes are LPS
        assert np.array_equal(store.label(case), label)


def test_the_decathlons_number_names_lits_and_its_patients(tmp_path):
    for name in ("Dataset003_Liver", "Task003_Liver"):
        root = write(tmp_path / name)
        found = [(c.patient, c.origin) for c in NnunetRaw(root=root).cases()]
        assert found == [("patient-3", "MSD Task03"), ("patient-6", "MSD Task03")]
    assert NnunetRaw(root=root, origin="Ours").cases()[1].patient == "liver_9"


def test_test_scans_come_last_with_a_label_where_there_is_one(tmp_path):
    root = write(tmp_path / "d", test=("liver_1", "liver_20"), tested=("liver_20",))
    cases = NnunetRaw(root=root).cases()
    assert [(c.id, c.part, c.label and c.label.name) for c in cases] == [
        ("liver_3", "train", "liver_3.nii.gz"),
        ("liver_9", "train", "liver_9.nii.gz"),
        ("liver_1", "test", None),
        ("liver_20", "test", "liver_20.nii.gz"),
    ]


def test_patients_are_found_in_names(tmp_path):
    root = write(tmp_path / "d", train=("anna_1", "anna_2", "bert_1"))
    assert [c.patient for c in NnunetRaw(root=root, patient_regex="^[a-z]+").cases()] == ["anna", "anna", "bert"]
    assert [c.patient for c in NnunetRaw(root=root, patient_regex="_(.)").cases()] == ["1", "2", "1"]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        NnunetRaw(root=root, patient_regex="_2").cases()
    assert str(error.value) == "patient_regex: '_2' finds nothing in 'anna_1'"
    with pytest.raises(ValueError, match=r"^patient_regex: '\(' is no regular expression: missing \)"):
        NnunetRaw(root=root, patient_regex="(")


def test_regions_and_other_numbers_become_liver_and_tumour(tmp_path):
    regions = {**V2, "labels": {"background": 0, "liver": [1, 2], "tumor": 2}, "regions_class_order": [1, 2]}
    assert NnunetRaw(root=write(tmp_path / "a", described=regions)).cases()[0].label_map == ()
    swapped = {**V2, "labels": {"background": 0, "tumor": 1, "liver": 2}}
    root = write(tmp_path / "b", described=swapped)
    assert NnunetRaw(root=root).cases()[0].label_map == ((1, 2), (2, 1))
    prepare(NnunetRaw(root=root), tmp_path / "store", workers=1, source_config={"name": "nnunet_raw"})
    store = Store(tmp_path / "store")
    assert np.array_equal(store.label("liver_3"), np.array([0, 2, 1])[scan(0)[1]])
    with pytest.raises(ValueError) as error:  # noqa: PT011
        NnunetRaw(root=write(tmp_path / "c", described={**V2, "labels": {**V2["labels"], "ignore": 3}})).cases()
    assert str(error.value) == (
        f"{tmp_path}/c/dataset.json: is 'ignore' (3) liver, tumour or background? say which value means what with "
        f"label_map, e.g. label_map: {{1: 1, 2: 2}} (value of the file: 1 liver, 2 tumour)"
    )


def test_several_channels_are_refused(tmp_path):
    two = {**V2, "channel_names": {"0": "CT", "1": "PET"}}
    root = write(tmp_path / "d", described=two)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        NnunetRaw(root=root).cases()
    assert str(error.value) == f"{root}/dataset.json: channel_names: want one channel, a CT; it has 0 CT, 1 PET"
    root = write(tmp_path / "e")
    save(root / "imagesTr" / "liver_3_0001.nii.gz", scan(5)[0])
    with pytest.raises(ValueError) as error:  # noqa: PT011
        NnunetRaw(root=root).cases()
    assert str(error.value) == f"{root}/imagesTr/liver_3_0001.nii.gz: a second channel; want one channel, a CT"
    (root / "dataset.json").write_text(json.dumps({"labels": V2["labels"]}))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        NnunetRaw(root=root).cases()
    assert str(error.value) == f"{root}/dataset.json: channel_names: want one channel, a CT; it has none"


def test_half_pairs_become_bad_cases_and_nothing_at_all_is_an_error(tmp_path):
    root = write(tmp_path / "d", train=("a", "b", "c"))
    (root / "labelsTr" / "a.nii.gz").unlink()
    (root / "imagesTr" / "b_0000.nii.gz").unlink()
    report = prepare(NnunetRaw(root=root), tmp_path / "store", workers=1, source_config={"name": "nnunet_raw"})
    assert report.stored == ["c"]
    assert [message for _, _, message in report.bad] == [
        f"{root}/labelsTr/a.nii.gz: the label is missing; its scan is there: {root}/imagesTr/a_0000.nii.gz",
        f"{root}/imagesTr/b_0000.nii.gz: the scan is missing; its label is there: {root}/labelsTr/b.nii.gz",
    ]
    assert [c.id for c in NnunetRaw(root=root, exclude=["a", "b"]).cases()] == ["c"]
    (root / "dataset.json").write_text(json.dumps({**V2, "file_ending": ".nrrd"}))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        NnunetRaw(root=root).cases()
    assert str(error.value) == f"{root}: no CASE_0000.nrrd in imagesTr (file_ending of dataset.json)"


def test_cases_that_lie_elsewhere_are_read_where_dataset_json_says(tmp_path):
    image, label = scan(0)
    save(tmp_path / "elsewhere" / "ct.nii.gz", image)
    save(tmp_path / "elsewhere" / "seg.nii.gz", label)
    root = tmp_path / "d"
    root.mkdir()
    listed = {"x": {"images": ["../elsewhere/ct.nii.gz"], "label": "../elsewhere/seg.nii.gz"}}
    (root / "dataset.json").write_text(json.dumps({**V2, "file_ending": ".nii.gz", "dataset": listed}))
    report = prepare(NnunetRaw(root=root), tmp_path / "store", workers=1, source_config={"name": "nnunet_raw"})
    assert (report.stored, report.bad) == (["x"], [])
    (root / "dataset.json").write_text(json.dumps({**V2, "dataset": {"x": {"images": [], "label": "a"}}}))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        NnunetRaw(root=root).cases()
    assert str(error.value) == (
        f"{root}/dataset.json: dataset.x: want {{images: [one path], label: path}}, got {{'images': [], 'label': 'a'}}"
    )


def test_scans_that_were_windowed_before_can_be_declared(tmp_path):
    write(tmp_path)
    assert {c.hu_trusted for c in NnunetRaw(root=tmp_path).cases()} == {True}
    assert {c.hu_trusted for c in NnunetRaw(root=tmp_path, intensity="windowed").cases()} == {False}
