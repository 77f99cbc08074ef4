"""Where the checks' borders lie; what they say to whole files is in tests/spoilt."""

import numpy as np
import pytest

from core.data.checks import HuCheck, geometry_note

GOOD = np.diag([-0.7, -0.7, 2.5, 1.0])
GOOD[:3, 3] = 10, 20, 30


def header(pixdim=(0.7, 0.7, 2.5), qform=1, sform=1):
    return {"pixdim": np.array([1, *pixdim, 0, 0, 0, 0], np.float32), "qform_code": qform, "sform_code": sform}


def tilted(degrees):
    out = GOOD.copy()
    out[1, 2] = -2.5 * np.sin(np.deg2rad(degrees))
    out[2, 2] = 2.5 * np.cos(np.deg2rad(degrees))
    return out


def test_good_grids_are_trusted():
    assert geometry_note(GOOD, header()) is None
    assert geometry_note(GOOD.astype(np.float32), header(), (2.5, 0.7, 0.7)) is None
    assert geometry_note(GOOD, {}) is None
    assert geometry_note(GOOD, header(sform=0)) is None
    assert geometry_note(GOOD, header((-0.7, -0.7, -2.5))) is None  # the sform holds
    isotropic = np.eye(4)
    isotropic[:3, 3] = -120, 80, 5
    assert geometry_note(isotropic, {}) is None  # 1 mm, but with an origin


def test_a_tilt_counts_from_half_a_degree_on():
    assert geometry_note(tilted(0.4), header()) is None
    assert geometry_note(tilted(-0.6), header()) == (
        "the axes meet at 89.4 degrees, not at right angles (a tilted gantry, or a registration): mm would be wrong "
        "along them, the spacing cannot be trusted"
    )


def test_oblique_but_rectangular_is_no_tilt():
    a = np.deg2rad(33)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    assert geometry_note((turn @ GOOD).astype(np.float32), header()) is None


def test_two_spacings_count_from_a_hundredth_on():
    assert geometry_note(GOOD, header((0.7, 0.706, 2.5))) is None
    assert geometry_note(GOOD, header((0.7, 0.7, 5))) == (
        "the header gives two spacings, 0.7 x 0.7 x 5 (pixdim) and 0.7 x 0.7 x 2.5 (sform): the spacing cannot be "
        "trusted"
    )


@pytest.mark.parametrize("spacing", [(0.05, 0.7, 0.7), (2.5, 0.7, 25)])
def test_voxels_that_are_no_cts(spacing):
    shown = " x ".join(f"{s:g}" for s in sorted(spacing))
    assert geometry_note(GOOD, header(), spacing) == (
        f"voxels of {shown} mm are not a CT's (wrong unit, or a wrong affine): the spacing cannot be trusted"
    )


def hu(low, bright):
    """A scan with that least value and that share of voxels at 1060."""
    out = np.full(1000, -900 if low < 0 else 24, np.int16)
    out[: int(1000 * bright)] = 1060
    out[-1] = low
    check = HuCheck()
    check.add(out)
    return check.complaint()


def test_missing_intercept_is_told_from_bone_and_metal():
    said = "look like HU + 1024: the rescale intercept is missing"
    assert hu(0, 0.16) == f"intensities within [0, 1060] {said}"
    assert hu(0, 0.14) is None
    assert hu(-2000, 0.26) == f"intensities within [-2000, 1060] {said}"
    assert hu(-2000, 0.24) is None
    assert hu(-1024, 0.5) is None  # air is where it should be
