import nibabel as nib
import numpy as np
import pytest

import registry
from core.data.prepare import prepare
from core.data.store import Store

Folder = registry.get("source", "folder").target


def save(path, seed=None):
    """A scan of random HU, or without a seed a label with 5 for liver and 7 for tumour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((12, 11, 6), np.uint8)
    array[2:9, 2:9, 1:5], array[4:6, 4:6, 2:4] = 5, 7
    if seed is not None:
        array = np.random.default_rng(seed).integers(-1000, 1000, array.shape).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([0.8, 0.8, 2.5, 1])), path)


@pytest.fixture
def hospital(tmp_path):
    """Two patients, one with two scans, one scan without a label."""
    for seed, name in enumerate(("anna/1", "anna/2", "bert/1")):
        save(tmp_path / "raw" / name / "ct.nii.gz", seed)
        if name != "anna/2":
            save(tmp_path / "raw" / name / "seg.nii.gz")
    return tmp_path / "raw"


def listed(tmp_path, text, name="list.csv", **more):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return Folder(csv=tmp_path / name, **more).cases()


def test_a_csv_lists_scans_relative_to_itself(tmp_path, hospital):
    text = (
        "image,label,patient,split,id,origin\n"
        "raw/anna/1/ct.nii.gz,raw/anna/1/seg.nii.gz,Anna,train,a1,\n"
        "raw/anna/2/ct.nii.gz,,Anna,,a2,\n"
        f"{hospital}/bert/1/ct.nii.gz,raw/bert/1/seg.nii.gz,,external,b1,Elsewhere\n"
    )
    cases = listed(tmp_path, text, label_map={5: 1, 7: 2}, origin="Ours", intensity="windowed", spacing="untrusted")
    assert [(c.id, c.patient, c.part, c.external, c.origin) for c in cases] == [
        ("a1", "Anna", "train", False, "Ours"),
        ("a2", "Anna", "", False, "Ours"),
        ("b1", "b1", "", True, "Elsewhere"),
    ]
    assert {(c.hu_trusted, c.spacing_trusted) for c in cases} == {(False, False)}
    source = Folder(csv=tmp_path / "list.csv", label_map={5: 1, 7: 2})
    report = prepare(source, tmp_path / "store", workers=1, source_config={"name": "folder"})
    assert report.bad == []
    store = Store(tmp_path / "store")
    assert [store.info(c).liver_voxels for c in store.cases] == [196, 0, 196]
    assert [store.info(c).tumour_voxels for c in store.cases] == [8, 0, 8]
    assert [store.info(c).labelled for c in store.cases] == [True, False, True]
    assert store.info("b1").external


@pytest.mark.parametrize(("mark", "comma"), [("\ufeff", ";"), ("", "\t"), ("", ",")])
def test_spreadsheets_ways_of_writing_are_read(tmp_path, mark, comma):
    text = mark + 'Image,Label,Age\n a.nii , b.nii ,63\n\n"c d.nii",,\n'.replace(",", comma)
    cases = listed(tmp_path, text)
    assert [c.image for c in cases] == [tmp_path / "a.nii", tmp_path / "c d.nii"]
    assert [c.label for c in cases] == [tmp_path / "b.nii", None]
    assert [c.id for c in cases] == ["a", "c-d"]


def test_ids_are_file_names_or_paths_where_names_repeat(tmp_path):
    cases = listed(tmp_path, "image\nanna/ct.nii.gz\nbert/ct.nii.gz\nclara/scan 3.nrrd\nseries/007\n")
    assert [c.id for c in cases] == ["anna-ct", "bert-ct", "scan-3", "007"]
    cases = listed(tmp_path, "image\nanna/ct.nii.gz\nbert/ct.nii.gz\n", patient_regex="^([^/]+)/")
    assert [c.patient for c in cases] == ["anna", "bert"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.csv:1: want a column 'image' (it has: none)"),
        ("image\n", "list.csv: lists no scan"),
        ("scan,label\na,b\n", "list.csv:1: want a column 'image' (it has: scan, label)"),
        ("image,labels\na,b\n", "list.csv:1: no such column 'labels', did you mean 'label'?"),
        ("image,image\na,b\n", "list.csv:1: the column 'image' is there twice"),
        ("image,label\na,b\nc\n", "list.csv:3: 1 values, but the header has 2"),
        ("image,label\n,b\n", "list.csv:2: image is empty"),
        (
            "image,split\na,trian\n",
            "list.csv:2: split 'trian', did you mean 'train'? Want train, val, test, external or nothing",
        ),
        ("image,id\na,x\nb,y\nc,x\n", "list.csv:4: case 'x' is there twice, also in line 2"),
    ],
)
def test_a_csv_that_does_not_say_what_it_should_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        listed(tmp_path, text)
    assert str(error.value) == f"{tmp_path}/{message}"


def test_a_csv_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Folder(csv=tmp_path / "no.csv").cases()
    assert str(error.value) == f"{tmp_path}/no.csv: no such file"
    (tmp_path / "latin.csv").write_bytes("image\nJürgen.nii\n".encode("latin-1"))
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Folder(csv=tmp_path / "latin.csv").cases()
    assert str(error.value).startswith(f"{tmp_path}/latin.csv: cannot be read as UTF-8 text: ")


def test_patterns_pair_what_their_wildcards_stand_for(tmp_path, hospital):
    source = Folder(root=hospital, images="*/*/ct.nii.gz", labels="*/*/seg.nii.gz", label_map={5: 1, 7: 2})
    cases = source.cases()
    assert [(c.id, c.label is not None) for c in cases] == [("anna-1", True), ("anna-2", False), ("bert-1", True)]
    assert cases[2].label == hospital / "bert/1/seg.nii.gz"
    report = prepare(source, tmp_path / "store", workers=1, source_config={"name": "folder"})
    assert (report.stored, report.bad) == (["anna-1", "anna-2", "bert-1"], [])
    by_patient = Folder(root=hospital, images="*/*/ct.nii.gz", patient_regex="^[^/]+").cases()
    assert [c.patient for c in by_patient] == ["anna", "anna", "bert"]


def test_labels_beside_scans_hidden_files_and_any_depth(tmp_path):
    for name in ("case_2.nii.gz", "case_2_seg.nii.gz", "case_10.nii.gz", "case_10_seg.nii.gz", "._case_2.nii.gz"):
        (tmp_path / "flat" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "flat" / name).touch()
    cases = Folder(root=tmp_path / "flat", images="*.nii.gz", labels="*_seg.nii.gz").cases()
    assert [(c.id, c.label.name) for c in cases] == [("case_2", "case_2_seg.nii.gz"), ("case_10", "case_10_seg.nii.gz")]
    for name in ("a/b/x.nrrd", "y.nrrd", ".hidden/z.nrrd"):
        (tmp_path / "deep" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "deep" / name).touch()
    assert [c.id for c in Folder(root=tmp_path / "deep", images="**/*.nrrd").cases()] == ["a-b-x", "y"]
    (tmp_path / "series" / "patient 1" / "ct").mkdir(parents=True)
    (case,) = Folder(root=tmp_path / "series", images="*/ct").cases()
    assert (case.id, case.image) == ("patient-1", tmp_path / "series/patient 1/ct")


def test_a_label_without_its_scan_becomes_a_bad_case(tmp_path, hospital):
    (hospital / "bert/1/ct.nii.gz").unlink()
    source = Folder(root=hospital, images="*/*/ct.nii.gz", labels="*/*/seg.nii.gz", label_map={5: 1, 7: 2})
    report = prepare(source, tmp_path / "store", workers=1, source_config={"name": "folder"})
    assert report.bad[0][2] == (
        f"{hospital}/bert/1/ct.nii.gz: the scan is missing; its label is there: {hospital}/bert/1/seg.nii.gz"
    )


def test_patterns_that_find_or_pair_nothing_are_refused(tmp_path, hospital):
    for arguments, message in (
        ({"root": tmp_path / "no", "images": "*"}, f"{tmp_path}/no: no such folder"),
        ({"images": "*/ct.nii"}, f"{hospital}: images '*/ct.nii' finds nothing"),
        (
            {"images": "*/1/ct.nii.gz", "labels": "anna/*/seg.nii.gz"},
            f"{hospital}: no label belongs to a scan: the wildcards of images '*/1/ct.nii.gz' stand for anna, bert, "
            f"those of labels 'anna/*/seg.nii.gz' for 1",
        ),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011
            Folder(**{"root": hospital, **arguments}).cases()
        assert str(error.value) == message
    for name in ("a b/ct.nii", "a-b/ct.nii"):
        (tmp_path / "two" / name).parent.mkdir(parents=True)
        (tmp_path / "two" / name).touch()
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Folder(root=tmp_path / "two", images="*/ct.nii").cases()
    assert str(error.value) == (
        f"{tmp_path}/two: two scans would be called 'a-b': {tmp_path}/two/a b/ct.nii and {tmp_path}/two/a-b/ct.nii"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either csv, a file that lists the scans, or root with images, a pattern"),
        ({"csv": "a.csv", "root": "b"}, "give either csv, a file that lists the scans, or root with images, a pattern"),
        ({"csv": "a.csv", "images": "*"}, "images and labels are patterns below root; with csv the file lists both"),
        ({"root": "b"}, "with root, give images, a pattern such as '*/ct.nii.gz'"),
        ({"root": "b", "images": "/c/*"}, "images: want a pattern below root, got '/c/*'"),
        ({"root": "b", "images": "*", "labels": "../*"}, "labels: want a pattern below root, got '../*'"),
        (
            {"root": "b", "images": "*/*.nii", "labels": "*.nii"},
            "images '*/*.nii' and labels '*.nii' must have as many wildcards, which pair them",
        ),
        (
            {"root": "b", "images": "*", "label_map": {1: 9}},
            "label_map: want a value of the file: 1 (liver), 2 (tumour) or 0, got {1: 9}",
        ),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Folder(**arguments)
    assert str(error.value) == message


def test_excluded_cases_are_left_out(tmp_path, hospital):
    arguments = {"root": hospital, "images": "*/*/ct.nii.gz"}
    assert [c.id for c in Folder(**arguments, exclude=["anna-2"]).cases()] == ["anna-1", "bert-1"]
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Folder(**arguments, exclude=["anna-3"]).cases()
    assert str(error.value) == f"exclude: no case 'anna-3' below {hospital}, did you mean 'anna-2'?"
