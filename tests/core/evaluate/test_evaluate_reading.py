import gzip

import nibabel as nib
import numpy as np
import pytest

from core.errors import UserError
from core.evaluate.pairing import CaseFiles
from core.evaluate.reading import Rules, parse_labels, read_pair

AFFINE = np.diag([-0.8, 0.9, 3.0, 1.0])
AFFINE[:3, 3] = (12.5, -40.0, 7.0)


def labels(shape=(8, 7, 5)):
    out = np.zeros(shape, np.uint8)
    out[1:6, 1:5, 1:4] = 1
    out[2:4, 2:4, 2] = 2
    return out


def write(path, data, affine=AFFINE):
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


@pytest.fixture
def ref(tmp_path):
    return write(tmp_path / "ref.nii.gz", labels())


def files(ref, pred, **more):
    return CaseFiles("1", "p", ref, pred, **more)


def test_a_pair_lies_on_the_references_grid_however_its_file_is_turned(tmp_path, ref):
    turned = AFFINE @ np.diag([-1.0, 1, 1, 1])
    turned[:3, 3] += AFFINE[:3, 0] * 7
    pred = write(tmp_path / "pred.nii", labels()[::-1].astype(np.float32), turned)
    checked = read_pair(files(ref, pred), Rules())
    assert (checked.problems, checked.doubt) == ([], "")
    assert np.array_equal(checked.pair.pred, checked.pair.reference)
    assert checked.pair.spacing_mm == pytest.approx((3.0, 0.9, 0.8))
    assert (checked.pair.patient, checked.pair.spacing_trusted) == ("p", True)


def test_all_that_is_wrong_with_a_case_is_said_with_what_to_do(tmp_path, ref):
    pred = tmp_path / "pred.nii.gz"
    moved = AFFINE.copy()
    moved[2, 3] += 0.01

    def said(rules=None, **more):
        return read_pair(files(ref, pred, **more), rules or Rules()).problems

    write(pred, labels((8, 7, 4)))
    assert said() == [
        f"case '1': {pred}: shape (4, 7, 8) [Z,Y,X], the reference has (5, 7, 8) ({ref}); "
        "resample it onto the reference's grid"
    ]
    write(pred, labels(), moved)
    assert said() == [
        f"case '1': {pred}: its affine differs from the reference's by up to 0.01 (allowed: 0.001) ({ref}); "
        "resample it onto the reference's grid, or, if only its header is wrong, --allow affine"
    ]
    write(pred, labels() + np.uint8(1))
    assert said() == [
        f"case '1': {pred}: labels must be 0 (background), 1 (liver) and 2 (tumour); it also holds 3; "
        "say what they mean with --labels liver=VALUE,tumour=VALUE"
    ]
    raw = bytearray(gzip.decompress(write(pred, labels()).read_bytes()))
    raw[280:284] = np.float32(np.nan).tobytes()  # srow_x[0]
    pred.write_bytes(gzip.compress(raw))
    (text,) = said()
    assert text.startswith(f"case '1': {pred}: the affine is not usable (zero or non-finite spacing)")
    whole = write(tmp_path / "whole.nii.gz", np.random.default_rng(0).integers(0, 3, (30, 30, 30), np.uint8))
    pred.write_bytes(whole.read_bytes()[:1500])
    (text,) = said()
    assert text.startswith(f"case '1': {pred}: unreadable or cut short (")
    scan = write(tmp_path / "scan.nii.gz", np.full((8, 7, 4), -1000, np.int16))
    write(pred, labels())
    assert said(image=scan) == [
        f"case '1': {scan}: all intensities lie within [-1000, -1000]: normalised or empty, not HU"
    ] or said(image=scan) == [f"case '1': {scan}: shape (4, 7, 8) [Z,Y,X], the reference has (5, 7, 8) ({ref})"]
    assert said(Rules(images=True)) == [f"case '1': no scan for {ref}; add it, or do without it with --allow image"]


def test_a_missing_prediction_is_an_error_or_a_blank_one(ref):
    assert read_pair(files(ref, None), Rules()).problems == [
        f"case '1': no prediction for {ref}; add it, or let it count as missed with --allow missing"
    ]
    checked = read_pair(files(ref, None), Rules(frozenset({"missing"})))
    assert checked.allowed == ["missing"]
    assert not checked.pair.pred.any()


def test_what_is_let_through_is_said(tmp_path, ref):
    pred = write(tmp_path / "pred.nii.gz", labels(), np.eye(4))
    checked = read_pair(files(ref, pred), Rules(frozenset({"affine"})))
    assert checked.allowed == ["affine"]
    assert np.array_equal(checked.pair.pred, checked.pair.reference)
    write(pred, labels() * np.uint8(2))
    checked = read_pair(files(ref, pred), Rules(frozenset({"labels"})))
    assert checked.allowed == ["labels"]
    assert checked.pair.pred.max() == 2
    assert (checked.pair.pred == 2).sum() == (labels() == 1).sum()


def test_values_get_their_meaning_and_those_without_one_are_named(tmp_path, ref):
    pred = write(tmp_path / "pred.nii.gz", np.array([0, 5, 7], np.uint8)[labels()])
    rules = Rules(pred_labels=parse_labels("liver=5, tumour=7"))
    checked = read_pair(files(ref, pred), rules)
    assert np.array_equal(checked.pair.pred, checked.pair.reference)
    checked = read_pair(files(ref, pred), Rules(pred_labels=parse_labels("liver=5")))
    assert checked.problems == [
        f"case '1': {pred}: --labels does not say what 7 means; name it (background=VALUE too), or make background of "
        "it with --allow labels"
    ]
    assert parse_labels("liver=1,liver=3,tumor=2,background=9") == {1: 1, 3: 1, 2: 2, 9: 0}
    for text, said in (
        ("lung=1", "--labels: want liver=VALUE,tumour=VALUE (also background=VALUE), got 'lung=1'"),
        ("liver=1,tumour=1", "--labels: the value 1 has two meanings in 'liver=1,tumour=1'"),
        ("background=3", "--labels: 'background=3' gives neither liver nor tumour a value"),
    ):
        with pytest.raises(UserError) as error:
            parse_labels(text)
        assert str(error.value) == said


def test_lits_53_is_mended_as_prepare_mends_it(tmp_path):
    ref = write(tmp_path / "ref.nii", labels(), np.eye(4))
    pred = write(tmp_path / "pred.nii", labels())
    known = {"repairs": ("label_affine",)}
    checked = read_pair(files(ref, pred, **known), Rules())
    assert checked.repairs == ["the reference's affine, replaced by the prediction's"]
    assert np.array_equal(checked.pair.pred, checked.pair.reference)
    assert checked.pair.spacing_trusted
    assert checked.pair.spacing_mm == pytest.approx((3.0, 0.9, 0.8))
    assert len(read_pair(files(ref, pred), Rules()).problems) == 1


def test_spacing_that_cannot_be_trusted_leaves_mm_empty_unless_it_is_let_through(tmp_path):
    ref, pred = (write(tmp_path / f"{name}.nii", labels(), np.eye(4)) for name in ("ref", "pred"))
    checked = read_pair(files(ref, pred), Rules())
    assert checked.doubt == "the affine is the identity (1 mm, no origin): spacing and orientation cannot be trusted"
    assert not checked.pair.spacing_trusted
    checked = read_pair(files(ref, pred), Rules(frozenset({"spacing"})))
    assert checked.pair.spacing_trusted
    assert checked.allowed == ["spacing"]
    good = write(tmp_path / "good.nii", labels())
    checked = read_pair(files(good, good, doubt="LiTS copied it"), Rules())
    assert (checked.doubt, checked.pair.spacing_trusted) == ("LiTS copied it", False)


def test_one_slice_and_empty_masks_are_measured(tmp_path):
    ref = write(tmp_path / "ref.nii", np.zeros((6, 5, 1), np.uint8))
    checked = read_pair(files(ref, ref), Rules())
    assert checked.pair.pred.shape == (1, 5, 6)
    assert not checked.problems
