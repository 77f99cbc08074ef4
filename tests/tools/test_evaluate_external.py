import json

import pytest
from tiny_run import call, forgotten, make_run, write_split

from core.data.store import Store
from core.errors import UserError


def test_the_external_part_is_evaluated_apart_and_its_looks_are_counted(tmp_path, capsys):
    with forgotten():
        run = make_run(tmp_path)
        with pytest.raises(UserError) as error:
            call("evaluate", run, "--split", "external")
        assert str(error.value) == (
            f"the external split of {run} is empty (cases: train 1, val 1, test 3); nothing to evaluate.\n"
            f"  Train with a source that is external, or evaluate another one with --split"
        )
        parts = {"train": ["volume-11"], "val": ["volume-12"], "test": ["volume-13"]}
        write_split(run, {**parts, "external": ["volume-14", "volume-15"]}, Store(tmp_path / "store"))
        assert call("evaluate", run, "--split", "external") == 0
        assert call("evaluate", run, "--split", "external") == 0
    out = capsys.readouterr().out
    assert f"written to {run}/evaluation_external: cases.csv" in out
    assert "look 2 at this external split (looks.jsonl)" in out
    cases = (run / "evaluation_external" / "cases.csv").read_text()
    assert "volume-14" in cases
    assert "volume-13" not in cases
    assert not (run / "evaluation").exists()
    assert json.loads((run / "evaluation_external" / "summary.json").read_text())["liver"]["dice"]["n"] == 2
