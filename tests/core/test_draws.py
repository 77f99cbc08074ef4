import numpy as np
import pytest
import torch

from core import draws

SEEDS = torch.arange(20_000)
MASK = (1 << 64) - 1
UNIFORM = [1.0557141304016113, 1.165945053100586]
NORMAL = [
    -0.10480422526597977,
    -0.14792609214782715,
    2.4049618244171143,
    0.29013219475746155,
    -0.029428714886307716,
    0.4466492235660553,
]


def test_a_number_is_the_hash_that_the_page_of_splitmix_gives():
    def mix(x):
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    seeds = [0, 1, 2**62 + 7, 2**63 - 1, -1, -(2**63)]
    forked = draws.fork(torch.tensor(seeds), "a word").tolist()
    assert [f & MASK for f in forked] == [mix((s ^ draws._number("a word")) & MASK) for s in seeds]
    # With SplitMix64's own increments, the hash gives its published first numbers for seed 0.
    states = torch.tensor([0x9E3779B97F4A7C15 - (1 << 64), 0x3C6EF372FE94F82A])
    assert [x & MASK for x in draws._mix(states).tolist()] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_numbers_are_what_they_were_when_this_was_written():
    # Else a run that goes on from a checkpoint would draw others than it did before.
    seeds = torch.tensor([1, 2**62 + 7])
    assert draws.uniform(seeds, "affine/scale", 0.85, 1.2).tolist() == pytest.approx(UNIFORM, abs=0)
    assert draws.normal(seeds, "noise/voxels", (3,)).flatten().tolist() == pytest.approx(NORMAL, abs=1e-5)


def test_uniform_numbers_fill_their_range_evenly():
    for low, high in ((0.0, 1.0), (-15.0, 15.0), (0.85, 1.2)):
        numbers = draws.uniform(SEEDS, "x", low, high).double().numpy()
        assert low <= numbers.min() < low + 0.001 * (high - low)
        assert high - 0.001 * (high - low) < numbers.max() <= high
        counts, _ = np.histogram(numbers, bins=50, range=(low, high))
        # Chi-square with 49 degrees of freedom: mean 49, 99.99 % below 94.
        assert 20 < ((counts - 400) ** 2 / 400).sum() < 94
    assert draws.uniform(SEEDS, "x").max() < 1
    assert (draws.uniform(SEEDS, "x", 3.0, 3.0) == 3.0).all()


def test_words_and_neighbouring_seeds_draw_independently():
    one, other = draws.uniform(SEEDS, "flip/x"), draws.uniform(SEEDS, "flip/y")
    chance = 4 / len(SEEDS) ** 0.5
    assert abs(np.corrcoef(one, other)[0, 1]) < chance
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < chance
    assert abs(np.corrcoef(one[1:], other[:-1])[0, 1]) < chance
    # Not only uncorrelated: all pairs of tenths come equally often (chi-square, 99 degrees of freedom).
    counts, _, _ = np.histogram2d(one, other, bins=10, range=[[0, 1], [0, 1]])
    assert 50 < ((counts - 200) ** 2 / 200).sum() < 165


def test_forked_seeds_draw_independently_of_the_seeds_they_come_from():
    first, second = draws.fork(SEEDS, "augment/0"), draws.fork(SEEDS, "augment/1")
    numbers = [draws.uniform(seeds, "noise/p") for seeds in (SEEDS, first, second)]
    assert np.abs(np.corrcoef(numbers) - np.eye(3)).max() < 4 / len(SEEDS) ** 0.5
    assert len(set(first.tolist()) | set(second.tolist())) == 2 * len(SEEDS)


def test_normal_numbers_are_normal():
    from scipy.stats import kstest

    numbers = draws.normal(torch.tensor([3, 2**40]), "n", (100, 501)).double().numpy()
    for sample in numbers:
        assert kstest(sample.ravel(), "norm").pvalue > 0.001
        assert abs((sample**3).mean()) < 0.05
        assert (sample**4).mean() == pytest.approx(3, abs=0.1)
    assert np.abs(numbers).max() < 5.8


def test_normal_numbers_are_independent_between_places_and_samples():
    numbers = draws.normal(torch.tensor([0, 1, 2]), "n", (300, 300)).double().numpy()
    chance = 4 / 300
    assert np.abs(np.corrcoef(numbers.reshape(3, -1)) - np.eye(3)).max() < chance
    for sample in numbers:
        for steps in ((0, 1), (1, 0), (1, 1), (0, 2), (150, 0)):
            assert abs(np.corrcoef(sample.ravel(), np.roll(sample, steps, (0, 1)).ravel())[0, 1]) < chance


def test_normal_sequences_of_two_samples_are_no_shifted_copies():
    numbers = draws.normal(torch.tensor([0, 1]), "n", (4096,)).double().numpy()
    spectrum = np.fft.rfft(numbers)
    shifted = np.fft.irfft(spectrum[0] * spectrum[1].conj()) / 4096
    assert np.abs(shifted).max() < 6 / 4096**0.5


def test_a_number_depends_on_its_own_seed_alone():
    seeds = torch.tensor([5, 2**62 + 1, 9])
    for draw in (lambda s: draws.uniform(s, "w", -3, 8), lambda s: draws.normal(s, "w", (1, 7, 9))):
        whole = draw(seeds)
        for i in range(3):
            assert torch.equal(draw(seeds[i : i + 1])[0], whole[i])
        assert torch.equal(draw(seeds.flip(0)), whole.flip(0))


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 5), (1, 1, 1), (2, 3, 4, 5)])
def test_normal_gives_the_shape_that_is_asked(shape):
    numbers = draws.normal(torch.tensor([1, 2]), "w", shape)
    assert numbers.shape == (2, *shape)
    assert numbers.dtype == torch.float32


@pytest.mark.parametrize("look", [True, False])
def test_change_some_changes_the_chosen_and_no_other(look, monkeypatch):
    monkeypatch.setattr(draws, "_may_look", lambda device: look)
    seeds, chosen = torch.arange(4), torch.tensor([True, False, True, False])
    fields = [torch.arange(12.0).view(4, 1, 3), torch.arange(8, dtype=torch.uint8).view(4, 2)]
    got = []

    def change(seeds, image, label):
        got.append(seeds.tolist())
        return image + 1, label + 1

    image, label = draws.change_some(seeds, chosen, change, fields)
    assert got == ([[0], [2]] if look else [[0, 1, 2, 3]])
    assert torch.equal(image - fields[0], torch.tensor([1.0, 0, 1, 0]).view(4, 1, 1).expand(4, 1, 3))
    assert label.tolist() == [[1, 2], [2, 3], [5, 6], [6, 7]]
    assert label.dtype == torch.uint8
    untouched = draws.change_some(seeds, torch.zeros(4, dtype=torch.bool), change, fields)
    assert all(torch.equal(a, b) for a, b in zip(untouched, fields, strict=True))
    assert len(got) == 2  # on the CPU nothing is computed for nothing


def test_off_the_cpu_change_some_asks_for_no_value():
    # Tensors of the device "meta" have none: whoever asks for one fails.
    seeds, chosen = torch.empty(4, dtype=torch.int64, device="meta"), torch.empty(4, dtype=torch.bool, device="meta")
    (image,) = draws.change_some(
        seeds, chosen, lambda s, x: (x + draws.normal(s, "w", (3,)),), [torch.empty(4, 3, device="meta")]
    )
    assert image.shape == (4, 3)
    with pytest.raises(RuntimeError):
        chosen.tolist()
