"""Each spoilt input between two good ones: what it is told, and that the rest goes on as if it were not there."""

import subprocess
import sys

import pytest
from make import GOOD, INPUTS, PAGE, page, rows, write

from core.data.store import Store


@pytest.fixture(scope="module")
def batches():
    return {one.name: (one, batch) for one, batch in rows()}


def test_names_and_descriptions_are_unique():
    assert len({one.name for one in INPUTS}) == len({one.what for one in INPUTS}) == len(INPUTS)
    assert len(INPUTS) >= 30


@pytest.mark.parametrize("one", INPUTS, ids=lambda one: one.name)
def test_message_is_literal_and_the_rest_is_stored(batches, one):
    _, batch = batches[one.name]
    assert batch.says == one.says
    assert ("volume-12" in batch.first.stored) == one.taken
    assert [case for case in batch.first.stored if case != "volume-12"] == GOOD
    assert [case for case, _, _ in batch.first.bad] == ([] if one.taken else ["volume-12"])
    assert [case for case, _ in batch.first.notes if case in GOOD] == []


@pytest.mark.parametrize("one", INPUTS, ids=lambda one: one.name)
def test_nothing_half_written_is_left_and_again_changes_nothing(batches, one):
    _, batch = batches[one.name]
    stored = sorted([*GOOD, *(["volume-12"] if one.taken else [])])
    assert batch.files == [".lock", "store.json", *(f"{case}.h5" for case in stored)]
    assert batch.again.stored == []
    assert batch.again.skipped == stored
    assert (batch.again.bad, batch.again.notes) == (batch.first.bad, batch.first.notes)


@pytest.mark.parametrize("one", [one for one in INPUTS if one.taken], ids=lambda one: one.name)
def test_what_prepare_takes_the_audit_finds(batches, one):
    _, batch = batches[one.name]
    assert batch.audit == one.audit
    assert batch.audit or batch.says or one.name == "negative_spacing"  # which nothing depends on


def test_page_is_current(batches):
    assert PAGE.read_text(encoding="utf-8") == page(list(batches.values())), (
        "docs/spoilt.md: write it anew with python tests/spoilt/make.py --table"
    )


def test_tool_exits_with_1_and_prints_the_message(tmp_path):
    bad = next(one for one in INPUTS if one.name == "a_nan")
    write(bad, tmp_path / "in")
    tool = [
        sys.executable,
        str(PAGE.parents[1] / "tools" / "prepare.py"),
        PAGE.parents[1] / "experiments" / "quickstart.yaml",
    ]
    words = ["source.name=lits", f"source.root={tmp_path / 'in'}", f"store={tmp_path / 'store'}", "prepare.workers=1"]
    done = subprocess.run([*tool, *words], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout == (
        f"store {tmp_path}/store: 2 cases (2 new, 0 unchanged)\n"
        f"1 bad cases, not in the store:\n"
        f"  volume-12  {tmp_path}/in/{bad.says}\n"
    )
    assert Store(tmp_path / "store").cases == tuple(GOOD)
