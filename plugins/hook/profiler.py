"""Where the time of a few steps goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerAction, ProfilerActivity, profile

from core.contracts import RunState
from registry import register


@register("hook", "profiler")
class Profiler:
    """Traces some steps with torch's profiler, on the CPU and on a GPU.

    Writes ``profile/steps_A-B.json`` in the run directory (open it in chrome://tracing or ui.perfetto.dev) and
    ``profile/steps_A-B.txt``, the operators that took longest. Steps count from 1, as in the logs. The trace ends with
    the epoch, so that no validation gets into it. A run that is resumed after `last` traces nothing. Profiled steps are
    slower; their shares tell, not their sum.

    Args:
        first: first step of the trace; the step before it warms the profiler up.
        last: last step of the trace.
        rows: operators in the table.

    Raises:
        ValueError: for steps below 1 or in the wrong order, or no rows.

    Example: {name: profiler, first: 11, last: 15}
    """

    def __init__(self, *, first: int = 11, last: int = 15, rows: int = 30) -> None:
        if not 1 <= first <= last:
            raise ValueError(f"want 1 <= first <= last, got first {first} and last {last}")
        if rows < 1:
            raise ValueError(f"rows must be at least 1, got {rows}")
        self._first, self._last, self._rows = first, last, rows
        self._profile: profile | None = None
        self._done = False
        self._begun = 0
        self._step = 0

    def on_fit_start(self, state: RunState) -> None:
        """Begin, if the first step is the next."""
        self._begin(state)

    def on_step_end(self, state: RunState, metrics: dict[str, float]) -> None:
        """Begin, go on or end."""
        self._step = state.step
        if self._profile is None:
            self._begin(state)
        else:
            self._profile.step()
            if state.step >= self._last:
                self._end()

    def on_epoch_end(self, state: RunState) -> None:
        """End: a validation may follow."""
        self._end()

    def on_eval_end(self, state: RunState, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Begin, if the first step is the next."""
        self._begin(state)

    def on_fit_end(self, state: RunState, reason: str) -> None:
        """End a trace that a short training cuts off."""
        self._end()

    def on_failed(self, state: RunState, error: Exception) -> None:
        """End; the steps before the failure are written."""
        self._end()

    def _begin(self, state: RunState) -> None:
        if self._done or not self._first - 2 <= state.step < self._last:
            return
        warmup = int(state.step == self._first - 2)
        self._begun, self._step = state.step + warmup, state.step
        count, folder = warmup + self._last - self._begun, state.run / "profile"

        def action(step: int) -> ProfilerAction:
            if step >= count:
                return ProfilerAction.NONE
            if step < warmup:
                return ProfilerAction.WARMUP
            return ProfilerAction.RECORD_AND_SAVE if step == count - 1 else ProfilerAction.RECORD

        if not torch.cuda.is_available():
            os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # else it reports the lack of a GPU as an error
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._profile = profile(activities=activities, schedule=action, on_trace_ready=lambda p: self._write(p, folder))
        self._profile.start()

    def _end(self) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile, self._done = None, self._step > self._begun  # a warm-up alone does not count

    def _write(self, trace: Any, folder: Path) -> None:
        if self._step <= self._begun:
            return  # nothing but the warm-up
        folder.mkdir(parents=True, exist_ok=True)
        name = folder / f"steps_{self._begun + 1}-{self._step}"
        trace.export_chrome_trace(str(name.with_suffix(".json")))
        order = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = trace.key_averages().table(sort_by=order, row_limit=self._rows, max_name_column_width=60)
        name.with_suffix(".txt").write_text(table, encoding="utf-8")
