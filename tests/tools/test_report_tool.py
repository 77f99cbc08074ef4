import pytest

from core.errors import UserError
from tests.core.report.fake_evaluation import make
from tests.tools.tiny_run import call


def test_a_run_gets_the_page_of_each_of_its_evaluations(tmp_path, capsys):
    for name in ("evaluation", "evaluation_val"):
        make(tmp_path / "run" / name, [("a", [(12, 40, 60, 6, "found")])])
    assert call("report", tmp_path / "run") == 0
    said = capsys.readouterr().out
    for name in ("evaluation", "evaluation_val"):
        path = tmp_path / "run" / name / "report.html"
        assert path.read_text().startswith("<!doctype html>")
        assert f"written: {path} (0." in said


def test_a_folder_without_an_evaluation_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no evaluation in it \(no summary.json\); run tools/evaluate.py"):
        call("report", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        call("report", tmp_path / "nowhere")
