import sys
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import SecondaryCaptureImageStorage

import registry
from core.data.prepare import prepare
from core.data.store import Store
from core.data.volume import read_image, write_labels

sys.path.append(str(Path(__file__).parents[1] / "core" / "data"))
from dicom_files import AFFINE, UID, body, labels, segment, slices, write, write_seg

Dicom = registry.get("source", "dicom").target
HU, LABELS = body((10, 24, 20)), labels((10, 24, 20))
BOTH = np.stack([LABELS > 0, LABELS == 2], -1)
NAMES = [segment(1, "Liver"), segment(2, "Tumour", codes.SCT.Neoplasm)]


@pytest.fixture
def root(tmp_path):
    """Two patients: of the first a study with thin and thick slices, a scout and a dose sheet; of the second a scan."""
    folder = tmp_path / "pacs"
    study = {"StudyInstanceUID": f"{UID}.21"}
    thick = slices(HU, series=f"{UID}.30", SeriesDescription="Portal 2.5", **study)
    thin = slices(np.repeat(HU, 2, 0), series=f"{UID}.31", spacing=(1.25, 0.8, 0.7), **study)
    write(folder / "P 1" / "ST0" / "SE1", thick)
    write(folder / "P 1" / "ST0" / "SE2", [_named(one, "Thin 1.25", 5) for one in thin])
    scout = slices(HU[:2], series=f"{UID}.32", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **study)
    write(folder / "P 1" / "ST0" / "SE0", scout)
    write(folder / "P 1" / "ST0" / "SE3", slices(HU[:1], SOPClassUID=SecondaryCaptureImageStorage, **study))
    other = {"StudyInstanceUID": f"{UID}.22", "PatientID": "4712", "SeriesDescription": "Abdomen"}
    write(folder / "P2", slices(HU + 1, series=f"{UID}.33", **other))
    return folder


def _named(one, description, number):
    one.SeriesDescription, one.SeriesNumber = description, number
    return one


def source(root, **given):
    return Dicom(root=root, **given)


def ids(root, **given):
    return [case.id for case in source(root, **given).cases()]


def refusal(root, **given):
    with pytest.raises(ValueError, match=r"^\S.*") as error:
        source(root, **given).cases()
    return str(error.value)


def test_of_each_study_the_largest_axial_ct_is_a_case(root):
    second, first = source(root, origin="hospital", spacing="untrusted", intensity="windowed").cases()
    assert (first.id, first.image, first.series) == ("P-1-ST0-SE2", root / "P 1" / "ST0" / "SE2", f"{UID}.31")
    assert (second.id, second.image, second.series) == ("P2", root / "P2", f"{UID}.33")
    assert (first.patient, second.patient) == ("de650d61f5bd", sha256(b"4712").hexdigest()[:12])
    assert (first.origin, first.spacing_trusted, first.hu_trusted) == ("hospital", False, False)
    assert (first.label, first.label_map) == (None, ())


def test_series_are_chosen_by_description_or_all(root):
    assert ids(root, series="all") == ["P2", "P-1-ST0-SE1", "P-1-ST0-SE2"]
    assert ids(root, series="portal|abdomen") == ["P2", "P-1-ST0-SE1"]
    assert ids(root, series="all", least_slices=11) == ["P-1-ST0-SE2"]
    assert ids(root, series="all", exclude=["P2"]) == ["P-1-ST0-SE1", "P-1-ST0-SE2"]


def test_scans_without_a_study_are_told_apart_by_their_folders(tmp_path):
    for n in (1, 2):
        write(tmp_path / "pacs" / f"p{n}", slices(HU + n, series=f"{UID}.5{n}", StudyInstanceUID="", PatientID=""))
    cases = source(tmp_path / "pacs").cases()
    assert [(case.id, case.patient) for case in cases] == [("p1", "p1"), ("p2", "p2")]


def test_ids_and_patients_may_come_from_elsewhere(root):
    cases = source(root, series="all", ids="hashed", patient="folder").cases()
    assert {case.id for case in cases} == {sha256(case.series.encode()).hexdigest()[:12] for case in cases}
    assert len(cases) == 3
    assert {case.patient for case in cases} == {"P 1", "P2"}


def test_several_series_in_one_folder_and_one_over_several_are_sorted_out(tmp_path):
    root = tmp_path / "pacs"
    write(root, slices(HU, series=f"{UID}.40", StudyInstanceUID=f"{UID}.1"), name="A{}")
    write(root, slices(HU + 1, series=f"{UID}.41", StudyInstanceUID=f"{UID}.2", SeriesNumber=7), name="B{}")
    spread = slices(HU + 2, series=f"{UID}.42", StudyInstanceUID=f"{UID}.3")
    write(root / "x" / "1", spread[:4])
    write(root / "x" / "2", spread[4:])
    cases = source(root).cases()
    tails = [sha256(f"{UID}.{n}".encode()).hexdigest()[:6] for n in (40, 41)]
    assert [case.id for case in cases] == [f"pacs-s3-{tails[0]}", f"pacs-s7-{tails[1]}", "x"]
    report = prepare(source(root), tmp_path / "store", workers=1, source_config={"name": "dicom"})
    assert (report.bad, len(report.stored)) == ([], 3)
    assert np.array_equal(Store(tmp_path / "store").image("x", range(10)), HU + 2)


def test_a_study_copied_into_two_folders_is_refused_as_a_duplicate(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "pacs" / name, slices(HU))
    assert ids(tmp_path / "pacs") == ["a", "b"]
    report = prepare(source(tmp_path / "pacs"), tmp_path / "store", workers=1, source_config={"name": "dicom"})
    assert report.stored == ["a"]
    assert "the same scan as a (" in report.bad[0][2]


def test_the_series_that_a_segmentation_names_is_chosen_and_goes_all_the_way(root, tmp_path):
    write_seg(root / "P 1" / "ST0" / "SE9" / "IM1", slices(HU, series=f"{UID}.30"), BOTH, NAMES)
    second, first = source(root).cases()
    assert (first.id, first.label) == ("P-1-ST0-SE1", root / "P 1" / "ST0" / "SE9" / "IM1")
    assert second.label is None
    report = prepare(source(root), tmp_path / "store", workers=1, source_config={"name": "dicom"})
    assert report.bad == []
    store = Store(tmp_path / "store")
    assert np.array_equal(store.image("P-1-ST0-SE1", range(10)), HU)
    assert np.array_equal(store.label("P-1-ST0-SE1", range(10)), LABELS)
    assert store.info("P-1-ST0-SE1").spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    again = prepare(source(root), tmp_path / "store", workers=1, source_config={"name": "dicom"})
    assert (again.stored, len(again.skipped)) == ([], 2)
    native = read_image(first.image, series=first.series).native
    write_labels(tmp_path / "out.nii.gz", store.label("P-1-ST0-SE1", range(10)), native)
    assert np.allclose(nib.load(tmp_path / "out.nii.gz").affine, AFFINE, atol=1e-5)


def test_two_segmentations_of_one_series_are_refused_and_the_rest_goes_on(root, tmp_path):
    for n in (1, 2):
        write_seg(root / "seg" / f"{n}", slices(HU, series=f"{UID}.30"), BOTH, NAMES, instance=f"{UID}.9.{n}")
    assert ids(root) == ["P2", "P-1-ST0-SE1", "P-1-ST0-SE1"]
    report = prepare(source(root), tmp_path / "store", workers=1, source_config={"name": "dicom"})
    assert report.stored == ["P2"]
    assert report.bad[0][0] == "P-1-ST0-SE1"


@pytest.mark.parametrize(
    ("pattern", "file"),
    [
        ("masks/{id}.nii.gz", "masks/P-1-ST0-SE1.nii.gz"),
        ("{folder}/liver.nii.gz", "P 1/ST0/SE1/liver.nii.gz"),
        ("m/{series}.nii", f"m/{UID}.30.nii"),
    ],
)
def test_labels_in_files_are_found_by_pattern(root, tmp_path, pattern, file):
    path = root / file
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(LABELS.T) * 2, AFFINE), path)
    case = source(root, labels=pattern, label_map={2: 1, 4: 2}).cases()[1]
    assert (case.id, case.label, case.label_map) == ("P-1-ST0-SE1", path, ((2, 1), (4, 2)))
    given = source(root, labels=pattern, label_map={2: 1, 4: 2})
    report = prepare(given, tmp_path / "store", workers=1, source_config={"name": "dicom"})
    assert report.bad == []
    assert np.array_equal(Store(tmp_path / "store").label("P-1-ST0-SE1", range(10)), LABELS)


def test_bad_series_and_damaged_folders_are_bad_cases(root, tmp_path):
    (root / "P2" / "IM0005").unlink()
    (root / "P3").mkdir()
    (root / "P3" / "a.dcm").write_bytes(b"DICM")
    report = prepare(source(root, least_slices=9), tmp_path / "store", workers=1, source_config={"name": "dicom"})
    assert report.stored == ["P-1-ST0-SE2"]
    named = f"series {UID}.33 ('Abdomen', 9 slices)"
    assert [(case, message) for case, _, message in report.bad] == [
        (
            "P2",
            f"{root}/P2: {named}: 1 slice is missing: the slices are 2.5 mm apart, but there are 5 mm between -300 mm "
            f"(IM0000) and -295 mm (IM0010); copy the series again",
        ),
        ("P3", f"{root}/P3/a.dcm: not a DICOM file: the mark DICM is missing"),
    ]


def test_what_names_the_patient_is_in_no_case_and_no_store(root, tmp_path):
    prepare(source(root), tmp_path / "store", workers=1, source_config={"name": "dicom"})
    said = repr(source(root, series="all").cases()).encode()
    for file in (tmp_path / "store").iterdir():
        said += file.read_bytes()
    for secret in (b"Doe", b"Jane", b"4711", b"19400101"):
        assert secret not in said


def test_what_is_wrong_is_said(root, tmp_path):
    assert refusal(tmp_path / "no") == f"{tmp_path}/no: no such folder"
    (tmp_path / "none").mkdir()
    assert refusal(tmp_path / "none") == f"{tmp_path}/none: no DICOM files in it"
    (tmp_path / "none" / "x.dcm").write_bytes(b"")
    assert refusal(tmp_path / "none") == (
        f"{tmp_path}/none: no DICOM files in it; 1 damaged, e.g. {tmp_path}/none/x.dcm"
    )
    assert refusal(root, least_slices=30) == (
        f"{root}: no axial CT series of 30 slices or more (least_slices) in it; there are:\n"
        f"  series {UID}.30 ('Portal 2.5', 10 slices)\n"
        f"  series {UID}.31 ('Thin 1.25', 20 slices)\n"
        f"  series {UID}.32 ('Portal 2.5', 2 slices) is a scout view (localizer), not a scan\n"
        f"  series {UID}.33 ('Abdomen', 10 slices)\n"
        f"  series {UID}.7 ('Portal 2.5', 1 slice) holds no CT images but Secondary Capture Image Storage: a picture "
        f"of one, its values are no HU"
    )
    assert refusal(root, series="arterial") == (
        f"{root}: no SeriesDescription matches 'arterial'; there are:\n"
        f"  series {UID}.30 ('Portal 2.5', 10 slices)\n  series {UID}.31 ('Thin 1.25', 20 slices)\n"
        f"  series {UID}.33 ('Abdomen', 10 slices)"
    )
    assert refusal(root, labels="masks/{id}.nii.gz") == (
        f"{root}: labels 'masks/{{id}}.nii.gz' finds nothing, e.g. for case 'P2'"
    )
    assert refusal(root, labels="masks/*.nii") == (
        "labels: want a path with {id}, {folder} or {series} in it, got 'masks/*.nii'"
    )
    assert refusal(root, labels="../{id}.nii") == "labels: want a path below root, got '../{id}.nii'"
    assert refusal(root, least_slices=1) == "least_slices: want at least 2, got 1"
    assert refusal(root, series="(").startswith("series: '(' is neither largest, all nor a regular expression: ")
    assert refusal(root, label_map={1: 5}).startswith("label_map: want a value of the file: 1 (liver), 2 (tumour) or 0")
