import pytest
import torch

import registry
from core.infer.network import finest
from core.values import CLASSES


@pytest.fixture(params=registry.names("model"))
def make(request, build):
    def model(in_channels):
        torch.manual_seed(0)
        return build("model", request.param, in_channels=in_channels)

    return model


def space(model):
    """A size for the model's input, as many axes as it says it takes."""
    return (64, 96) if getattr(model, "dimensions", 2) == 2 else (8, 32, 48)


@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_gives_logits_of_the_input_size(make, in_channels):
    model = make(in_channels).eval()
    with torch.no_grad():
        logits = finest(model(torch.rand(2, in_channels, *space(model))))
    assert logits.shape == (2, CLASSES, *space(model))
    assert torch.isfinite(logits).all()
    assert not torch.allclose(logits.sum(1), torch.ones(1), atol=1e-3), "want logits, not probabilities"


def test_every_parameter_gets_a_finite_gradient(make):
    model = make(3).train()
    out = model(torch.rand(2, 3, *space(model)))
    sum(scale.square().mean() for scale in (out if isinstance(out, (list, tuple)) else [out])).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == [], "DDP waits for gradients of every parameter"
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_same_seed_gives_the_same_weights_and_they_load_back(make):
    first, second = make(3), make(3)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    second.load_state_dict(first.state_dict())


def test_evaluates_each_sample_by_itself(make):
    model = make(3).eval()
    x = torch.rand(3, 3, *space(model))
    with torch.no_grad():
        together, alone = finest(model(x)), finest(model(x[1:2]))
    assert torch.allclose(together[1:2], alone, atol=1e-4)
