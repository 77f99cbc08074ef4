"""tools/bench.py on scans of a few kilobytes, as a user runs it."""

import importlib.util
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def harness():
    """tests/core/train/harness.py, which lies on the path of other tests only."""
    spec = importlib.util.spec_from_file_location("bench_harness", ROOT / "tests" / "core" / "train" / "harness.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_bench(here: Path) -> Path:
    """An experiment with scans, not yet prepared, and a folder for temporary files beside it."""
    harness().experiment(here, split={"name": "stratified", "test": 0.125, "val": 0.125, "seed": 0})
    (here / "tmp").mkdir()
    return here


def environment(folder):
    kept = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}


def command(*words):
    return [sys.executable, str(ROOT / "tools" / "bench.py"), *map(str, words)]


def bench(folder, *words, **more):
    return subprocess.run(
        command(*words),
        cwd=folder,
        env={**environment(folder), **more},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def left_behind(folder):
    """What lies in the folder for temporary files; but torch keeps compiled code there."""
    return [path.name for path in (folder / "tmp").iterdir() if not path.name.startswith("torchinductor")]


def measured(folder, *words):
    """The JSON of a run that worked and left nothing behind, and what it printed."""
    before = {path for path in folder.iterdir() if path.name != "store"}
    done = bench(folder, *words, "--json", "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path for path in folder.iterdir() if path.name not in ("store", "out.json")} == before
    assert left_behind(folder) == []
    data = json.loads((folder / "out.json").read_text())
    (folder / "out.json").unlink()
    assert data["bench"] == words[0]
    assert data["command"].endswith(f"bench.py {shlex.join(map(str, words))} --json out.json")
    assert data["cpu"]
    assert data["busy"] >= 0
    assert (data["cores"] >= 1, data["threads"], data["memory_gb"] > 0) == (True, 1, True)
    assert {"torch", "numpy", "h5py", "hdf5plugin", "nibabel"} <= {k for k, v in data["versions"].items() if v}
    return data, done.stdout


def rows(data, table):
    return {row["row"]: row for row in data["tables"][table]["rows"]}


def assert_speeds(data, table, keys, blocks):
    """These figures of every row are positive, with a value a block, or left out where the row has none."""
    for name, row in rows(data, table).items():
        for key in keys:
            figure = row.get(key)
            if figure is None:
                continue
            values = figure["values"] if isinstance(figure, dict) else [figure]
            assert all(math.isfinite(v) and v > 0 for v in values), (table, name, key)
            if isinstance(figure, dict):
                assert len(values) == blocks
                assert figure["low"] <= figure["median"] <= figure["high"]
