"""What the README shows, run."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_loss_passes_the_contract_tests(tmp_path):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "my_loss.py").write_text(code)
    command = [sys.executable, "-m", "pytest", str(ROOT / "tests/contracts"), "--plugins", "my_loss.py", "-k", "brier"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_readme_experiment_plans(tmp_path):
    from core.experiment import load

    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "my_loss.py").write_text(code)
    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    (tmp_path / "mine.yaml").write_text(text.replace("experiments/", f"{ROOT}/experiments/"))
    experiment = load(tmp_path / "mine.yaml")
    assert [plan.name for plan in experiment.loss] == ["brier", "dice"]
    assert experiment.loss[0].args == {"power": 1.5}


def test_every_file_that_the_readme_names_is_there():
    for name in re.findall(r"\]\(([\w/.]+)\)|((?:tools|experiments)/\w+\.(?:py|yaml))", README):
        assert (ROOT / (name[0] or name[1])).is_file(), name
