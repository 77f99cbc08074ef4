import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from core import contracts
from core.errors import UserError
from core.infer.geometry import Geometry
from core.values import AIR_HU
from plugins.inferer.sliding_window import SlidingWindow, _starts


class Net(nn.Module):
    """Background below 0 HU, liver to 100, tumour above; each voxel by itself, so that every label is known."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seen = []

    def forward(self, image):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append(image.clone())
        x = image[:, 0].float() * self.scale
        return torch.stack([-x, torch.zeros_like(x), x - 100], dim=1)


class Place(nn.Module):
    """Logits that depend on where in the window a voxel lies, and on the window."""

    def forward(self, image):
        b, _, d, h, w = image.shape
        ramp = torch.arange(d * h * w, dtype=torch.float32).reshape(d, h, w) / (d * h * w)
        x = ramp * image.float().mean(dim=(1, 2, 3, 4)).view(b, 1, 1, 1)
        return torch.stack([x, -x, x * x], dim=1)


def scan(shape=(11, 18, 21)):
    array = np.random.default_rng(0).integers(-200, 400, shape).astype(np.int16)
    return SimpleNamespace(array=array, spacing_mm=(1.0, 1.0, 1.0))


def expected(array):
    return (array > 0).astype(np.uint8) + (array > 100)


def whole_way(network, array, patch, overlap):
    """The same, held in memory whole: sums of weighted logits over sums of weights."""
    pads = [max(0, p - n) for p, n in zip(patch, array.shape, strict=True)]
    before = [-((n - p) // 2) if n < p else 0 for p, n in zip(patch, array.shape, strict=True)]
    around = [(b, p - b) for b, p in zip(before, pads, strict=True)]
    padded = np.pad(array, around, constant_values=AIR_HU)
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in patch]
    weight = torch.from_numpy(axes[0][:, None, None] * axes[1][:, None] * axes[2])
    total, sums = torch.zeros(padded.shape, dtype=torch.float64), torch.zeros((3, *padded.shape), dtype=torch.float64)
    starts = [_starts(n, p, overlap) for n, p in zip(padded.shape, patch, strict=True)]
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                at = (slice(z, z + patch[0]), slice(y, y + patch[1]), slice(x, x + patch[2]))
                sums[(slice(None), *at)] += network(torch.from_numpy(padded[at])[None, None])[0] * weight
                total[at] += weight
    inside = tuple(slice(b, b + n) for b, n in zip(before, array.shape, strict=True))
    return (sums / total)[(slice(None), *inside)]


@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize("patch", [(4, 8, 8), (11, 18, 21), (16, 32, 32), (1, 8, 24)])
def test_labels_lie_on_the_scans_own_grid_whatever_patch_and_batch(patch, batch):
    net, volume = Net(), scan()
    inferer = SlidingWindow(net, Geometry(channels=3), patch=patch, batch=batch)
    assert isinstance(inferer, contracts.Inferer)
    out = inferer(volume)
    assert out.labels.dtype == np.uint8
    assert np.array_equal(out.labels, expected(volume.array))
    assert out.probabilities is None
    assert {tuple(x.shape[1:]) for x in net.seen} == {(1, *patch)}
    assert max(len(x) for x in net.seen) <= batch


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("patch", [(4, 8, 8), (5, 7, 30), (16, 8, 32)])
def test_slabs_give_what_the_whole_volume_in_memory_gives(patch, overlap):
    volume, slabs = scan(), []
    inferer = SlidingWindow(Place(), Geometry(), patch=patch, overlap=overlap)
    out = inferer(volume, probabilities=True, on_logits=lambda logits, block: slabs.append((logits, block)))
    wanted = whole_way(Place(), volume.array, patch, overlap)
    assert [block[0].start for _, block in slabs] == [0, *(block[0].stop for _, block in slabs[:-1])]
    assert slabs[-1][1] == (slice(slabs[-1][1][0].start, 11), slice(0, 18), slice(0, 21))
    logits = torch.cat([logits for logits, _ in slabs], dim=2)[0]
    assert [tuple(x.shape) for x, _ in slabs] == [(1, 3, b[0].stop - b[0].start, 18, 21) for _, b in slabs]
    assert torch.allclose(logits.double(), wanted, rtol=1e-4, atol=1e-3)
    assert np.array_equal(out.labels, logits.numpy().argmax(0))
    assert np.allclose(out.probabilities, torch.softmax(logits, 0).numpy(), atol=1e-3)
    assert out.probabilities.dtype == np.float16


def test_a_small_volume_is_padded_with_air_on_both_sides():
    net, volume = Net(), scan((3, 6, 7))
    SlidingWindow(net, Geometry(), patch=(8, 8, 8))(volume)
    (seen,) = net.seen
    inside = (0, 0, slice(3, 6), slice(1, 7), slice(1, 8))
    assert np.array_equal(seen[inside].numpy(), volume.array)
    seen[inside] = AIR_HU
    assert (seen == AIR_HU).all()


@pytest.mark.parametrize(
    ("length", "size", "overlap", "starts"),
    [
        (10, 10, 0.5, [0]),
        (7, 10, 0.5, [-2]),
        (11, 10, 0.5, [0, 1]),
        (20, 10, 0.5, [0, 5, 10]),
        (21, 10, 0.5, [0, 4, 7, 11]),
        (20, 10, 0.0, [0, 10]),
        (4, 1, 0.9, [0, 1, 2, 3]),
    ],
)
def test_windows_are_spread_evenly_with_at_least_the_overlap(length, size, overlap, starts):
    assert _starts(length, size, overlap) == starts


def test_bf16_logits_are_summed_in_single_precision():
    class Half(Net):
        def forward(self, image):
            return super().forward(image).bfloat16()

    kinds = []
    volume = scan()
    inferer = SlidingWindow(Half(), Geometry(), patch=(4, 8, 8))
    assert np.array_equal(inferer(volume, on_logits=lambda x, _: kinds.append(x.dtype)).labels, expected(volume.array))
    assert set(kinds) == {torch.float32}


def test_the_finest_of_several_logits_is_taken_and_the_mode_is_put_back():
    class Deep(Net):
        def forward(self, image):
            logits = super().forward(image)
            return [logits, logits[..., ::2, ::2, ::2]]

    net, volume = Deep().train(), scan()
    assert np.array_equal(SlidingWindow(net, Geometry(), patch=(4, 8, 8))(volume).labels, expected(volume.array))
    assert net.training


def test_nan_is_an_error_and_not_an_empty_liver():
    net = Net()
    net.scale.data.fill_(float("nan"))
    with pytest.raises(UserError) as error:
        SlidingWindow(net, Geometry(), patch=(4, 8, 8))(scan())
    assert str(error.value) == (
        "the network gives NaN on slices 0 to 1; its weights have diverged, or fp16 overflows "
        "(try train.precision=bf16)"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"patch": (4, 0, 8)}, "patch must be positive, got [4, 0, 8]"),
        ({"overlap": 1.0}, "overlap must be from 0 to below 1, got 1"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
    ],
)
def test_bad_values_are_refused(given, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SlidingWindow(Net(), Geometry(), **given)


def test_neighbours_as_channels_are_refused():
    message = (
        "inferer 'sliding_window' works on volumes: set dataset.context=0 and dataset.size=null (prepare.spacing "
        "resamples)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SlidingWindow(Net(), Geometry(context=1))
