"""Batches are the same whoever makes them; errors and abandoned epochs."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import torch
from loading import assert_same, epochs, loader, odd_plugins, write_store

from core.data.samples import UsedAgain
from core.errors import UserError

FLIPS = ("{name: flip}", "{name: noise, p: 1.0}")
REFUSES = {"dataset": "{name: odd_slices, how: refuse, at: 9}", "sampler": "{name: in_order}"}
FAILS = {"dataset": "{name: odd_slices, how: fail, at: 9}", "sampler": "{name: in_order}"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("workers"))


@pytest.fixture(scope="module", autouse=True)
def _odd(tmp_path_factory):
    with odd_plugins(tmp_path_factory.mktemp("plugins")):
        yield


@pytest.fixture(scope="module")
def wanted(store):
    """The batches, made in place from the store."""
    return {t: epochs(loader(store, transforms=t, lesions=True, micro_batch=2), (0, 0), (1, 2)) for t in ((), FLIPS)}


def _data_threads():
    return [t for t in threading.enumerate() if t.name.startswith("hepar-data")]


def _none_left(found=lambda: _data_threads() + multiprocessing.active_children()):
    # The operating system takes a moment to end a process that was told to.
    end = time.monotonic() + 20
    while found() and time.monotonic() < end:
        time.sleep(0.02)
    return found() == []


@pytest.mark.parametrize(
    ("workers", "start", "cache", "transforms"),
    [
        (1, "thread", "none", FLIPS),
        (3, "thread", "none", ()),
        (2, "thread", "ram", FLIPS),
        (1, "fork", "none", ()),
        (2, "fork", "none", FLIPS),
        (2, "fork", "ram", ()),
        (1, "spawn", "none", FLIPS),
        (1, "spawn", "ram", FLIPS),
        (1, "forkserver", "ram", ()),
        (0, "auto", "ram", ()),
        (0, "auto", "ram", FLIPS),
        ("auto", "auto", "none", FLIPS),
        ("auto", "auto", "device", ()),
    ],
)
def test_batches_are_the_same_whoever_makes_them(store, wanted, workers, start, cache, transforms):
    options = {"transforms": transforms, "lesions": True, "micro_batch": 2, "cache": cache}
    found = loader(store, workers=workers, worker_start=start, prefetch=2, **options)
    assert_same(epochs(found, (0, 0), (1, 2)), wanted[transforms])
    assert_same(found.first(), wanted[transforms][:2])
    found.close()
    assert _none_left()


def test_a_data_set_from_a_file_is_found_in_a_spawned_process(store):
    options = {"dataset": "{name: odd_slices}", "lesions": True}
    found = loader(store, workers=1, worker_start="spawn", **options)
    assert_same(epochs(found, (0, 0)), epochs(loader(store, **options), (0, 0)))
    found.close()


@pytest.mark.parametrize(("workers", "start"), [(0, "thread"), (2, "thread"), (1, "fork")])
def test_what_a_worker_refuses_is_all_that_the_user_reads(store, workers, start):
    found = loader(store, workers=workers, worker_start=start, **REFUSES)
    batches = []
    with pytest.raises(UserError) as error:
        batches += [b for (b,) in found.epoch(0)]
    assert str(error.value) == "sample 9 cannot be had; leave it out"
    found.close()
    assert _none_left()


@pytest.mark.parametrize(("workers", "start"), [(0, "thread"), (2, "thread"), (1, "fork")])
def test_any_other_error_shows_where_it_happened_and_comes_in_its_turn(store, workers, start):
    found = loader(store, workers=workers, worker_start=start, **FAILS)
    epoch = found.epoch(0)
    assert [next(epoch)[0].indices, next(epoch)[0].indices] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(ZeroDivisionError) as error:
        next(epoch)
    shown = "".join(traceback.format_exception(error.value))
    assert 'raise ZeroDivisionError(f"sample {index}")' in shown
    assert "odd.py" in shown
    found.close()
    assert _none_left()


@pytest.mark.parametrize("start", ["thread", "fork"])
def test_an_abandoned_epoch_ends_and_another_begins_anew(store, start):
    found = loader(store, workers=2, worker_start=start, transforms=FLIPS)
    want = epochs(loader(store, transforms=FLIPS), (1, 0))
    for step in found.epoch(0):
        assert step[0].positions == [0, 1, 2, 3]
        break
    del step
    assert _data_threads() == []
    assert_same(epochs(found, (1, 0)), want)
    # One that is still held is ended by the next.
    held = found.epoch(0)
    next(held)
    assert_same(epochs(found, (1, 0)), want)
    assert next(held, None) is None
    found.close()
    assert _none_left()


@pytest.mark.parametrize("start", ["thread", "fork"])
def test_close_ends_an_epoch_that_an_exception_keeps_alive(store, start):
    found = loader(store, workers=2, worker_start=start)

    def train():
        for _ in found.epoch(0):
            raise RuntimeError("in the step")

    with pytest.raises(RuntimeError, match=r"^in the step$") as error:
        train()
    found.close()
    assert _none_left()
    assert error.value is not None


def test_threads_are_at_most_so_many_micro_batches_ahead(store, monkeypatch):
    found = loader(store, workers=2, worker_start="thread", prefetch=1, batch=2)
    made, count = [], type(found.samples).batch
    monkeypatch.setattr(
        type(found.samples), "batch", lambda self, keys, *rest: made.append(keys) or count(self, keys, *rest)
    )
    epoch = found.epoch(0)
    for step in range(3):
        next(epoch)
        time.sleep(0.2)  # whoever would run on has the time to
        assert len(made) <= step + 2
    found.close()


def test_a_killed_worker_is_named_with_what_to_do(store):
    found = loader(store, workers=2, worker_start="fork", batch=1)
    epoch = found.epoch(0)
    next(epoch)
    worker = multiprocessing.active_children()[0]
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError) as error:
        list(epoch)
    assert str(error.value) == (
        f"data process {worker.pid} was killed by SIGKILL; if memory ran out, try a smaller train.prefetch, "
        f"fewer train.workers, or train.worker_start=thread"
    )
    found.close()
    assert _none_left()


def test_processes_end_with_a_loader_that_nobody_closed(store):
    found = loader(store, workers=2, worker_start="fork")
    next(found.epoch(0))
    assert len(multiprocessing.active_children()) == 2
    del found
    assert _none_left()


def test_micro_batches_larger_than_the_first_sample_told_travel_too(store):
    options = {"dataset": "{name: odd_slices, how: first smaller}", "sampler": "{name: in_order}", "batch": 1}
    found = loader(store, workers=2, worker_start="fork", prefetch=2, **options)
    want = epochs(loader(store, **options), (0, 0))
    assert [tuple(b.label.shape) for b in want[:2]] == [(1, 16, 24), (1, 20, 24)]
    assert_same(epochs(found, (0, 0), (0, 3)), want + want[3:])
    found.close()


ORPHANS = """
import os, signal, sys
sys.path[:0] = [{root!r}, {here!r}]
import multiprocessing, registry
from loading import loader
from pathlib import Path

if __name__ == "__main__":
    registry.discover("plugins")
    found = loader(Path({store!r}), workers=2, worker_start="fork")
    next(found.epoch(0))
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_processes_end_with_a_training_that_is_killed(store, tmp_path):
    script, here = tmp_path / "orphans.py", Path(__file__).resolve().parent
    script.write_text(ORPHANS.format(root=str(here.parents[2]), here=str(here), store=str(store)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    children = [int(pid) for pid in done.stdout.split()]
    assert len(children) == 2
    assert _none_left(lambda: [pid for pid in children if Path(f"/proc/{pid}/cmdline").exists() and _runs(pid)])


def _runs(pid):
    # A process that nobody has waited for yet has ended all the same.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_memory_goes_round_but_never_while_a_batch_is_held():
    memory = UsedAgain(most=2)

    def lend(shape=(2, 3), dtype=torch.int16):
        return memory(shape, dtype)

    first = lend()
    place = first.data_ptr()
    held = first[1:].numpy()  # what was made from it holds it
    del first
    assert lend().data_ptr() != place
    del held
    others = [lend((3, 2)), lend(dtype=torch.uint8)]
    assert place not in [t.data_ptr() for t in others]
    assert (others[1].shape, others[1].dtype) == ((2, 3), torch.uint8)
    again = [lend(), lend()]
    assert place in [t.data_ptr() for t in again]
    assert again[0].data_ptr() != again[1].data_ptr()
    many = [lend((4,)) for _ in range(5)]
    del many, again, others
    assert len(memory._free) == 2
