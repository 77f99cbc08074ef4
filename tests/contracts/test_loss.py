import pytest
import torch

import registry
from core.train.objective import Objective
from core.values import CLASSES, IGNORE

NAMES = registry.names("loss")
SHAPES = [pytest.param((2, 12, 10), id="2d"), pytest.param((2, 6, 8, 10), id="3d")]
PRESENT = [pytest.param(p, id="only_" + "_".join(map(str, p))) for p in [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]]


def target_of(shape, classes=range(CLASSES)):
    """Bands of the given classes along the last axis."""
    bands = torch.arange(shape[-1]) * len(classes) // shape[-1]
    return torch.tensor(list(classes))[bands].expand(shape).clone()


def logits_of(target, confidence, dtype=torch.float32):
    """Logits that favour the target by `confidence`."""
    hot = torch.nn.functional.one_hot(target.clamp(max=CLASSES - 1), CLASSES).movedim(-1, 1)
    return (hot * float(confidence)).to(dtype).clone().requires_grad_()


@pytest.fixture(params=NAMES)
def loss(request, build):
    # Through core's objective, which passes in what a loss asks for by name.
    term = build("loss", request.param, classes=CLASSES)

    def call(logits, target):
        lesion = (target == CLASSES - 1).int()
        total, _ = Objective([(request.param, 1.0, term)])(logits, target, {"lesion": lesion})
        return total

    return call


@pytest.mark.parametrize("shape", SHAPES)
def test_is_a_finite_scalar_whose_gradient_reaches_the_logits(loss, shape):
    logits = logits_of(target_of(shape), 0.5)
    value = loss(logits, target_of(shape))
    assert value.shape == ()
    assert torch.isfinite(value)
    value.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", PRESENT)
def test_is_finite_with_any_class_absent(loss, shape, classes):
    logits = torch.randn(shape[0], CLASSES, *shape[1:], generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(logits, target_of(shape, classes))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("confidence", [100.0, -100.0])
def test_is_finite_for_certain_predictions_right_or_wrong(loss, confidence):
    target = target_of((2, 12, 10))
    logits = logits_of(target, confidence)
    value = loss(logits, target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_is_lower_for_a_better_prediction(loss, shape):
    target = target_of(shape)
    values = [loss(logits_of(target, confidence), target).item() for confidence in (-2, 0.5, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


@pytest.mark.parametrize("shape", SHAPES)
def test_ignored_voxels_take_no_part(loss, shape):
    target = target_of(shape)
    target[..., -2:] = IGNORE
    changed = logits_of(target, 1.0).detach()
    changed[..., -2:] = torch.tensor([9.0, -9.0])
    logits = changed.clone().requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert (logits.grad[..., -2:] == 0).all()
    assert value.item() == pytest.approx(loss(logits_of(target, 1.0), target).item(), rel=1e-5)


def test_is_finite_and_differentiable_with_every_voxel_ignored(loss):
    target = torch.full((2, 12, 10), IGNORE)
    logits = torch.randn(2, CLASSES, 12, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = loss(logits, target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


def test_is_finite_under_autocast_and_near_the_value_in_float32(loss):
    target = target_of((2, 64, 64))
    logits = logits_of(target, 1.5, torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, target)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()
    assert value.item() == pytest.approx(loss(logits_of(target, 1.5), target).item(), rel=0.02, abs=1e-3)


def test_does_not_change_what_it_gets(loss):
    target = target_of((2, 12, 10))
    target[..., -2:] = IGNORE
    logits = logits_of(target, 1.0)
    before = logits.detach().clone(), target.clone()
    loss(logits, target)
    assert torch.equal(logits, before[0])
    assert torch.equal(target, before[1])


def test_gives_the_same_value_twice(loss):
    target = target_of((2, 12, 10))
    assert loss(logits_of(target, 1.0), target).item() == loss(logits_of(target, 1.0), target).item()
