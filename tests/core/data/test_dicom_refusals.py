import pytest
from dicom_files import SERIES, SYNTAXES, UID, body, slices, write
from pydicom import dcmread
from pydicom.uid import HTJ2KLossless, SecondaryCaptureImageStorage

from core.data.volume import VolumeError, read_image

HU = body()
NAMED = f"series {SERIES} ('Portal 2.5', 8 slices)"


def refusal(folder, **given):
    with pytest.raises(VolumeError) as error:
        read_image(folder, **given)
    return str(error.value)


def _missing(series):
    del series[4]


def _missing_two_places(series):
    del series[6], series[3:5]


def _twice(series):
    series[5].ImagePositionPatient = series[4].ImagePositionPatient


def _two_times(series):
    for a, b in zip(series[4:], series[:4], strict=True):
        a.ImagePositionPatient = b.ImagePositionPatient


def _uneven(series):
    for k, one in enumerate(series[5:], 1):
        one.ImagePositionPatient[2] = series[4].ImagePositionPatient[2] + 3 * k


def _astray(series):
    series[3].ImagePositionPatient[0] += 4


def _scout(series):
    series[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def _size(series):
    series[3].Rows = 20
    series[3].PixelData = series[3].PixelData[: 20 * 20 * 2]


def _pixels(series):
    series[4].PixelSpacing = [0.8, 0.9]


def _lost(name):
    def spoil(series):
        delattr(series[2], name)

    return spoil


def _set(name, value, which=2):
    def spoil(series):
        setattr(series[which], name, value)

    return spoil


def _all(name, value):
    def spoil(series):
        for one in series:
            setattr(one, name, value)

    return spoil


def _one(series):
    del series[1:]


def _shear(series):
    _all("ImageOrientationPatient", [1, 0, 0, 0.5, 0.5, 0])(series)


SPOILT = {
    "missing": (
        _missing,
        "1 slice is missing: the slices are 2.5 mm apart, but there are 5 mm between -292.5 mm (IM0015) and -287.5 mm "
        "(IM0020); copy the series again",
    ),
    "missing in two places": (
        _missing_two_places,
        "3 slices are missing: the slices are 2.5 mm apart, but there are 7.5 mm between -295 mm (IM0010) and -287.5 "
        "mm (IM0015) (and at 1 more places); copy the series again",
    ),
    "twice": (
        _twice,
        "two slices at -290 mm, IM0020 and IM0025; which one is it?",
    ),
    "two times": (
        _two_times,
        "4 slices lie where another one lies, e.g. at -300 mm IM0000 and IM0020: two points in time or two "
        "reconstructions in one series; separate them",
    ),
    "uneven": (
        _uneven,
        "the slices are not evenly spaced: mostly 2.5 mm apart, but 3 mm from -290 mm (IM0020) to -287 mm (IM0025)",
    ),
    "astray": (
        _astray,
        "the slices do not lie on a straight line: IM0015 at -292.5 mm is 4 mm off the line from the first to the last",
    ),
    "scout": (
        _scout,
        "IM0000 lies at another angle than the other slices (a scout view or a reformatted image); take it out of the "
        "series",
    ),
    "size": (_size, "IM0015 has 20 x 20 pixels, most slices have 24 x 20 pixels; take it out of the series"),
    "pixels": (
        _pixels,
        "IM0020 has pixels of 0.8 x 0.9 mm, most slices have pixels of 0.8 x 0.7 mm; take it out of the series",
    ),
    "no place": (
        _lost("ImagePositionPatient"),
        "IM0010 has no ImagePositionPatient, so nothing says where the slice lies",
    ),
    "no angle": (
        _lost("ImageOrientationPatient"),
        "IM0010 has no ImageOrientationPatient, so nothing says where the slice lies",
    ),
    "no spacing": (_lost("PixelSpacing"), "IM0010 has no PixelSpacing, so nothing says where the slice lies"),
    "no slope": (_lost("RescaleSlope"), "IM0010 has no RescaleSlope, so its values cannot be turned into HU"),
    "slope 0": (_set("RescaleSlope", 0), "IM0010 has RescaleSlope 0, so its values cannot be turned into HU"),
    "no HU": (_set("RescaleType", "US"), "the values of IM0010 are not HU: its RescaleType is 'US'"),
    "colour": (_set("SamplesPerPixel", 3), "IM0010 has 3 values a pixel (colour), not HU"),
    "other class": (
        _set("SOPClassUID", SecondaryCaptureImageStorage),
        "IM0010 is no CT image (Secondary Capture Image Storage)",
    ),
    "same UID": (
        _set("SOPInstanceUID", f"{SERIES}.1"),
        "IM0000 and IM0010 have one SOPInstanceUID and differ; which one is it?",
    ),
    "one": (_one, "is one slice, which is no volume"),
    "MR": (_all("Modality", "MR"), "is of modality MR, not CT"),
    "localizer": (_all("ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), "is a scout view (localizer), not a scan"),
    "capture": (
        _all("SOPClassUID", SecondaryCaptureImageStorage),
        "holds no CT images but Secondary Capture Image Storage: a picture of one, its values are no HU",
    ),
    "coronal": (
        _all("ImageOrientationPatient", [1, 0, 0, 0, 0, -1]),
        "is not axial (a reformatted image); name its SeriesInstanceUID to have it read all the same",
    ),
    "shear": (_shear, "ImageOrientationPatient [1.0, 0.0, 0.0, 0.5, 0.5, 0.0] of IM0000 is no pair of right angles"),
    "no intercept": (
        _all("RescaleIntercept", 1000),
        "intensities within [1024, 2734] look like HU + 1024: the rescale intercept is missing",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_spoilt_series_is_refused_with_its_place_and_file(tmp_path, case):
    spoil, message = SPOILT[case]
    series = slices(HU)
    spoil(series)
    write(tmp_path / "ct", series)
    named = NAMED.replace("8 slices", f"{len(series)} slice{'s' if len(series) > 1 else ''}")
    colon = " " if message.startswith(("is ", "holds ")) else ": "
    assert refusal(tmp_path / "ct") == f"{tmp_path}/ct: {named}{colon}{message}"


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg 2000", "jpeg-ls", "jpeg lossless"])
def test_a_file_cut_short_is_named(tmp_path, syntax):
    folder = write(tmp_path / "ct", slices(HU), syntax=syntax)
    whole = (folder / "IM0020").read_bytes()
    (folder / "IM0020").write_bytes(whole[:-150])
    assert refusal(folder) == (
        f"{folder}: {NAMED}: IM0020 is cut short or damaged: its pixels ({SYNTAXES[syntax].name}) cannot be read; copy "
        f"it again"
    )


def test_a_slice_that_may_be_missing_at_the_end_is_named(tmp_path):
    folder = write(tmp_path / "ct", slices(HU), name="{:04d}.dcm")
    (folder / "0035.dcm").write_bytes(b"")
    named = NAMED.replace("8 slices", "7 slices")
    assert refusal(folder) == (
        f"{folder}: {named}: 0035.dcm beside it cannot be read (an empty file); a slice may be missing: copy it again, "
        f"or take it out"
    )
    (folder / "0035.dcm").write_bytes(b"this is none" * 50)
    assert "0035.dcm beside it cannot be read (not a DICOM file: the mark DICM is missing)" in refusal(folder)


def test_a_syntax_that_nothing_decodes_is_named(tmp_path):
    folder = write(tmp_path / "ct", slices(HU), syntax="jpeg 2000")
    for path in folder.iterdir():
        one = dcmread(path)
        one.file_meta.TransferSyntaxUID = HTJ2KLossless
        one.save_as(path, enforce_file_format=True)
    assert refusal(folder) == (
        f"{folder}: {NAMED}: IM0000 is compressed as 'High-Throughput JPEG 2000 Image Compression (Lossless Only)' "
        f"({HTJ2KLossless}), which cannot be read here; convert the series first, e.g. with 'gdcmconv --raw'"
    )


def test_a_folder_without_a_series_says_what_there_is(tmp_path):
    (tmp_path / "ct").mkdir()
    assert refusal(tmp_path / "ct") == f"{tmp_path}/ct: no DICOM image in this folder"
    assert refusal(tmp_path / "ct", series="1.2") == f"{tmp_path}/ct: no series 1.2 in it; it holds none"
    (tmp_path / "ct" / "a.dcm").write_text("none")
    assert refusal(tmp_path / "ct") == f"{tmp_path}/ct/a.dcm: not a DICOM file: the mark DICM is missing"
    write(tmp_path / "other", slices(HU[:1], series=f"{UID}.3"))
    write(tmp_path / "other", slices(HU, series=f"{UID}.4", Modality="MR"), name="X{}")
    assert refusal(tmp_path / "other") == (
        f"{tmp_path}/other: no axial CT series in it:\n"
        f"  series {UID}.3 ('Portal 2.5', 1 slice) is one slice, which is no volume\n"
        f"  series {UID}.4 ('Portal 2.5', 8 slices) is of modality MR, not CT"
    )
    one = write(tmp_path / "ct2", slices(HU)) / "IM0000"
    assert refusal(one) == f"{one}: one DICOM file; give the folder that holds its series"
