"""What all augmentations of the family have in common."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch

import registry
from core import draws
from core.contracts import Batch
from core.values import IGNORE
from plugins.augment.cutout import Cutout
from plugins.augment.intensity import Blur, Brightness, Contrast, Gamma, LowResolution, Noise
from plugins.augment.spatial import Affine, Elastic, Flip

SPATIAL = {"flip": Flip, "affine": Affine, "elastic": Elastic}
BOUNDED = {"gamma": Gamma, "contrast": Contrast, "brightness": Brightness, "noise": Noise, "blur": Blur}
EVERY = {**SPATIAL, **BOUNDED, "low_resolution": LowResolution, "cutout": Cutout}
SHEARED = Affine(p=1.0, shear_deg=(-10, 10))


def body(count=4, channels=1, size=(96, 96)):
    """Air, a body (20 HU), bone (700 HU), a liver (110 HU), a tumour (60 HU, id 65535) and an ignored strip."""
    y, x = (g / s for g, s in zip(np.mgrid[: size[0], : size[1]], size, strict=True))

    def disc(cy, cx, r):
        return np.hypot(y - cy, x - cx) < r

    label = np.where(disc(0.45, 0.4, 0.2), 1, 0).astype(np.uint8)
    label[disc(0.42, 0.36, 0.09)] = 2
    hu = np.select([label == 2, label == 1, disc(0.75, 0.5, 0.06), disc(0.5, 0.5, 0.42)], [60, 110, 700, 20], -1000)
    lesion = np.where(label == 2, 65535, 0).astype(np.int32)
    label[-3:] = IGNORE
    noise = np.random.default_rng(0).normal(0, 8, (count, channels, *size))
    tensors = [torch.from_numpy(np.stack([a] * count)) for a in (label, lesion)]
    return Batch(
        torch.from_numpy(np.rint(hu + noise).astype(np.int16)), *tensors, list(range(count)), list(range(count))
    )


def seeds_of(*seeds):
    return torch.tensor(seeds, dtype=torch.int64)


def same(one, other):
    return all(
        (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))
        for a, b in ((one.image, other.image), (one.label, other.label), (one.lesion, other.lesion))
    )


def test_every_component_is_tested_here():
    ours = [n for n in registry.names("augment") if registry.get("augment", n).target.__module__.startswith("plugins.")]
    assert sorted(EVERY) == ours


@pytest.mark.parametrize("name", sorted({*SPATIAL, *BOUNDED}))
def test_the_yaml_of_a_transform_is_the_yaml_of_its_augment(name):
    more = {"affine": {"shear_deg"}}.get(name, set())
    transform, augment = (
        {a.name: (a.default, None if a.name == "axes" else a.annotation) for a in registry.get(kind, name).arguments}
        for kind in ("transform", "augment")
    )
    assert {k: v for k, v in augment.items() if k not in more} == transform
    assert set(augment) - set(transform) == more


@pytest.mark.parametrize("name", EVERY)
def test_p_0_gives_back_every_value(name):
    before = body(channels=2)
    after = EVERY[name](p=0.0)(before, seeds_of(1, 2, 3, 4))
    assert torch.equal(after.image, before.image.to(after.image.dtype))
    assert torch.equal(after.label, before.label)
    assert torch.equal(after.lesion, before.lesion)


@pytest.mark.parametrize("look", [True, False], ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", EVERY)
def test_p_is_the_share_of_samples_changed_and_the_others_keep_every_value(name, look, monkeypatch):
    monkeypatch.setattr(draws, "_may_look", lambda device: look)
    before = body(count=600, size=(12, 12))
    one = EVERY[name](p=0.3, axes=("y",)) if name == "flip" else EVERY[name](p=0.3)
    after = one(before, torch.arange(600))
    image = before.image.to(after.image.dtype)
    changed = [not torch.equal(after.image[i], image[i]) for i in range(600)]
    # Some draws change next to nothing: a factor of 1, a shift of 0. Four standard deviations are 45.
    assert 135 - 30 * (name in ("low_resolution", "elastic")) <= sum(changed) <= 225
    chosen = draws.uniform(torch.arange(600), "flip/y" if name == "flip" else f"{name}/p") < 0.3
    assert not any(is_changed and not was_chosen for is_changed, was_chosen in zip(changed, chosen, strict=True))
    kept = ~chosen
    assert torch.equal(after.label[kept], before.label[kept])
    assert torch.equal(after.lesion[kept], before.lesion[kept])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", EVERY)
def test_the_way_of_a_gpu_gives_what_the_way_of_the_cpu_gives(name, channels, monkeypatch):
    before, seeds = body(count=6, channels=channels, size=(45, 67)), torch.arange(6) * 7919
    augment = EVERY[name](p=0.5)
    looked = augment(before, seeds)
    monkeypatch.setattr(draws, "_may_look", lambda device: False)
    blind = augment(before, seeds)
    assert (looked.image.float() - blind.image.float()).abs().max() < 0.01
    assert torch.equal(looked.label, blind.label)
    assert torch.equal(looked.lesion, blind.lesion)


@pytest.mark.parametrize("size", [(31, 33), (1, 7), (7, 1), (2, 2), (64, 17)])
@pytest.mark.parametrize("name", EVERY)
def test_a_sample_is_the_same_in_any_batch_and_any_place_of_it(name, size):
    before, seeds = body(count=5, channels=2, size=size), seeds_of(3, 2**62 + 9, 17, 4, 2**63 - 1)
    augment = EVERY[name](p=0.9)
    whole = augment(before, seeds)
    backwards = augment(cut(before, [4, 3, 2, 1, 0]), seeds.flip(0))
    assert same(cut(whole, [4, 3, 2, 1, 0]), backwards)
    for parts in ([[0, 1], [2, 3, 4]], [[0], [1], [2], [3], [4]]):
        for part in parts:
            assert same(cut(whole, part), augment(cut(before, part), seeds[part]))


def cut(batch, which):
    tensors = (batch.image[which], batch.label[which], batch.lesion[which])
    return Batch(*tensors, which, which)


@pytest.mark.parametrize("name", EVERY)
def test_types_do_not_depend_on_who_is_chosen(name):
    want = torch.int16 if name == "flip" else torch.float32
    for p in (0.0, 0.5, 1.0):
        after = EVERY[name](p=p)(body(), seeds_of(1, 2, 3, 4))
        assert (after.image.dtype, after.label.dtype, after.lesion.dtype) == (want, torch.uint8, torch.int32)


@pytest.mark.parametrize("look", [True, False], ids=["cpu", "gpu"])
@pytest.mark.parametrize("name", EVERY)
def test_autocast_costs_no_precision(name, look, monkeypatch):
    monkeypatch.setattr(draws, "_may_look", lambda device: look)
    results = []
    for context in (contextlib.nullcontext(), torch.autocast("cpu", dtype=torch.bfloat16)):
        with context:
            results.append(EVERY[name](p=1.0)(body(), seeds_of(1, 2, 3, 4)))
    assert same(*results)


@pytest.mark.parametrize("name", EVERY)
def test_without_lesion_ids_image_and_label_are_the_same(name):
    augment, seeds = EVERY[name](p=1.0), seeds_of(1, 2, 3, 4)
    with_ids, without = augment(body(), seeds), augment(dataclasses.replace(body(), lesion=None), seeds)
    assert without.lesion is None
    assert same(dataclasses.replace(with_ids, lesion=None), without)


def test_a_chain_rounds_nothing_and_keeps_lesion_ids():
    before = body(count=2)
    chain = [Flip(p=0.5), SHEARED, Elastic(p=1.0), Noise(p=1.0), Gamma(p=1.0), LowResolution(p=1.0), Cutout(p=1.0)]
    after = before
    for augment in chain:
        after = augment(after, seeds_of(5, 6))
    assert after.image.dtype == torch.float32
    assert (after.image != after.image.round()).float().mean() > 0.3
    assert set(after.lesion.unique().tolist()) == {0, 65535}
    assert torch.equal(after.lesion > 0, after.label == 2)


@pytest.mark.parametrize("name", [*BOUNDED, "low_resolution"])
def test_intensity_leaves_labels_alone_and_takes_volumes(name):
    image = torch.randint(-1000, 600, (2, 2, 5, 12, 14), dtype=torch.int16, generator=torch.Generator().manual_seed(1))
    before = Batch(image, torch.zeros(2, 5, 12, 14, dtype=torch.uint8), None, [0, 1], [0, 1])
    after = EVERY[name](p=1.0)(before, seeds_of(1, 2))
    assert after.label is before.label
    assert not torch.equal(after.image, image.float())
    if name != "noise":
        # Slice by slice it is what it is for slices.
        for z in range(5):
            one = Batch(image[:, :, z], before.label[:, z], None, [0, 1], [0, 1])
            assert torch.allclose(EVERY[name](p=1.0)(one, seeds_of(1, 2)).image, after.image[:, :, z], atol=0.01)


@pytest.mark.parametrize("name", ["affine", "elastic"])
def test_volumes_are_refused_by_what_moves_slices(name):
    shape = (1, 1, 4, 8, 8)
    volume = Batch(torch.zeros(shape, dtype=torch.int16), torch.zeros(1, 4, 8, 8, dtype=torch.uint8), None, [0], [0])
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        EVERY[name]()(volume, seeds_of(1))
    assert str(caught.value) == f"{name} works on slices [B, C, H, W], got images of shape [1, 1, 4, 8, 8]"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *((lambda c=c: c(p=1.5), "p must be from 0 to 1, got 1.5") for c in EVERY.values()),
        *((lambda c=c: c(p=float("nan")), "p must be from 0 to 1, got nan") for c in EVERY.values()),
        *(
            (lambda c=c: c(low=5, high=5), "low must be below high, both in HU, got low 5 and high 5")
            for c in BOUNDED.values()
        ),
        (lambda: Flip(axes=()), "axes must name x, y or z, or several of them"),
        (lambda: Affine(rotate_deg=(5, -5)), "rotate_deg wants [lowest, highest], got [5, -5]"),
        (lambda: Affine(scale=(0, 1)), "scale wants [lowest, highest] above 0, got [0, 1]"),
        (lambda: Affine(shear_deg=(0, 45)), "shear_deg wants [lowest, highest] between -45 and 45, got [0, 45]"),
        (lambda: Affine(shift=1), "shift must be from 0 to below 1, got 1"),
        (lambda: Elastic(shift_px=(-1, 1)), "shift_px wants [lowest, highest], not negative, got [-1, 1]"),
        (lambda: Elastic(smooth_px=0.5), "smooth_px must be at least 1, got 0.5"),
        (lambda: Gamma(gamma=(0, 1)), "gamma wants [lowest, highest] above 0, got [0, 1]"),
        (lambda: Contrast(factor=(2, 1)), "factor wants [lowest, highest] above 0, got [2, 1]"),
        (lambda: Brightness(shift_hu=(5, -5)), "shift_hu wants [lowest, highest], got [5, -5]"),
        (lambda: Brightness(shift_hu=(0, 600)), "shift_hu must not exceed high - low (500 HU), got [0, 600]"),
        (lambda: Noise(std_hu=(-1, 2)), "std_hu wants [lowest, highest] from 0 to high - low, got [-1, 2]"),
        (lambda: Blur(sigma_px=(0, 1)), "sigma_px wants [lowest, highest] above 0, got [0, 1]"),
        (lambda: LowResolution(scale=(0.5, 2)), "scale wants [lowest, highest] above 0 and up to 1, got [0.5, 2]"),
        (lambda: Cutout(count=0), "count must be at least 1, got 0"),
        (lambda: Cutout(size=(0, 0.5)), "size wants [lowest, highest] above 0 and up to 1, got [0, 0.5]"),
        (lambda: Cutout(fill_hu=1e6), "fill_hu must be a value of a scan, from -32768 to 32767 HU, got 1000000.0"),
    ],
)
def test_bad_values_are_refused(make, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        make()
    assert str(caught.value) == message
