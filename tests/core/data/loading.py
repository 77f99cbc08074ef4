"""A small store and loaders over it, for the tests of loading."""

from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

import registry
from core import config
from core.build import Plan, make_plan
from core.contracts import Case
from core.data.loader import Blueprint, TrainLoader
from core.data.prepare import prepare
from core.infer.geometry import Geometry

PLUGIN = '''
"""Components that go wrong in one way each."""
import numpy as np
import registry
from core.contracts import Record, Sample
from core.errors import UserError
from registry import register

Slices = registry.get("dataset", "slices").target


@register("dataset", "odd_slices")
class OddSlices:
    """Slices, but one sample in another way. Example: {name: odd_slices, how: fine, at: 3}"""

    def __init__(self, store, cases, geometry, lesions, *, how: str = "fine", at: int = 3) -> None:
        self.how, self.at = how, at
        self.slices = Slices(store, cases, geometry, lesions, keep="all")
        self.records = [] if how == "empty" else self.slices.records
        if how != "undeclared":
            self.draws = False

    def load(self, index, rng):
        sample = self.slices.load(index, rng)
        if self.how == "no lesions":
            sample.lesion = None
        if self.how == "draws":
            rng.random()
        if index == self.at and self.how == "refuse":
            raise UserError(f"sample {index} cannot be had; leave it out")
        if index == self.at and self.how == "fail":
            raise ZeroDivisionError(f"sample {index}")
        if index == self.at and self.how == "interrupt":
            raise KeyboardInterrupt
        if (index == self.at and self.how == "smaller") or (index == 0 and self.how == "first smaller"):
            return Sample(sample.image[:, :16], sample.label[:16], None, index)
        return sample


@register("transform", "spoil")
class Spoil:
    """Writes into the sample that it gets. Example: {name: spoil}"""

    def __call__(self, sample, rng):
        sample.image[:], sample.label[:] = rng.integers(1000), 7
        return sample


@register("sampler", "in_order")
class InOrder:
    """All records as they come, or something else in one epoch. Example: {name: in_order, odd_epoch: -1}"""

    def __init__(self, records, *, odd_epoch: int = -1) -> None:
        self.count, self.odd_epoch = len(records), odd_epoch

    def order(self, seed, epoch):
        return [self.count] * self.count if epoch == self.odd_epoch else list(range(self.count))
'''


@contextmanager
def odd_plugins(folder: Path):
    """The components above, from a file, until the block ends."""
    path = folder / "odd.py"
    path.write_text(PLUGIN)
    registry.load(str(path))
    yield
    state = registry._state
    state.files.remove(str(path))
    for key in [k for k, described in state.components.items() if described.file == str(path)]:
        del state.components[key]


def write_store(folder: Path, sizes=((24, 20, 9), (24, 20, 7), (24, 20, 8)), compression="bitshuffle-lz4") -> Path:
    """A store of labelled cases with tumours on some slices; `sizes` along x, y, z."""
    cases = []
    for i, shape in enumerate(sizes):
        rng = np.random.default_rng(i)
        image, label = rng.integers(-1000, 1000, shape).astype(np.int16), np.zeros(shape, np.uint8)
        label[4:16, 4:16, 1:-1] = 1
        label[6 : 9 + i, 6:10, 2:4] = 2
        label[12:14, 6:10, 3:5] = 2
        paths = folder / f"v-{i}.nii", folder / f"s-{i}.nii"
        for path, array in zip(paths, (image, label), strict=True):
            nib.save(nib.Nifti1Image(array, np.diag([-1.0, -1, 2, 1])), path)
        cases.append(Case(f"v-{i}", f"p-{i}", *paths))

    class Source:
        def cases(self):
            return cases

    root = folder / "store"
    assert prepare(Source(), root, workers=1, source_config={}, compression=compression).bad == []
    return root


def plan(kind: str, text: str) -> Plan:
    """The plan of a node."""
    problems: list[str] = []
    made = make_plan(kind, config.parse(text), kind, problems)
    assert made is not None, problems
    assert problems == []
    return made


def loader(
    store: Path,
    *,
    dataset="{name: slices, keep: all}",
    sampler="{name: uniform}",
    transforms=(),
    lesions=False,
    geometry=None,
    **options,
) -> TrainLoader:
    """A training loader over all cases of the store."""
    blueprint = Blueprint(
        store=store,
        cases=tuple(sorted(p.stem for p in store.glob("*.h5"))),
        dataset=plan("dataset", dataset),
        geometry=geometry or Geometry(channels=3, divisor=4),
        transforms=tuple(plan("transform", t) for t in transforms),
        seed=5,
        lesions=lesions,
        sources=registry.sources(),
    )
    return TrainLoader(blueprint, plan("sampler", sampler), **{"batch": 4, "workers": 0, **options})


def epochs(loader: TrainLoader, *which: tuple[int, int]) -> list:
    """All batches of epochs, each from a step on."""
    return [batch for epoch, start in which for step in loader.epoch(epoch, start) for batch in step]


def assert_same(first: list, second: list) -> None:
    """The same batches, to the bit."""
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.positions, a.indices) == (b.positions, b.indices)
        for name in ("image", "label", "lesion"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None), name
            assert x is None or (x.dtype == y.dtype and torch.equal(x, y)), name
