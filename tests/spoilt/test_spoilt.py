"""Each spoilt input between two good ones: what it is told, and that the rest goes on as if it were not there."""

import runpy
import sys

import pytest
from make import GOOD, INPUTS, PAGE, page, prepared, write

from core.data.store import Store


def test_names_and_descriptions_are_unique():
    assert len({one.name for one in INPUTS}) == len({one.what for one in INPUTS}) == len(INPUTS)
    assert len(INPUTS) >= 30


@pytest.mark.parametrize("one", INPUTS, ids=lambda one: one.name)
def test_message_is_literal_the_rest_is_stored_and_again_changes_nothing(one):
    batch = prepared(one)
    assert batch.says == one.says
    taken = ["volume-12"] if one.taken else []
    assert sorted(batch.first.stored) == sorted([*GOOD, *taken])
    assert [case for case, _, _ in batch.first.bad] == ([] if one.taken else ["volume-12"])
    assert [case for case, _ in batch.first.notes if case in GOOD] == []
    assert batch.files == [".lock", "store.json", *(f"{case}.h5" for case in sorted([*GOOD, *taken]))]
    assert batch.again.stored == []
    assert sorted(batch.again.skipped) == sorted(batch.first.stored)
    assert (batch.again.bad, batch.again.notes) == (batch.first.bad, batch.first.notes)
    assert batch.audit == one.audit
    # A negative pixdim changes nothing beside a good sform: all else is named by the one or the other.
    assert one.says or one.audit or one.name == "negative_spacing"


def test_page_is_current():
    # The test above holds each answer, so the page is what comes out.
    assert PAGE.read_text(encoding="utf-8") == page([(one, one.says, one.audit) for one in INPUTS]), (
        "docs/spoilt.md: write it anew with python tests/spoilt/make.py --table"
    )


def test_tool_exits_with_1_and_prints_the_message(tmp_path, monkeypatch, capsys):
    bad = next(one for one in INPUTS if one.name == "a_nan")
    write(bad, tmp_path / "in")
    root = PAGE.parents[1]
    words = ["source.name=lits", f"source.root={tmp_path / 'in'}", f"store={tmp_path / 'store'}", "prepare.workers=1"]
    monkeypatch.setattr(sys, "argv", ["prepare.py", str(root / "experiments" / "quickstart.yaml"), *words])
    assert runpy.run_path(str(root / "tools" / "prepare.py"))["main"]() == 1
    assert capsys.readouterr().out == (
        f"store {tmp_path}/store: 2 cases (2 new, 0 unchanged)\n"
        f"1 bad cases, not in the store:\n"
        f"  volume-12  {tmp_path}/in/{bad.says}\n"
    )
    assert Store(tmp_path / "store").cases == tuple(GOOD)
