import pytest
import torch
from torch import nn

from core.errors import UserError
from core.train.objective import Objective
from core.values import IGNORE


def wrong(logits, target):
    """The share of wrong voxels: easy to count by hand."""
    return (logits.argmax(1) != target)[target != IGNORE].float().mean() + 0 * logits.sum()


def logits_of(target, classes=3):
    return nn.functional.one_hot(target.long().clamp(max=classes - 1), classes).movedim(-1, 1).float() * 9


class Seen:
    """A loss that notes what it is given, and asks for lesion ids."""

    def __init__(self):
        self.targets, self.lesions = [], []

    def __call__(self, logits, target, lesion):
        assert logits.shape[2:] == target.shape[1:] == lesion.shape[1:]
        self.targets.append(target)
        self.lesions.append(lesion)
        return logits.float().mean()


class Running(nn.Module):
    """A loss with state: a running mean of the logits, which evaluation leaves alone."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.inner = nn.Dropout(0.5).eval()

    def forward(self, logits, target):
        if self.training:
            self.mean.lerp_(logits.detach().mean(), 0.1)
        return (logits - self.mean).square().mean()


# the sum


def test_the_objective_is_the_weighted_sum_and_the_terms_are_unweighted():
    objective = Objective(
        [("a", 2.0, lambda logits, target: logits.mean()), ("b", 0.5, lambda logits, target: target.sum())]
    )
    total, terms = objective(torch.full((1, 3, 2, 2), 3.0), torch.ones(1, 2, 2, dtype=torch.uint8))
    assert total.item() == 2.0 * 3 + 0.5 * 4
    assert terms.tolist() == [3.0, 4.0]
    assert objective.names == ["a", "b"]


def test_only_what_a_loss_asks_for_is_passed_in():
    seen = Seen()
    objective = Objective([("seen", 1.0, seen), ("wrong", 1.0, wrong)])
    assert objective.asks == {"lesion"}
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    objective(logits_of(target), target, {"lesion": torch.ones(1, 4, 4, dtype=torch.int32)})
    assert seen.lesions[0].eq(1).all()
    assert Objective([("wrong", 1.0, wrong)]).asks == set()


# deep supervision


def test_resolutions_weigh_as_in_nnunet_each_half_of_the_finer_one_and_one_together():
    objective = Objective([("mean", 3.0, lambda logits, target: logits.mean())])
    target = torch.zeros(1, 16, 16, dtype=torch.uint8)
    values = [1.0, 10.0, 100.0, 1000.0]
    scales = [torch.full((1, 3, 16 >> i, 16 >> i), v) for i, v in enumerate(values)]
    total, terms = objective(scales, target)
    assert total.item() == pytest.approx(3 * (8 * 1 + 4 * 10 + 2 * 100 + 1 * 1000) / 15)
    assert terms.tolist() == [1.0]
    assert objective(scales[:1], target)[0].item() == objective(scales[0], target)[0].item() == 3.0


@pytest.mark.parametrize("space", [(8, 12), (4, 8, 12)])
def test_labels_and_lesions_are_brought_to_a_coarser_resolution_by_the_nearest_voxel(space):
    seen = Seen()
    generator = torch.Generator().manual_seed(0)
    target = torch.tensor([0, 1, 2, IGNORE], dtype=torch.uint8)[torch.randint(0, 4, (2, *space), generator=generator)]
    lesion = torch.randint(0, 1 << 20, (2, *space), generator=generator, dtype=torch.int32)
    coarse = [torch.zeros(2, 3, *(n >> i for n in space)) for i in range(3)]
    Objective([("seen", 1.0, seen)])(coarse, target, {"lesion": lesion})
    assert torch.equal(seen.targets[0], target.long())
    # Half the size: of two voxels the second is as near to the middle as the first, and is taken.
    half = (slice(None), *[slice(1, None, 2)] * len(space))
    quarter = (slice(None), *[slice(2, None, 4)] * len(space))
    assert torch.equal(seen.targets[1], target[half].long())
    assert torch.equal(seen.targets[2], target[quarter].long())
    assert torch.equal(seen.lesions[1], lesion[half])
    assert torch.equal(seen.lesions[2], lesion[quarter])


def test_ignored_voxels_stay_ignored_at_every_resolution():
    target = torch.zeros(1, 16, 16, dtype=torch.uint8)
    target[:, 8:] = IGNORE
    scales = [logits_of(target[:, :: 2**i, :: 2**i]) for i in range(3)]
    objective = Objective([("ce", 1.0, nn.CrossEntropyLoss(ignore_index=IGNORE))])
    before = objective(scales, target)[0]
    for scale in scales:
        scale[:, :, scale.shape[2] // 2 :] = torch.randn(1, 3, scale.shape[2] // 2, scale.shape[3])
    assert objective(scales, target)[0].item() == before.item()


def test_every_resolution_gets_a_gradient():
    target = torch.ones(1, 8, 8, dtype=torch.uint8)
    scales = [torch.zeros(1, 3, 8 >> i, 8 >> i, requires_grad=True) for i in range(3)]
    Objective([("ce", 1.0, nn.CrossEntropyLoss())])(scales, target)[0].backward()
    sums = [scale.grad.abs().sum().item() for scale in scales]
    assert sums == pytest.approx([sums[0], sums[0] / 2, sums[0] / 4])
    assert sums[0] > 0


def test_logits_of_another_size_are_refused():
    objective = Objective([("wrong", 1.0, wrong)])
    target = torch.zeros(1, 8, 8, dtype=torch.uint8)
    with pytest.raises(UserError) as error:
        objective([torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8)], target)
    assert str(error.value) == (
        "the model gives logits of 4x4, 8x8 for labels of 8x8; want the labels' size, or a list that begins with it "
        "(deep supervision)"
    )
    with pytest.raises(UserError, match=r"^the model gives logits of no resolution for labels of 8x8; want"):
        objective([], target)


# losses with state


def test_a_loss_with_state_is_saved_and_restored():
    first, second = (Objective([("plain", 1.0, wrong), ("running", 1.0, Running())]) for _ in range(2))
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    first(logits_of(target), target)
    assert first.state_dict().keys() == {"running.mean"}
    kept = {key: value.clone() for key, value in first.state_dict().items()}
    second.load_state_dict(kept)
    assert second.state_dict()["running.mean"].item() == kept["running.mean"].item() != 0
    assert first(logits_of(target), target)[0].item() == second(logits_of(target), target)[0].item()
    first.load_state_dict(kept)
    assert first.state_dict()["running.mean"].item() == kept["running.mean"].item()


def test_two_losses_of_one_class_keep_their_state_apart():
    objective = Objective([("running", 1.0, Running()), ("running_2", 1.0, Running())])
    objective.load_state_dict({"running.mean": torch.tensor(1.0), "running_2.mean": torch.tensor(2.0)})
    assert [loss.mean.item() for *_, loss, _ in objective.terms] == [1.0, 2.0]


def test_losses_without_state_have_none():
    objective = Objective([("wrong", 1.0, wrong)])
    assert objective.state_dict() == {}
    objective.load_state_dict({})
    objective.eval()
    objective.train()


def test_evaluating_leaves_a_loss_alone_and_training_puts_each_part_back_as_it_was_built():
    loss = Running()
    objective = Objective([("running", 1.0, loss)])
    target = torch.zeros(1, 4, 4, dtype=torch.uint8)
    objective.eval()
    objective(logits_of(target), target)
    assert loss.mean.item() == 0
    objective.eval()
    objective.train()
    assert loss.training
    assert not loss.inner.training
    objective(logits_of(target), target)
    assert loss.mean.item() != 0


def test_a_loss_with_parameters_to_train_is_refused_and_a_frozen_one_is_not():
    class Learnt(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights, self.bias = nn.Linear(3, 3), nn.Parameter(torch.zeros(3))

        def forward(self, logits, target):
            return logits.mean()

    with pytest.raises(UserError) as error:
        Objective([("wrong", 1.0, wrong), ("learnt", 1.0, Learnt())])
    assert str(error.value) == (
        "loss 'learnt' has parameters that no optimizer would update (bias, weights.weight, weights.bias); make them "
        "buffers, freeze them (requires_grad_(False)), or let the model hold them"
    )
    Objective([("learnt", 1.0, Learnt().requires_grad_(False))])
