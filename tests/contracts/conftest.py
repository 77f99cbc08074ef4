"""Every component is built from the `Example:` node of its docstring, so a new plugin is tested by existing."""

import inspect

import nibabel
import numpy as np
import pytest
import torch

import registry
from core import config
from core.build import Plan, make_plan
from core.build import build as build_plan
from core.contracts import Case, Record, Sample
from core.data.export import export
from core.infer.geometry import Geometry
from core.infer.network import Network
from core.values import CLASSES, IGNORE, LIVER, TUMOUR


def pytest_ignore_collect(collection_path):
    """A kind without any component has nothing to test."""
    kind = collection_path.stem.removeprefix("test_")
    return True if kind in registry.kinds() and not registry.names(kind) else None


@pytest.fixture(autouse=True)
def _anywhere(tmp_path, monkeypatch):
    # Paths in examples are relative: a component that writes on being built must not write into the repository.
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def example():
    """(kind, name) -> the plan of the component's `Example:` node."""

    def plan(kind: str, name: str) -> Plan:
        doc = registry.get(kind, name).doc
        _head, mark, text = doc.partition("\nExample:")
        assert mark, f"{kind} '{name}': the docstring must end with a line such as `Example: {{name: {name}}}`"
        problems: list[str] = []
        made = make_plan(kind, config.parse(inspect.cleandoc(text), "Example"), kind, problems)
        assert not problems, "\n".join(problems)
        assert made.name == name
        return made

    return plan


@pytest.fixture
def build(example, runtime):
    """(kind, name) -> the component of the example, with `runtime` where no other value is given."""

    def make(kind: str, name: str, **given):
        wanted = registry.get(kind, name).runtime
        if kind == "inferer" and getattr(registry.get(kind, name).target, "dimensions", 2) == 3:
            given = {"network": small_network(torch.nn.Conv3d), **given}
        values = {w: given[w] if w in given else runtime(w) for w in wanted}
        plan = example(kind, name)
        if kind == "dataset" and "root" in plan.args:  # it reads what tools/prepare.py --export wrote
            export(runtime("store"), plan.args["root"], lesions=True, workers=1)
        return build_plan(plan, **values)

    return make


@pytest.fixture
def runtime(request):
    """What core would pass in, by name."""

    def value(name: str):
        if name in ("store", "records", "network"):
            return request.getfixturevalue(name)
        if name == "cases":
            return request.getfixturevalue("store").cases
        simple = {
            "geometry": Geometry(channels=3),
            "lesions": True,
            "in_channels": 3,
            "classes": CLASSES,
            "total_steps": 50,
            "steps_per_epoch": 10,
        }
        return (
            torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)) if name == "model" else simple[name]
        )

    return value


@pytest.fixture
def network():
    return small_network(torch.nn.Conv2d)


def small_network(convolution):
    torch.manual_seed(0)
    model = convolution(3, CLASSES, 3, padding=1)

    class Window(torch.nn.Module):
        def forward(self, image):
            return image.clamp(-200, 250) / 450

    return Network(Window(), model, Geometry(channels=3))


@pytest.fixture
def records():
    """40 slices of four patients; ten with tumour, in one row: a small lesion and a large one."""
    return [
        Record(
            *(f"case-{i // 10}", f"patient-{i // 10}", i % 10, 100 if i % 10 > 2 else 0, 7 if 15 <= i < 25 else 0),
            *(((1,), (6.0 if i < 20 else 25.0,)) if 15 <= i < 25 else ()),
        )
        for i in range(40)
    ]


@pytest.fixture
def sample():
    """A body with a liver (110 HU), a tumour (60 HU) with lesion id 3, and an ignored strip, as int16 HU."""

    def make(channels: int = 1, size: int = 96) -> Sample:
        y, x = np.mgrid[:size, :size] / size
        radius = np.hypot(y - 0.5, x - 0.5)
        label = np.where(np.hypot(y - 0.5, x - 0.4) < 0.22, LIVER, 0).astype(np.uint8)
        label[np.hypot(y - 0.45, x - 0.35) < 0.07] = TUMOUR
        hu = np.select([label == LIVER, label == TUMOUR, radius < 0.42], [110, 60, 20], -1000)
        noise = np.random.default_rng(0).normal(0, 10, (channels, size, size))
        image = np.rint(hu + noise).astype(np.int16)
        lesion = np.where(label == TUMOUR, 3, 0).astype(np.int32)
        label[-4:] = IGNORE
        return Sample(image, label, lesion, 5)

    return make


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """Eight small labelled cases of eight patients, prepared as `tools/prepare.py` does; two have no tumour."""
    from core.data.prepare import prepare
    from core.data.store import Store

    folder = tmp_path_factory.mktemp("contracts")
    cases = []
    rng = np.random.default_rng(0)
    for i in range(8):
        image = rng.normal(50, 10, (40, 36, 6)).astype(np.int16)
        image[:3] = -1000  # air
        label = np.zeros(image.shape, np.uint8)
        label[8:28, 8:28, 1:5] = LIVER
        if i > 1:
            label[12 : 13 + i, 12:18, 2:4] = TUMOUR
        paths = [folder / f"volume-{i}.nii.gz", folder / f"segmentation-{i}.nii.gz"]
        for path, array in zip(paths, (image, label), strict=True):
            nibabel.save(nibabel.Nifti1Image(array, np.diag([0.8, 0.8, 3.0, 1.0])), path)
        part = "test" if i in (1, 5) else "train"
        cases.append(Case(f"volume-{i}", f"patient-{i}", *paths, origin="PHANTOM of the tests", part=part))

    class Source:
        def cases(self):
            return cases

    report = prepare(Source(), folder / "store", workers=1, source_config={"name": "tests"})
    assert not report.bad, report.table()
    return Store(folder / "store")
