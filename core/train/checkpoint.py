"""Checkpoints: written whole or not at all, the last K kept, a corrupt newest one passed over with a message."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.errors import UserError

FOLDER = "checkpoints"
_NAME = re.compile(r"step_(\d+)\.pt")


class CheckpointError(UserError):
    """A checkpoint that cannot be read."""


def save(run: Path, state: dict[str, Any], *, keep: int, best: bool) -> Path:
    """Write the checkpoint of ``state["step"]``, name it the best if it is, and drop all but the last `keep`.

    Raises:
        CheckpointError: when the disk is full or the folder cannot be written; earlier checkpoints stay as they are.
    """
    folder = run / FOLDER
    path = folder / f"step_{state['step']:08d}.pt"
    partial = folder / f"{path.name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        _check_readable(partial)
        if best:
            # A second name for the same bytes, and first: killed in between, the epoch is repeated and put right.
            link = folder / "best.pt.partial"
            link.unlink(missing_ok=True)
            try:
                os.link(partial, link)
            except OSError:  # a file system without hard links
                shutil.copyfile(partial, link)
            os.replace(link, folder / "best.pt")
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError of its zip writer.
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path}: the checkpoint could not be written: {error}; earlier ones are intact"
        ) from error
    for old in _steps(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def _check_readable(path: Path) -> None:
    # Mapped, so no weights are read: a state of a schedule or a hook that only pickle can load must not wait for the
    # resume to be found out.
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{path.parent}: a checkpoint may hold tensors, numbers, words, lists and dicts only; the state of a "
            f"schedule or hook holds something else ({str(error).splitlines()[0]})"
        ) from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        CheckpointError: if it is missing, cut short or not a checkpoint of Hepar.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(state, dict) or "network" not in state or "step" not in state:
        raise CheckpointError(f"{path}: a torch file, but not a checkpoint of Hepar")
    return state


def newest(run: Path, say: Callable[[str], None] = warnings.warn) -> dict[str, Any] | None:
    """The newest readable checkpoint of a run, or None if it has none.

    Raises:
        CheckpointError: if there are some, and none is readable.
    """
    paths = _steps(run / FOLDER)
    best = run / FOLDER / "best.pt"
    for path in [*reversed(paths), *([best] if best.is_file() else [])]:
        try:
            return load(path)
        except CheckpointError as error:
            say(f"{error}; going back to the one before")
    if paths:
        raise CheckpointError(f"{run / FOLDER}: no checkpoint is readable; delete the run to start again")
    return None


def sweep(run: Path, step: int) -> None:
    """Before going on from `step`: remove what a kill left half-written, and set aside what could not be read.

    Nobody else may be reading or writing. Newer files stay as ``step_....pt.unreadable``.
    """
    for path in (run / FOLDER).glob("*.partial"):
        path.unlink(missing_ok=True)
    for path in _steps(run / FOLDER):
        if int(path.stem.split("_")[1]) > step:
            os.replace(path, path.with_name(f"{path.name}.unreadable"))


def find(run: Path, name: str) -> Path:
    """The file of checkpoint ``best``, ``last``, or a path."""
    if name == "best":
        return run / FOLDER / "best.pt"
    if name == "last":
        paths = _steps(run / FOLDER)
        return paths[-1] if paths else run / FOLDER / "step_none.pt"
    return Path(name)


def weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The weights to evaluate and predict with: the averaged ones where the run kept them."""
    chosen: dict[str, torch.Tensor] = state["ema"] if state.get("ema") is not None else state["network"]
    return chosen


def fit(network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path | str) -> None:
    """Load weights into a network.

    Raises:
        CheckpointError: naming the first keys or shapes that differ.
    """
    own = network.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or extra or other:
        lines = [f"{path}: a checkpoint of another model than the experiment's"]
        lines += [f"  missing in the checkpoint: {', '.join(missing[:3])} ({len(missing)} in all)"] if missing else []
        lines += [f"  only in the checkpoint: {', '.join(extra[:3])} ({len(extra)} in all)"] if extra else []
        for key in sorted(other)[:3]:
            lines.append(f"  {key}: {list(state[key].shape)} in the checkpoint, {list(own[key].shape)} in the model")
        raise CheckpointError("\n".join(lines))
    network.load_state_dict(state)


def _steps(folder: Path) -> list[Path]:
    found = [p for p in folder.glob("step_*.pt") if _NAME.fullmatch(p.name)] if folder.is_dir() else []
    return sorted(found, key=lambda p: int(p.stem.split("_")[1]))
