"""Checkpoints are written beside the training: the loop only waits for a copy in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from core.train import checkpoint


class Writer:
    """Writes one checkpoint at a time in a thread; its errors come up in the training at the next `poll` or `wait`.

    Args:
        saved: called in the training's own thread with the path of each checkpoint that is whole.
    """

    def __init__(self, run: Path, keep: int, saved: Callable[[Path], None]) -> None:
        self.run, self.keep, self.saved = run, keep, saved
        self._thread: threading.Thread | None = None
        self._path: Path | None = None
        self._error: Exception | None = None

    def put(self, state: dict[str, Any], *, best: bool) -> None:
        """Copy the state to the host's memory and begin to write it; waits for the one before."""
        self.wait()
        copied = _on_host(state)

        def write() -> None:
            try:
                self._path = checkpoint.save(self.run, copied, keep=self.keep, best=best)
            except Exception as error:
                self._error = error

        self._thread = threading.Thread(target=write, name="checkpoint")
        self._thread.start()

    def poll(self) -> None:
        """Take note of a checkpoint that is done.

        Raises:
            CheckpointError: if it could not be written; earlier ones are intact.
        """
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written; raises like `poll`."""
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        error, path = self._error, self._path
        self._error = self._path = None
        if error is not None:
            raise error
        if path is not None:
            self.saved(path)


def _on_host(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _on_host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_host(item) for item in value)
    return value
