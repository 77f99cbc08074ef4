"""Metrics as lines of JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from core.contracts import RunState
from registry import register


@register("hook", "jsonl")
class Jsonl:
    """Writes ``metrics.jsonl`` in the run directory: one object a line, by step; no clock times, so runs can be diffed.

    Lines with ``train/...`` come every `train.log_every` steps, lines with ``val/...`` at each validation. Resuming
    cuts the file back to the checkpoint's step.

    Example: {name: jsonl}
    """

    def on_fit_start(self, state: RunState) -> None:
        """Cut the file back to the step that training goes on from."""
        path = _file(state)
        if not path.is_file():
            return
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step(line) <= state.step]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        os.replace(partial, path)

    def on_step_end(self, state: RunState, metrics: dict[str, float]) -> None:
        """Write a row of training metrics, if there is one."""
        if metrics:
            _append(state, metrics)

    def on_eval_end(self, state: RunState, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Write a row of validation metrics."""
        _append(state, metrics)


def _file(state: RunState) -> Path:
    return state.run / "metrics.jsonl"


def _append(state: RunState, metrics: dict[str, float]) -> None:
    with open(_file(state), "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": state.step, "epoch": state.epoch, **metrics}) + "\n")


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")  # a line that a kill cut short
