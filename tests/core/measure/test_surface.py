import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from core.measure import nearest as lookup
from core.measure import surface
from core.measure.elements import element_areas, neighbour_codes
from core.measure.nearest import nearest
from core.measure.pair import CasePair
from core.values import LIVER, TUMOUR

SPACING = (2.5, 0.8, 0.7)
SURFACES = ["edge6", "edge18", "element"]


def ball(radius_mm, centre_mm=(0.0, 0.0, 0.0), spacing=SPACING, half_mm=16.0):
    axes = [np.arange(-int(half_mm / s), int(half_mm / s) + 1) * s - c for s, c in zip(spacing, centre_mm, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_mm**2


def box(shape, *slices):
    mask = np.zeros(shape, bool)
    mask[slices] = True
    return mask


def brute(pred, ref, spacing, neighbours):
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2}[neighbours])
    sides = [np.argwhere(m & ~ndimage.binary_erosion(m, structure)) * spacing for m in (pred, ref)]
    apart = np.sqrt(((sides[0][:, None] - sides[1][None]) ** 2).sum(-1))
    forth, back = apart.min(1), apart.min(0)
    both = np.concatenate([forth, back])
    figures = {"assd": both.mean(), "rmsd": np.sqrt((both**2).mean()), "hd": both.max()}
    figures["hd95"] = max(np.percentile(forth, 95), np.percentile(back, 95))
    return {**figures, "nsd": (both <= 1.5).mean()}


def figures(found):
    return {**{name: getattr(found, name)() for name in ("assd", "rmsd", "hd", "hd95")}, "nsd": found.nsd(1.5)}


@pytest.fixture(params=["few points", "lookup", "tree"])
def way(request, monkeypatch):
    """Each way that distances are found by."""
    if request.param != "few points":
        monkeypatch.setattr(lookup, "_FEW", 0)
    if request.param == "tree":
        monkeypatch.setattr(lookup, "_OFFSETS", 1)
    lookup._offsets.cache_clear()
    yield request.param
    lookup._offsets.cache_clear()


@pytest.mark.parametrize("neighbours", [6, 18])
def test_figures_are_those_of_a_plain_rewrite_on_random_masks(neighbours, way):
    rng = np.random.default_rng(neighbours)
    for _ in range(8):
        shape = rng.integers(1, 11, 3)
        pred, ref = (ndimage.gaussian_filter(rng.standard_normal(shape), 0.8) > 0 for _ in range(2))
        if pred.any() and ref.any():
            spacing = rng.choice([0.7, 1.0, 3.0], 3)
            found = surface.between(pred, ref, spacing, f"edge{neighbours}")
            assert figures(found) == pytest.approx(brute(pred, ref, spacing, neighbours), abs=1e-9)


def test_distances_are_those_of_the_distance_transform_to_the_last_bit(way):
    rng = np.random.default_rng(0)
    targets, points = (rng.random((9, 30, 28)) < 0.01 for _ in range(2))
    wanted = ndimage.distance_transform_edt(~targets, sampling=SPACING)[points]
    found = nearest(np.argwhere(points), np.argwhere(targets), SPACING)[0]
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (60.0, 0.7, 0.7), (0.1, 5.0, 40.0)])
def test_stretched_grids_need_no_tree_to_be_exact(spacing, monkeypatch):
    monkeypatch.setattr(lookup, "_FEW", 0)
    rng = np.random.default_rng(1)
    targets = rng.random((6, 20, 20)) < 0.02
    wanted = ndimage.distance_transform_edt(~targets, sampling=spacing)
    found = nearest(np.argwhere(np.ones(targets.shape, bool)), np.argwhere(targets), spacing)[0]
    assert np.array_equal(found, wanted.ravel())


def test_shifted_boxes_have_the_distances_of_their_faces():
    shape = (8, 20, 24)
    ref = box(shape, slice(2, 5), slice(4, 14), slice(5, 15))
    for axis, steps in ((0, 2), (1, 3), (2, 4)):
        found = surface.between(np.roll(ref, steps, axis), ref, SPACING)
        assert found.hd() == pytest.approx(steps * SPACING[axis])
        assert found.nsd(steps * SPACING[axis]) == 1.0
        assert found.nsd(steps * SPACING[axis] - 1e-6) < 1.0
    moved = surface.between(np.roll(ref, (1, 2), (0, 1)), ref, SPACING)
    assert moved.hd() == pytest.approx(math.hypot(2.5, 1.6))


def test_concentric_balls_are_their_radii_apart():
    fine = (0.5, 0.4, 0.4)
    small, large = ball(6.0, spacing=fine, half_mm=10), ball(9.0, spacing=fine, half_mm=10)
    found = surface.between(small, large, fine)
    assert found.assd() == pytest.approx(3.0, abs=0.15)
    assert found.hd() == pytest.approx(3.0, abs=0.6)
    assert found.nsd(2.0) == 0.0
    assert found.nsd(4.0) == 1.0


def test_a_shell_has_two_surfaces_and_its_ball_one():
    fine = (0.5, 0.5, 0.5)
    full, hole = ball(9.0, spacing=fine, half_mm=10), ball(4.0, spacing=fine, half_mm=10)
    shell = full & ~hole
    found = surface.between(shell, full, fine)
    assert found.ref.max() == 0.0  # the ball's surface is the shell's outer one
    outer = (found.pred == 0).sum() / len(found.pred)
    assert outer == pytest.approx(81 / (81 + 16), abs=0.04)
    assert found.hd() == pytest.approx(5.0, abs=0.6)


@pytest.mark.parametrize("definition", SURFACES)
def test_one_voxel_each(definition):
    a, b = np.zeros((2, 5, 9, 9), bool)
    a[1, 2, 3] = b[3, 5, 7] = True
    found = surface.between(a, b, SPACING, definition)
    assert found.hd() == pytest.approx(math.sqrt(5.0**2 + 2.4**2 + 2.8**2))
    same = surface.between(a, a, SPACING, definition)
    assert (same.assd(), same.rmsd(), same.hd(), same.hd95(), same.nsd(0.0)) == (0, 0, 0, 0, 1)


@pytest.mark.parametrize("definition", SURFACES)
def test_masks_at_the_ends_of_the_array_have_the_surface_that_they_have_inside(definition):
    inside = np.pad(box((4, 5, 6), slice(0, 4), slice(0, 5), slice(0, 6)), 3)
    at_end = np.ones((4, 5, 6), bool)
    ours, theirs = surface.points(at_end, SPACING, definition), surface.points(inside, SPACING, definition)
    assert np.array_equal(ours.at + 3, theirs.at)
    if definition == "element":
        assert np.array_equal(ours.areas, theirs.areas)
    else:
        assert len(ours.at) == 4 * 5 * 6 - 2 * 3 * 4


def test_edge18_has_the_voxels_that_touch_the_outside_by_an_edge():
    mask = np.ones((3, 3, 3), bool)
    mask[0, 0, 1] = False  # shares an edge with the middle, no face
    assert not surface.edges(mask, 6)[1, 1, 1]
    assert surface.edges(mask, 18)[1, 1, 1]
    corner = np.ones((3, 3, 3), bool)
    corner[0, 0, 0] = False
    assert not surface.edges(corner, 18)[1, 1, 1]


def test_a_side_without_a_voxel_has_no_distances():
    empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    assert surface.between(empty, full, SPACING) is None
    assert surface.between(full, empty, SPACING, "element") is None


def test_areas_of_elements_are_those_of_a_cut_box_and_close_to_a_balls():
    mask = np.zeros((6, 12, 14), bool)
    mask[1:5, 2:10, 3:13] = True
    (z, y, x), (nz, ny, nx) = SPACING, (3, 7, 9)
    faces = 2 * (ny * nx * y * x + nz * nx * z * x + nz * ny * z * y)
    # Along its edges the box is cut from middle to middle of two voxels, at its corners across three.
    cuts = 4 * (nz * z * math.hypot(y, x) + ny * y * math.hypot(z, x) + nx * x * math.hypot(z, y)) / 2
    corners = 8 * np.linalg.norm([y * x, z * x, z * y]) / 8
    assert surface.points(mask, SPACING, "element").areas.sum() == pytest.approx(faces + cuts + corners)
    fine = (0.5, 0.4, 0.4)
    area = surface.points(ball(9.0, spacing=fine, half_mm=10), fine, "element").areas.sum()
    assert area == pytest.approx(4 * math.pi * 81, rel=0.1)


def test_areas_by_hand():
    areas = element_areas((2.0, 3.0, 4.0))
    assert areas[0] == areas[255] == 0
    # Corners are numbered z, y, x: the first four are one z, so a flat piece of y * x.
    assert areas[0b00001111] == areas[0b11110000] == pytest.approx(12.0)
    assert areas[0b01010101] == pytest.approx(6.0)
    corner = np.linalg.norm(np.cross([-1.0, 1.5, 0.0], [-1.0, 0.0, 2.0])) / 2
    assert areas[1] == areas[254] == pytest.approx(corner)
    assert areas[0b10000001] == pytest.approx(2 * corner)
    assert np.array_equal(areas, areas[::-1])


def test_codes_have_a_bit_for_each_voxel_around_a_corner():
    mask = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    padded, codes = np.pad(mask, 1), neighbour_codes(mask)
    for z, y, x in np.ndindex(codes.shape):
        cube = padded[z : z + 2, y : y + 2, x : x + 2].ravel()
        assert codes[z, y, x] == sum(int(bit) << i for i, bit in enumerate(cube))


def test_element_figures_are_weighted_by_area():
    pred, ref = np.array([0.0, 1.0, 3.0]), np.array([2.0, 2.0])
    found = surface.Distances(pred, ref, np.array([1.0, 1.0, 2.0]), np.array([3.0, 1.0]))
    assert found.assd() == pytest.approx((1 + 6 + 8) / 8)
    assert found.rmsd() == pytest.approx(math.sqrt((1 + 18 + 16) / 8))
    assert found.nsd(1.0) == pytest.approx(2 / 8)
    assert found.hd95() == 3.0
    tail = surface.Distances(pred, ref, np.array([97.0, 1.0, 2.0]), np.array([3.0, 1.0]))
    assert tail.hd95() == 2.0  # the prediction's is 0, since 97 % of its area is at 0


masks = hnp.arrays(bool, st.tuples(*[st.integers(1, 6)] * 3))


@settings(max_examples=25, deadline=None)
@given(masks, st.data())
def test_distances_are_symmetric_and_bounded_and_the_nsd_rises_with_the_tolerance(pred, data):
    ref = data.draw(hnp.arrays(bool, pred.shape))
    definition = data.draw(st.sampled_from(SURFACES))
    forth, back = (surface.between(a, b, SPACING, definition) for a, b in ((pred, ref), (ref, pred)))
    if not pred.any() or not ref.any():
        assert forth is None
        return
    assert figures(forth) == pytest.approx(figures(back))
    diagonal = np.linalg.norm(np.multiply(pred.shape, SPACING))
    assert 0 <= forth.assd() <= forth.rmsd() + 1e-9 <= forth.hd() + 2e-9 <= diagonal
    assert forth.hd95() <= forth.hd()
    shares = [forth.nsd(tolerance) for tolerance in (0.0, 0.7, 1.0, 2.5, diagonal)]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def case(pred, ref, **more):
    labels = [np.where(mask, TUMOUR, LIVER).astype(np.uint8) for mask in (pred, ref)]
    return CasePair("a", *labels, SPACING, **more)


@pytest.mark.parametrize(("empty", "length"), [("lits", None), ("nan", None), ("worst", "diagonal")])
def test_one_empty_side_is_never_better_than_a_bad_one(empty, length):
    none, some = np.zeros((4, 6, 6), bool), box((4, 6, 6), slice(1, 3), slice(1, 4), slice(1, 4))
    wanted = None if length is None else pytest.approx(math.sqrt(10.0**2 + 4.8**2 + 4.2**2))
    for pred, ref in ((none, some), (some, none)):
        found = surface.figures(case(pred, ref), "tumour", empty=empty)
        assert [found[name] for name in surface.DISTANCES] == [wanted] * 4
        assert [found[f"nsd_{t}mm"] for t in (1, 2, 3)] == [0.0] * 3


@pytest.mark.parametrize(("empty", "share"), [("lits", 1.0), ("nan", None), ("worst", 1.0)])
def test_two_empty_sides_have_no_distances(empty, share):
    none = np.zeros((4, 6, 6), bool)
    found = surface.figures(case(none, none), "tumour", tolerances_mm=(2.5,), empty=empty)
    assert found == {**dict.fromkeys(surface.DISTANCES), "nsd_2.5mm": share}


def test_nothing_in_mm_without_a_trusted_spacing():
    some = box((4, 6, 6), slice(1, 3), slice(1, 4), slice(1, 4))
    found = surface.figures(case(some, some, spacing_trusted=False), "liver", empty="worst")
    assert set(found.values()) == {None}


def test_a_pair_finds_its_distances_once():
    some = box((4, 6, 6), slice(1, 3), slice(1, 4), slice(1, 4))
    pair = case(some, np.roll(some, 1, 2))
    assert surface.of_pair(pair, "tumour") is surface.of_pair(pair, "tumour")
    assert surface.of_pair(pair, "tumour").hd() == pytest.approx(0.7)
    assert surface.of_pair(pair, "tumour", "edge18") is not surface.of_pair(pair, "tumour")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="unknown surface 'edge26', known: edge6, edge18, element"):
        surface.points(np.ones((2, 2, 2), bool), SPACING, "edge26")
    with pytest.raises(ValueError, match=r"tolerances_mm must be one or more numbers of 0 mm or more, got \[1, -2\]"):
        surface.check_tolerances([1, -2])
    with pytest.raises(ValueError, match=r"tolerances_mm must differ, got \[1, 1.0\]"):
        surface.check_tolerances([1, 1.0])
