"""The run directory: made once, locked while in use, never overwritten."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from core import config, experiment
from core.errors import UserError
from core.experiment import Experiment

_PACKAGES = ("torch", "segmentation-models-pytorch", "timm", "albumentations", "numpy", "nibabel", "h5py", "hdf5plugin")


_LAUNCH = ".launch"
"""Names the torchrun that began or resumed the run."""


class RunError(UserError):
    """A run directory that cannot be used as asked."""


def check(wanted: Experiment, *, resume: bool) -> None:
    """Refuse, before any long work, a run directory that training could not use.

    Raises:
        RunError: if it exists and is not resumed, or is resumed with another configuration.
    """
    run = wanted.run
    if not run.exists() or (run.is_dir() and all(_is_beginning(path.name) for path in run.iterdir())):
        return
    if not run.is_dir():
        raise RunError(f"{run}: a file, but the run directory should be there; name another with run=...")
    if not (run / "config.yaml").is_file():
        raise RunError(f"{run}: exists, but is no run directory (it has no config.yaml); name another with run=...")
    if not resume:
        raise RunError(
            f"{run}: this run exists and is not overwritten\n"
            f"  go on with it:  add --resume\n"
            f"  begin another:  add run={_free(run)}"
        )
    different = experiment.changes(experiment.load(run), wanted)
    if different:
        raise RunError(
            f"{run}: --resume, but the configuration has changed\n"
            + "\n".join(f"  {line}" for line in different)
            + f"\n  put it back, or begin another run: run={_free(run)}"
        )


def is_restart(run: Path) -> bool:
    """Whether torchrun (``--max-restarts``) has started this process again after its ranks had begun this very run."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) == 0:
        return False
    path = run / _LAUNCH
    return path.is_file() and path.read_text(encoding="utf-8") == _launch()


class RunLock:
    """Holds a run directory for one training; a second one is refused. Released with the process, however it ends."""

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._file = open(run / ".lock", "w")  # noqa: SIM115
        try:
            # Not flock: data workers would inherit it and keep it for a while after a killed training.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise RunError(
                    f"{run}: another process is training in it; wait, or name another with run=..."
                ) from None
            # Some network file systems have no locks.
            print(f"note: {run}: cannot be locked ({error.strerror}); see to it that nothing else trains in it")

    def release(self) -> None:
        """Let others in."""
        self._file.close()


def record(wanted: Experiment, parts: Mapping[str, Sequence[str]], hashes: Mapping[str, str]) -> None:
    """Write what the run is made of: configuration, source, split, command, environment. Each file whole or not at all.

    On a resume the split stays as it was, and the command is added.
    """
    run = wanted.run
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    lines = (run / "command.txt").read_text(encoding="utf-8") if (run / "command.txt").is_file() else ""
    write(run / "command.txt", f"{lines}{command}\n")
    write(run / "environment.json", json.dumps(environment(), indent=1))
    write(run / "source.yaml", config.dump(wanted.source.plain()))
    write(run / _LAUNCH, _launch())
    if read_split(run) is None:
        text = {"parts": {name: list(cases) for name, cases in parts.items()}, "hashes": dict(hashes)}
        write(run / "split.json", json.dumps(text, indent=1))
    # Last: with config.yaml in it, the folder is a run.
    write(run / "config.yaml", wanted.resolved())


def read_split(run: Path) -> tuple[dict[str, list[str]], dict[str, str]] | None:
    """The run's recorded parts and content hashes, or None before it began (a start that failed leaves no split)."""
    path = run / "split.json"
    if not path.is_file() or not (run / "config.yaml").is_file():
        return None
    text = json.loads(path.read_text(encoding="utf-8"))
    return text["parts"], text["hashes"]


def versions() -> dict[str, str | None]:
    """The installed packages that a result depends on."""
    found: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def environment() -> dict[str, Any]:
    """Commit, versions and devices."""
    cuda = torch.cuda.is_available()
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else ["cpu"],
        "threads": torch.get_num_threads(),
        "world": int(os.environ.get("WORLD_SIZE", 1)),
    }


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _is_beginning(name: str) -> bool:
    # What a start that failed before it became a run may leave; without config.yaml there is nothing to lose.
    written = ("command.txt", "environment.json", "source.yaml", "split.json")
    return name in (".lock", _LAUNCH, *written) or (name.startswith(".") and name.endswith(".partial"))


def _launch() -> str:
    local = os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE")
    # The parent is torchrun's agent; over several nodes a restart may put rank 0 under another one.
    return f"{os.environ.get('TORCHELASTIC_RUN_ID', '')}:{os.getppid() if local else ''}"


def _git(*args: str) -> str | None:
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _free(run: Path) -> Path:
    n = 2
    while (run.parent / f"{run.name}_{n}").exists():
        n += 1
    return run.parent / f"{run.name}_{n}"
