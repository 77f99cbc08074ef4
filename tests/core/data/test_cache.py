"""Samples kept in memory: what is refused, what is shared, and what cannot change them."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from loading import assert_same, epochs, loader, odd_plugins, write_store

from core.data.memory import _of_container, size
from core.errors import UserError
from core.infer.geometry import Geometry

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def _odd(tmp_path_factory):
    with odd_plugins(tmp_path_factory.mktemp("plugins")):
        yield


def _refusal(store, **options):
    with pytest.raises(UserError) as error:
        loader(store, **options)
    return str(error.value)


@pytest.mark.parametrize(
    ("cache", "text"),
    [
        (
            "ram",
            "dataset.cache=ram: 24 samples take 33.8 kB, but 35.2 kB are free on this computer, of which a tenth is "
            "left for all else; set dataset.cache=none, or a smaller dataset.size",
        ),
        (
            "device",
            "dataset.cache=device: 24 samples take 33.8 kB, but 35.2 kB are free on cpu, of which a tenth is "
            "left for all else; set dataset.cache=ram or none, or a smaller dataset.size",
        ),
    ],
)
def test_what_would_not_fit_is_refused_with_the_numbers_before_anything_is_read(store, monkeypatch, cache, text):
    monkeypatch.setattr("core.data.cache.free_bytes", lambda device: 36_000)
    monkeypatch.setattr("core.data.cache._fill", None)
    assert _refusal(store, cache=cache) == text
    monkeypatch.setattr("core.data.cache.free_bytes", lambda device: 24 * 1440 / 0.9 + 1)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):  # it went on to fill
        loader(store, cache=cache)


@pytest.mark.parametrize("cache", ["ram", "device"])
def test_samples_that_may_differ_each_time_are_not_kept(store, cache):
    assert _refusal(store, cache=cache, dataset="{name: odd_slices, how: undeclared}") == (
        f"dataset.cache={cache}: data set 'odd_slices' may draw from its generator, so its samples differ each time "
        f"and cannot be kept; set dataset.cache=none (a data set that draws nothing says so with `draws = False`)"
    )


def test_transforms_cannot_reach_samples_on_the_device(store):
    assert _refusal(store, cache="device", transforms=("{name: flip}", "{name: noise}")) == (
        "dataset.cache=device: samples that are on the device cannot be transformed on the CPU (flip, noise); "
        "use `augment` instead of `transform`, or dataset.cache=ram"
    )


@pytest.mark.parametrize("cache", ["ram", "device"])
def test_samples_of_several_shapes_are_refused_and_one_size_mends_it(tmp_path, cache):
    store = write_store(tmp_path, sizes=((24, 20, 5), (32, 20, 5)))
    assert _refusal(store, cache=cache) == (
        f"dataset.cache={cache} keeps samples of one shape, but there are 1x20x24 (v-0), 1x20x32 (v-1); "
        f"set dataset.size, e.g. dataset.size=512"
    )
    geometry = Geometry(channels=3, divisor=4, size=16)
    assert_same(
        epochs(loader(store, cache=cache, geometry=geometry), (0, 0)), epochs(loader(store, geometry=geometry), (0, 0))
    )


def test_a_transform_that_writes_into_its_sample_changes_no_kept_one(store):
    spoilt = loader(store, cache="ram", transforms=("{name: spoil}",))
    assert (epochs(spoilt, (0, 0))[0].label == 7).all()
    kept, plain = spoilt.samples.kept.rows(0, 24), loader(store).samples.batch([(0, i, i) for i in range(24)])
    assert torch.equal(kept.image, plain.image)
    assert torch.equal(kept.label, plain.label)


@pytest.mark.parametrize("cache", ["ram", "device"])
@pytest.mark.parametrize(
    ("how", "error"), [("interrupt", KeyboardInterrupt), ("fail", ZeroDivisionError), ("refuse", UserError)]
)
def test_filling_can_be_interrupted_and_fails_with_the_error(store, cache, how, error):
    with pytest.raises(error):
        loader(store, cache=cache, dataset=f"{{name: odd_slices, how: {how}, at: 3}}")
    assert [t for t in threading.enumerate() if t.name.startswith("hepar-data")] == []


def test_kept_memory_is_gone_with_the_loader(store):
    found = loader(store, cache="ram", lesions=True)
    path = found.samples.kept.memory.path
    assert os.stat(path).st_size == 24 * 480 * (2 + 1 + 4)
    link = os.readlink(path)
    assert "memfd:hepar-data" in link
    del found
    assert link not in [os.readlink(p) for p in Path("/proc/self/fd").iterdir() if p.is_symlink() and p.exists()]


RANKS = """
import json, os, sys
sys.path[:0] = [{root!r}, {here!r}]
import registry
from core import dist
from loading import assert_same, epochs, loader
from pathlib import Path

if __name__ == "__main__":
    registry.discover("plugins")
    dist.start(60)
    options = dict(batch=6, rank=dist.rank(), world=dist.world(), lesions=True, workers=1)
    kept = loader(Path({store!r}), cache="ram", worker_start="fork", **options)
    plain = loader(Path({store!r}), worker_start="thread", **options)
    assert_same(epochs(kept, (0, 0), (1, 1)), epochs(plain, (0, 0), (1, 1)))
    inode = os.stat(kept.samples.kept.memory.path).st_ino
    Path({folder!r}, f"{{dist.rank()}}.json").write_text(json.dumps([inode, os.getpid()]))
    kept.close(), plain.close()
    dist.stop()
"""


@pytest.mark.slow
def test_ranks_of_one_computer_keep_the_samples_once(store, tmp_path):
    script = tmp_path / "ranks.py"
    here = str(Path(__file__).parent)
    script.write_text(RANKS.format(root=str(ROOT), here=here, store=str(store), folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert len({inode for inode, _ in found}) == 1
    assert len({process for _, process in found}) == 3


def test_a_containers_limit_counts_and_merely_cached_files_do_not(tmp_path):
    assert _of_container(tmp_path) == 1 << 62
    old = tmp_path / "memory"
    old.mkdir()
    for name, text in {
        "memory.limit_in_bytes": "9000",
        "memory.usage_in_bytes": "5000",
        "memory.stat": "cache 8\ntotal_inactive_file 700\n",
    }.items():
        (old / name).write_text(text)
    assert _of_container(tmp_path) == 9000 - 5000 + 700
    for name, text in {"memory.max": "8000\n", "memory.current": "6000\n", "memory.stat": "inactive_file 50\n"}.items():
        (tmp_path / name).write_text(text)
    assert _of_container(tmp_path) == 8000 - 6000 + 50
    (tmp_path / "memory.max").write_text("max\n")
    assert _of_container(tmp_path) == 9000 - 5000 + 700


def test_sizes_for_people():
    assert [size(n) for n in (3072, 5e6, 60e6, 11.4e9)] == ["3.0 kB", "4.8 MB", "0.1 GB", "10.6 GB"]
