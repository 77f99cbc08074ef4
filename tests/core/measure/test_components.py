import numpy as np
import pytest
from scipy import ndimage

from core.measure.components import bounding_box, find_components


def mask():
    out = np.zeros((5, 8, 9), bool)
    out[1, 2, 3] = out[2, 3, 4] = True  # touch by a corner
    out[4, 6, 1:4] = True
    return out


@pytest.mark.parametrize(("connectivity", "sizes"), [(26, [2, 3]), (18, [1, 1, 3]), (6, [1, 1, 3])])
def test_components_and_sizes(connectivity, sizes):
    found = find_components(mask(), connectivity)
    assert sorted(found.sizes[1:].tolist()) == sizes
    assert found.count == len(sizes)
    assert found.sizes[0] == 0
    assert found.box == (slice(1, 5), slice(2, 7), slice(1, 5))
    assert ((found.ids > 0) == mask()[found.box]).all()
    for component in range(1, found.count + 1):
        assert (found.ids == component).sum() == found.sizes[component]


def test_an_empty_mask_has_no_component():
    found = find_components(np.zeros((3, 4, 5), bool))
    assert (found.count, found.ids.size, found.sizes.tolist()) == (0, 0, [0])


def test_a_full_mask_is_one_component():
    found = find_components(np.ones((2, 3, 4), bool))
    assert found.sizes.tolist() == [0, 24]


def test_bounding_box_takes_planes_one_after_the_other():
    planes = (plane for plane in mask())
    assert bounding_box(planes, mask().shape) == (slice(1, 5), slice(2, 7), slice(1, 5))
    assert bounding_box(np.zeros((2, 3, 4)), (2, 3, 4)) == (slice(0, 0),) * 3


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 7, 1), (5, 1, 1), (1, 1, 1), (1, 3, 3)])
def test_single_rows_of_voxels_have_components_too(shape):
    mask = (np.arange(np.prod(shape)) % 2 == 0).reshape(shape)
    wanted, count = ndimage.label(mask, np.ones((3, 3, 3)))
    found = find_components(np.pad(mask, 2))
    assert found.count == count
    assert np.array_equal(found.ids > 0, wanted > 0)
    assert found.sizes[1:].sum() == mask.sum()
