from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import registry
from core import contracts
from core.errors import UserError
from core.infer.geometry import Geometry

registry.discover("plugins")


class Net(nn.Module):
    """Background below 0 HU, liver to 100, tumour above; convolution-free, so that every voxel is known."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.BatchNorm2d(3).eval()
        self.shapes = []

    def forward(self, image):
        assert not self.training
        assert not torch.is_grad_enabled()
        self.shapes.append(tuple(image.shape))
        x = image[:, image.shape[1] // 2].float() * self.scale
        return torch.stack([-x, torch.zeros_like(x), x - 100], dim=1)


def volume(shape=(7, 10, 12), seed=0):
    array = np.random.default_rng(seed).integers(-200, 400, shape).astype(np.int16)
    return SimpleNamespace(array=array, spacing_mm=(1.0, 1.0, 1.0))


def expected(array):
    return ((array > 0).astype(np.uint8) + (array > 100)).astype(np.uint8)


def build(network, geometry, **arguments):
    return registry.get("inferer", "slices").target(network, geometry, **arguments)


@pytest.mark.parametrize("batch", [1, 3, 7, 16])
def test_labels_lie_on_the_scans_own_grid_whatever_the_batch(batch):
    net, scan = Net(), volume()
    inferer = build(net, Geometry(divisor=8), batch=batch)
    assert isinstance(inferer, contracts.Inferer)
    out = inferer(scan)
    assert out.labels.dtype == np.uint8
    assert (out.labels == expected(scan.array)).all()
    assert out.probabilities is None
    assert max(shape[0] for shape in net.shapes) <= batch
    assert {shape[1:] for shape in net.shapes} == {(1, 16, 16)}


def test_neighbours_are_channels_and_the_ends_are_repeated():
    class Keep(Net):
        def forward(self, image):
            self.images = [*getattr(self, "images", []), image.clone()]
            return super().forward(image)

    net, scan = Keep(), volume()
    geometry = Geometry(context=2, divisor=1)
    assert (build(net, geometry, batch=3)(scan).labels == expected(scan.array)).all()
    stacks = torch.cat(net.images).numpy()
    for z, stack in enumerate(stacks):
        assert (stack == scan.array[geometry.neighbours(z, 7)]).all()


def test_equal_logits_give_the_lower_label_and_labels_equal_argmax():
    class Ties(nn.Module):
        def forward(self, image):
            generator = torch.Generator().manual_seed(0)
            return torch.randint(0, 2, (len(image), 3, *image.shape[2:]), generator=generator).bfloat16()

    scan = volume((4, 8, 8))
    labels = build(Ties(), Geometry(divisor=1))(scan).labels
    logits = Ties()(torch.zeros(4, 1, 8, 8))
    assert (labels == logits.float().numpy().argmax(axis=1)).all()
    assert set(np.unique(labels)) == {0, 1, 2}


def test_logits_come_with_their_block_of_the_networks_grid():
    scan, geometry, seen = volume((5, 10, 12)), Geometry(divisor=8), []

    def on_logits(logits, block):
        seen.append((tuple(logits.shape), block))

    build(Net(), geometry, batch=2)(scan, on_logits=on_logits)
    assert [block[0] for _, block in seen] == [slice(0, 2), slice(2, 4), slice(4, 5)]
    label = geometry.label(np.zeros(scan.array.shape, np.uint8))
    for shape, block in seen:
        assert shape == (block[0].stop - block[0].start, 3, 16, 16)
        assert label[block].shape == (shape[0], 16, 16)


def test_probabilities_are_softmax_in_half_precision():
    scan = volume()
    out = build(Net(), Geometry(divisor=8), batch=3)(scan, probabilities=True)
    assert out.probabilities.shape == (3, *scan.array.shape)
    assert out.probabilities.dtype == np.float16
    assert np.abs(out.probabilities.astype(np.float32).sum(axis=0) - 1).max() < 2e-3
    assert (out.probabilities.argmax(axis=0) == out.labels).mean() > 0.99


def test_resampled_slices_come_back_to_their_own_size():
    y, x = np.mgrid[:40, :60]
    blob = np.where((y - 20) ** 2 + (x - 30) ** 2 < 144, 50, -50)
    scan = SimpleNamespace(array=np.stack([blob] * 3).astype(np.int16), spacing_mm=(1.0, 1.0, 1.0))
    labels = build(Net(), Geometry(size=32, divisor=32))(scan).labels
    assert labels.shape == scan.array.shape
    assert np.count_nonzero((labels == 1) != (scan.array == 50)) < 0.1 * np.count_nonzero(scan.array == 50)


def test_bf16_autocast_of_the_caller_is_used():
    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 1)
            self.dtype = None

        def forward(self, image):
            out = self.conv(image.float())
            self.dtype = out.dtype
            return out

    net = Conv()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        build(net, Geometry(size=8, divisor=8))(volume())
    assert net.dtype == torch.bfloat16


def test_the_finest_of_several_logits_is_taken():
    class Deep(Net):
        def forward(self, image):
            logits = super().forward(image)
            return [logits, logits[..., ::2, ::2]]

    scan = volume()
    assert (build(Deep(), Geometry(divisor=2))(scan).labels == expected(scan.array)).all()


def test_the_networks_mode_is_put_back_module_by_module():
    net = Net().train()
    net.frozen.eval()
    build(net, Geometry(divisor=1))(volume())
    assert net.training
    assert not net.frozen.training
    net.scale.data.fill_(float("nan"))
    with pytest.raises(UserError):
        build(net, Geometry(divisor=1))(volume())
    assert net.training


def test_nan_is_an_error_and_not_an_empty_liver():
    net = Net()
    net.scale.data.fill_(float("nan"))
    with pytest.raises(UserError) as error:
        build(net, Geometry(divisor=1), batch=4)(volume())
    assert str(error.value) == (
        "the network gives NaN on slices 0 to 3; its weights have diverged, or fp16 overflows "
        "(try train.precision=bf16)"
    )


def test_a_batch_below_one_is_refused():
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        build(Net(), Geometry(), batch=0)


class Seen(Net):
    def forward(self, image):
        self.images = [*getattr(self, "images", []), image.clone()]
        return super().forward(image)


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_neighbours_may_lie_at_a_distance_in_mm_and_be_mirrored(batch):
    net, scan = Seen(), volume((9, 8, 8))
    scan.spacing_mm = (2.0, 1.0, 1.0)
    scan.native = SimpleNamespace(affine=np.diag([0.8, 0.8, 2, 1]), header={})
    geometry = Geometry(context=2, context_mm=3.0, ends="mirror", divisor=1)
    assert (build(net, geometry, batch=batch)(scan).labels == expected(scan.array)).all()
    stacks = torch.cat(net.images).numpy()
    assert (stacks[0] == scan.array[[3, 2, 0, 2, 3]]).all()  # 1.5 and 3 slices away
    assert (stacks[4] == scan.array[[1, 2, 4, 6, 7]]).all()
    assert (stacks[8] == scan.array[[5, 6, 8, 6, 5]]).all()


def test_a_scan_whose_spacing_cannot_be_trusted_is_refused_where_mm_count():
    scan = volume()
    scan.native = SimpleNamespace(affine=np.eye(4), header={})
    assert build(Net(), Geometry(context=1, divisor=1))(scan).labels.any()
    with pytest.raises(UserError) as error:
        build(Net(), Geometry(context=1, context_mm=3.0, divisor=1))(scan)
    assert str(error.value) == (
        "this scan: its spacing cannot be trusted, so no slice is known to be 3 mm away (context_mm); set "
        "dataset.context_mm=null to take adjacent slices, or leave the scan out of the split"
    )
