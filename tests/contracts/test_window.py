import pytest
import torch

import registry

HU = torch.tensor([-3024.0, -1024, -200, -100, 0, 40, 110, 250, 300, 3071, 30000])


@pytest.fixture(params=registry.names("window"))
def window(request, build):
    return build("window", request.param)


@pytest.mark.parametrize("images", [1, 3, 5])
@pytest.mark.parametrize("space", [(16, 12), (4, 16, 12)])
def test_gives_the_channels_it_says_and_keeps_space(window, images, space):
    out = window(HU[torch.arange(2 * images * torch.Size(space).numel()) % len(HU)].reshape(2, images, *space))
    assert out.shape == (2, window.channels(images), *space)
    assert out.dtype == torch.float32


def test_is_finite_for_every_hu_and_steady_in_it(window):
    ramp = torch.arange(-3024, 4000, 1.0).reshape(1, 1, 1, -1)
    out = window(ramp)
    assert torch.isfinite(out).all()
    assert out.abs().max() < 100, "the network's input should be of order 1"


def test_traces_to_the_same_values(window):
    x = HU[torch.arange(256) % len(HU)].reshape(1, 1, 16, 16)
    traced = torch.jit.trace(window, x)
    other = x.flip(-1).repeat(2, 1, 1, 1)
    assert torch.equal(traced(other), window(other))


def test_is_a_module_whose_state_loads_back(window, request, build):
    fresh = build("window", request.node.callspec.params["window"])
    fresh.load_state_dict(window.state_dict())
    x = HU.reshape(1, 1, 1, -1)
    assert torch.equal(fresh(x), window(x))


def test_does_not_change_its_input(window):
    x = HU.reshape(1, 1, 1, -1).clone()
    window(x)
    assert torch.equal(x.flatten(), HU)
