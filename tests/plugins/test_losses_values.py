import math

import pytest
import torch
import torch.multiprocessing as mp

from core import dist
from core.values import IGNORE
from plugins.loss.cross_entropy import CrossEntropy
from plugins.loss.dice import Dice


def logits_of(probabilities):
    """[voxels, K] -> logits [1, K, voxels]."""
    return torch.tensor(probabilities).log().T.unsqueeze(0)


PROBABILITIES = [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]
TARGET = torch.tensor([[0, 1, 2, 1]])


def test_cross_entropy_by_hand():
    want = -(math.log(0.7) + math.log(0.8) + math.log(0.5) + math.log(0.3)) / 4
    assert CrossEntropy(3)(logits_of(PROBABILITIES), TARGET).item() == pytest.approx(want)


def test_cross_entropy_leaves_ignored_voxels_out_of_the_mean():
    target = torch.tensor([[0, IGNORE, 2, IGNORE]])
    want = -(math.log(0.7) + math.log(0.5)) / 2
    assert CrossEntropy(3)(logits_of(PROBABILITIES), target).item() == pytest.approx(want)


def test_cross_entropy_with_class_weights_is_the_weighted_mean():
    weights = [0.5, 1.0, 4.0]
    want = -(0.5 * math.log(0.7) + math.log(0.8) + 4 * math.log(0.5) + math.log(0.3)) / (0.5 + 1 + 4 + 1)
    loss = CrossEntropy(3, class_weights=weights)
    assert loss(logits_of(PROBABILITIES), TARGET).item() == pytest.approx(want)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 4.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs_mean(weights, smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 9, 7, generator=generator)
    target = torch.randint(0, 3, (2, 9, 7), generator=generator)
    target[0, :2] = IGNORE
    want = torch.nn.functional.cross_entropy(
        logits,
        target,
        weight=None if weights is None else torch.tensor(weights),
        ignore_index=IGNORE,
        label_smoothing=smoothing,
    )
    got = CrossEntropy(3, class_weights=weights, label_smoothing=smoothing)(logits, target)
    assert got.item() == pytest.approx(want.item(), rel=1e-6)


def test_cross_entropy_of_nothing_but_ignored_voxels_is_0():
    assert CrossEntropy(3)(logits_of(PROBABILITIES), torch.full((1, 4), IGNORE)).item() == 0


def test_dice_by_hand():
    # Class 1: intersection .8 + .3, sizes 1.6 and 2. Class 2: intersection .5, sizes .8 and 1.
    want = 1 - ((2 * 1.1 + 1) / (1.6 + 2 + 1) + (2 * 0.5 + 1) / (0.8 + 1 + 1)) / 2
    assert Dice(3)(logits_of(PROBABILITIES), TARGET).item() == pytest.approx(want)


def test_dice_pools_the_batch_instead_of_averaging_samples():
    both = torch.cat([logits_of(PROBABILITIES[:2]), logits_of(PROBABILITIES[2:])])
    want = Dice(3)(logits_of(PROBABILITIES), TARGET).item()
    assert Dice(3)(both, TARGET.reshape(2, 2)).item() == pytest.approx(want)


def test_dice_ignores_predictions_in_ignored_voxels():
    target = torch.tensor([[0, 1, IGNORE, IGNORE]])
    # Class 1: intersection .8, sizes 1.0 and 1. Class 2: none, size .2.
    want = 1 - ((2 * 0.8 + 1) / (1.0 + 1 + 1) + 1 / (0.2 + 0 + 1)) / 2
    assert Dice(3)(logits_of(PROBABILITIES), target).item() == pytest.approx(want)


def test_dice_counts_or_skips_an_absent_class():
    target = torch.tensor([[0, 1, 0, 1]])
    liver = (2 * 1.1 + 1) / (1.6 + 2 + 1)
    logits = logits_of(PROBABILITIES)
    assert Dice(3, absent="count")(logits, target).item() == pytest.approx(1 - (liver + 1 / (0.8 + 1)) / 2)
    assert Dice(3, absent="skip")(logits, target).item() == pytest.approx(1 - liver)
    assert Dice(3, absent="skip")(logits, torch.zeros_like(target)).item() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: CrossEntropy(3, class_weights=[1.0, 2.0]),
            "class_weights wants one number for each of the 3 classes, got 2",
        ),
        (
            lambda: CrossEntropy(3, class_weights=[1.0, -2.0, 1.0]),
            "class_weights must be finite, not negative and not all 0, got [1.0, -2.0, 1.0]",
        ),
        (lambda: CrossEntropy(3, label_smoothing=1.0), "label_smoothing must be from 0 to below 1, got 1.0"),
        (lambda: Dice(3, smooth=0.0), "smooth must be greater than 0, got 0.0; it keeps an absent class finite"),
        (lambda: Dice(1), "Dice wants a background and at least one foreground class, got 1 classes"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        make()
    assert str(caught.value) == message


def _batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 8, 8, generator=generator)
    target = torch.randint(0, 2, (2, 8, 8), generator=generator)
    target[0, :3] = IGNORE  # the ranks have different counts
    target[1, :2] = 2  # and one of them has no tumour
    return logits, target


LOSSES = {
    "cross_entropy": lambda: CrossEntropy(3, class_weights=[0.5, 1.0, 2.0]),
    "dice_count": lambda: Dice(3),
    "dice_skip": lambda: Dice(3, absent="skip"),
}


def _rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    logits, target = _batch()
    out = {}
    for name, make in LOSSES.items():
        own = logits[rank : rank + 1].clone().requires_grad_()
        with dist.training_sums():
            value = make()(own, target[rank : rank + 1])
            value.backward()
        out[name] = (value.detach(), own.grad)
    torch.save(out, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_over_two_ranks_value_and_gradient_are_those_of_the_whole_batch(tmp_path):
    mp.spawn(_rank, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name, make in LOSSES.items():
        logits, target = _batch()
        logits.requires_grad_()
        want = make()(logits, target)
        want.backward()
        # Each rank's gradient is the sum over both; DDP's mean over ranks makes it the whole batch's.
        gradient = torch.cat([found[name][1] for found in ranks]) / 2
        assert [found[name][0].item() for found in ranks] == pytest.approx([want.item()] * 2, rel=1e-6)
        assert torch.allclose(gradient, logits.grad, atol=1e-7)
