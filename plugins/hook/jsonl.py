"""Metrics as lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core import rundir
from core.contracts import RunState
from registry import register


@register("hook", "jsonl")
class Jsonl:
    """Writes ``metrics.jsonl`` in the run directory: one object a line, by step; no clock times, so runs can be diffed.

    Lines with ``train/...`` come every `train.log_every` steps, lines with ``val/...`` at each validation, lines with
    ``sampler/...`` (what it drew) at each epoch's end. Resuming cuts the file back to what the checkpoint knows of.

    Example: {name: jsonl}
    """

    def on_fit_start(self, state: RunState) -> None:
        """Cut the file back to the steps and the validations that training goes on from."""
        path = _file(state)
        if path.is_file():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            rundir.write(path, "".join(f"{line}\n" for line in lines if _stays(line, state)))

    def on_step_end(self, state: RunState, metrics: dict[str, float]) -> None:
        """Write a row of training metrics, if there is one."""
        if metrics:
            _append(state, metrics)

    def on_epoch_end(self, state: RunState) -> None:
        """Write a row of what the sampler drew."""
        if state.drawn:
            _append(state, {f"sampler/{name}": value for name, value in state.drawn.items()})

    def on_eval_end(self, state: RunState, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Write a row of validation metrics."""
        _append(state, metrics)


def _file(state: RunState) -> Path:
    return state.run / "metrics.jsonl"


def _append(state: RunState, metrics: dict[str, float]) -> None:
    with open(_file(state), "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": state.step, "epoch": state.epoch, **metrics}) + "\n")


def _stays(line: str, state: RunState) -> bool:
    try:
        row = json.loads(line)
        # A checkpoint is written before its epoch's end is worked off too, which is then done again.
        ending = any(name.startswith(("val/", "sampler/")) for name in row)
        return float(row["step"]) <= (state.evaluated_step if ending else state.step)
    except (json.JSONDecodeError, KeyError, TypeError):
        return False  # a line that a kill cut short
