"""Every way in which a file may lie in space: stored in one orientation, and mapped back voxel by voxel."""

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from core.contracts import Case
from core.data.prepare import prepare
from core.data.store import Store
from core.data.volume import to_native, write_labels
from core.types import Prediction

SHAPE = (11, 9, 7)  # three lengths, so that no two axes can be taken for each other
SPACING = (0.7, 1.1, 2.5)
PAIRS = (("L", "R"), ("P", "A"), ("S", "I"))
CODES = [
    "".join(PAIRS[axis][side] for axis, side in zip(order, sides, strict=True))
    for order in itertools.permutations(range(3))
    for sides in itertools.product((0, 1), repeat=3)
]


class Listed:
    def __init__(self, cases):
        self._cases = cases

    def cases(self):
        return self._cases


def scan(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16)


def labels(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.uint8)


def affine_of(codes, spacing=SPACING, rotation=None):
    """An affine whose axes point where the codes say, up to a rotation of the patient."""
    out = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, code in enumerate(codes):
        world = next(i for i, pair in enumerate(PAIRS) if code in pair)
        out[world, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    if rotation is not None:
        out[:3, :3] = rotation @ out[:3, :3]
    out[:3, 3] = -31.5, 47.25, -812.5
    return out


def turned(degrees):
    """A rotation by three angles."""
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


def save(path, array, affine, forms="both"):
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1 if forms in ("both", "sform") else 0)
    image.set_qform(affine, code=1 if forms in ("both", "qform") else 0)
    nib.save(image, path)


def stored(folder, files, **settings):
    """The store of these (image, label) files; nothing may be refused."""
    cases = [Case(f"c-{i}", f"p-{i}", image, label) for i, (image, label) in enumerate(files)]
    report = prepare(Listed(cases), folder / "store", workers=1, source_config={"name": "test"}, **settings)
    assert report.bad == []
    return Store(folder / "store")


def canonical(path):
    """Voxels [Z, Y, X] and affine in LPS, by nibabel alone: to RAS, then two axes flipped."""
    ras = nib.as_closest_canonical(nib.load(path))
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    flip[:2, 3] = np.array(ras.shape[:2]) - 1
    return np.asanyarray(ras.dataobj)[::-1, ::-1].T, ras.affine @ flip


def assert_there_and_back(store, case, image, label):
    """The stored arrays are nibabel's, and the label goes back onto the scan's grid, its header bit by bit."""
    array, affine = canonical(image)
    volume = store.volume(case)
    assert np.array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert nib.aff2axcodes(volume.affine) == ("L", "P", "S")
    out = store.path(case).with_name(f"{case}-back.nii")
    write_labels(out, store.reference(case), volume.native)
    here, back = nib.load(image), nib.load(out)
    assert back.shape == here.shape
    assert np.array_equal(back.affine, here.affine)
    for field in ("qform_code", "sform_code", "pixdim", "xyzt_units", "srow_x", "srow_y", "srow_z"):
        assert np.array_equal(back.header[field], here.header[field]), field
    theirs = nib.load(label)
    turn = ornt_transform(io_orientation(theirs.affine), io_orientation(here.affine))
    assert np.array_equal(np.asanyarray(back.dataobj), apply_orientation(np.asanyarray(theirs.dataobj), turn))
    assert np.array_equal(to_native(store.reference(case), volume.native), np.asanyarray(back.dataobj))


def in_other_code(array, affine, codes):
    """The same voxels in space, with the file's axes in another order and direction."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    return apply_orientation(array, turn), affine @ inv_ornt_aff(turn, array.shape)


def test_there_are_48_codes():
    assert len(set(CODES)) == 48
    assert all(nib.aff2axcodes(affine_of(code)) == tuple(code) for code in CODES)


def test_all_48_codes_go_there_and_back(tmp_path):
    files = []
    for i, code in enumerate(CODES):
        image, label = tmp_path / f"{code}.nii", tmp_path / f"{code}-label.nii"
        save(image, scan(i), affine_of(code))
        save(label, labels(i), affine_of(code))
        files.append((image, label))
    store = stored(tmp_path, files)
    for case, pair in zip(store.cases, files, strict=True):
        assert_there_and_back(store, case, *pair)


def test_label_in_any_of_the_48_codes_over_a_scan_in_another(tmp_path):
    files = []
    for i, code in enumerate(CODES):
        affine = affine_of(CODES[(7 * i + 5) % 48])
        image, label = tmp_path / f"{code}.nii", tmp_path / f"{code}-label.nii"
        save(image, scan(i), affine)
        save(label, *in_other_code(labels(i), affine, code))
        files.append((image, label))
    store = stored(tmp_path, files)
    for case, pair in zip(store.cases, files, strict=True):
        assert_there_and_back(store, case, *pair)


@pytest.mark.parametrize("forms", ["both", "sform", "qform"])
def test_oblique_scans_by_sform_or_qform_alone(tmp_path, forms):
    files = []
    for i, (code, degrees) in enumerate(
        [("LPS", (8, -5, 3)), ("RAS", (-20, 12, 30)), ("SAL", (44, 0, 0)), ("PIR", (0, 30, -25)), ("ARI", (5, 5, 40))]
    ):
        affine = affine_of(code, rotation=turned(degrees))
        image, label = tmp_path / f"{i}.nii.gz", tmp_path / f"{i}-label.nii.gz"
        save(image, scan(i), affine, forms)
        save(label, *in_other_code(labels(i), affine, CODES[5 * i]), forms)
        files.append((image, label))
    store = stored(tmp_path, files)
    for case, pair in zip(store.cases, files, strict=True):
        assert_there_and_back(store, case, *pair)
        assert store.info(case).spacing_trusted


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(code="LPS", other="LPS", degrees=(0, 0, 0), spacing=(1.0, 1.0, 1.0), shape=(1, 1, 3), seed=44)
@given(
    code=st.sampled_from(CODES),
    other=st.sampled_from(CODES),
    degrees=st.tuples(*[st.integers(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.25, 6, width=32)] * 3),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    seed=st.integers(0, 2**31),
)
def test_any_grid_goes_there_and_back(tmp_path_factory, code, other, degrees, spacing, shape, seed):
    folder = tmp_path_factory.mktemp("any")
    affine = affine_of(code, spacing, turned(degrees))
    image = scan(seed, shape)
    image.flat[0], image.flat[-1] = -1000, 400 if image.size > 1 else -1000
    files = (folder / "image.nii", folder / "label.nii")
    save(files[0], image, affine)
    save(files[1], *in_other_code(labels(seed, shape), affine, other))
    store = stored(folder, [files])
    assert_there_and_back(store, "c-0", *files)


def trunk():
    """A body in air, an ellipsoid as liver, a ball as tumour: HU, labels, LPS affine, centre and radii in mm."""
    shape, spacing = (44, 40, 18), np.array([2.0, 2.0, 4.0])
    affine = affine_of("LPS", spacing)
    at = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * spacing
    centre, radii = np.array([40.0, 42.0, 34.0]), np.array([22.0, 18.0, 20.0])
    hu = np.full(shape, -1000, np.int16)
    hu[(((at - (44, 42, 0)) / (34, 32, 1e9)) ** 2).sum(-1) <= 1] = 40
    hu[40:, :2] = 300  # a table, far from the body
    label = ((((at - centre) / radii) ** 2).sum(-1) <= 1).astype(np.uint8)
    label[((at - centre - (4, 0, 2)) ** 2).sum(-1) <= 8**2] = 2
    hu[label > 0] = 110
    hu += np.random.default_rng(0).integers(-9, 10, shape).astype(np.int16)
    return hu, label, affine, centre, radii


def stored_in_codes(folder, codes, **settings):
    """The trunk, saved with its axes in each of the codes, and stored."""
    hu, label, affine, *_ = trunk()
    files = []
    for code in codes:
        image, mask = folder / f"{code}.nii", folder / f"{code}-label.nii"
        hu += 1  # or they would be one scan under several names
        array, own = in_other_code(hu, affine, code)
        save(image, array, own)
        save(mask, *in_other_code(label, affine, code))
        files.append((image, mask))
    return stored(folder, files, **settings), files


def dice(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_cropped_to_the_body_and_back_is_exact_in_every_code(tmp_path):
    hu, label, *_ = trunk()
    store, files = stored_in_codes(tmp_path, CODES[::5], crop="body", margin_mm=4)
    for case, (image, mask) in zip(store.cases, files, strict=True):
        grid, volume = store.grid(case), store.volume(case)
        assert not grid.resamples
        assert volume.array.size < 0.85 * hu.size
        array, whole = canonical(image)
        assert np.array_equal(volume.array, array[grid.inside])
        corner = np.array([b[0] for b in grid.box[::-1]] + [1])
        np.testing.assert_allclose(volume.affine[:, 3], whole @ corner, atol=1e-4)
        back = grid.back(Prediction(store.label(case)))
        assert np.array_equal(back.labels, label.T)
        assert np.array_equal(to_native(back.labels, volume.native), np.asanyarray(nib.load(mask).dataobj))
        assert_there_and_back_labels(store, case, mask)


def assert_there_and_back_labels(store, case, mask):
    out = store.path(case).with_name(f"{case}-back.nii")
    write_labels(out, store.reference(case), store.volume(case).native)
    assert np.array_equal(np.asanyarray(nib.load(out).dataobj), np.asanyarray(nib.load(mask).dataobj))
    assert np.array_equal(nib.load(out).affine, nib.load(mask).affine)


@pytest.mark.parametrize(
    ("spacing", "liver", "tumour"),
    [((None, 3.0, 3.0), 0.95, 0.88), ((6.0, 2.5, 3.5), 0.94, 0.82), ((2.0, 1.0, 1.0), 0.99, 0.97)],
)
def test_resampled_and_back_keeps_place_and_size_in_every_code(tmp_path, spacing, liver, tumour):
    _, label, affine, centre, radii = trunk()
    store, files = stored_in_codes(tmp_path, ["LPS", "RAI", "SLA", "PIR"], spacing=spacing)
    first = store.label(store.cases[0])
    for case, (_, mask) in zip(store.cases, files, strict=True):
        volume, stored_label = store.volume(case), store.label(case)
        # LPS comes out of every code, so whatever is done to it is done alike.
        assert np.array_equal(stored_label, first)
        sizes = [w or s for w, s in zip(spacing, (4.0, 2.0, 2.0), strict=True)]
        np.testing.assert_allclose(store.info(case).spacing_mm, sizes, rtol=0.06)
        # Its centre and volume against the ellipsoid itself, in mm and in the patient's space.
        z, y, x = np.nonzero(stored_label)
        found = volume.affine @ [x.mean(), y.mean(), z.mean(), 1]
        wanted = affine @ [*(centre / (2, 2, 4)), 1]
        assert np.abs(found - wanted)[:3].max() < 0.4
        volume_mm3 = len(z) * np.prod(store.info(case).spacing_mm)
        assert volume_mm3 == pytest.approx(4 / 3 * np.pi * radii.prod(), rel=0.04)
        back = store.grid(case).back(Prediction(stored_label)).labels
        assert back.shape == label.T.shape
        assert dice(back > 0, label.T > 0) > liver
        assert dice(back == 2, label.T == 2) > tumour
        assert_there_and_back_labels(store, case, mask)
