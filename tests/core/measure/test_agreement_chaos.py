"""The scores that CHAOS published for its sample submission, where the scan lies beside the repository."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from core.measure import overlap, surface
from core.measure.nearest import nearest
from core.measure.pair import CasePair

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "chaos_ct3"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real CT at {DATA} (it is never part of the project)")


@pytest.fixture(scope="module")
def pair():
    files = [nib.load(DATA / name) for name in ("liver_sample_submission.nii.gz", "liver_gt.nii.gz")]
    pred, ref = (np.asarray(file.dataobj).astype(np.uint8).transpose(2, 1, 0) for file in files)
    return CasePair("chaos_ct3", pred, ref, [float(s) for s in files[1].header.get_zooms()[::-1]])


def test_dice_and_volume_difference(pair):
    counts = pair.counts("liver")
    assert round(overlap.dice(counts), 3) == 0.978
    assert round(100 * abs(counts.pred - counts.ref) / counts.ref, 3) == 0.665


def test_the_published_distances_are_edge6_where_the_array_s_end_is_no_surface(pair):
    """The liver is cut off by the first slice: CHAOS counts no border there, as if it went on beyond the array."""
    spacing = pair.spacing_mm
    borders = []
    for mask in pair.structure("liver"):
        # The pair's box ends where the liver does; inside the scan there has to be room around it again.
        volume = np.zeros(pair.pred.shape, bool)
        volume[pair.box] = mask
        going_on = np.pad(volume, 1, mode="edge")
        borders.append(np.argwhere(surface.edges(going_on, 6)[1:-1, 1:-1, 1:-1]))
    pred, ref = borders
    apart = surface.Distances(nearest(pred, ref, spacing)[0], nearest(ref, pred, spacing)[0])
    assert round(apart.assd(), 3) == 0.734
    assert apart.hd() == 14
    assert len(pred) < len(surface.points(pair.structure("liver")[0], spacing, "edge6").at)


@pytest.mark.parametrize(("definition", "assd"), [("edge6", 0.713), ("edge18", 0.594), ("element", 0.526)])
def test_hepar_s_own_definitions_on_the_same_pair(pair, definition, assd):
    found = surface.of_pair(pair, "liver", definition)
    assert round(found.assd(), 3) == assd
    assert found.hd() == pytest.approx(14)
