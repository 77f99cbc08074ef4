"""What training shows in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from core.contracts import RunState
from registry import register

EVERY_S = 1.0
"""Least time between two plain lines."""


@register("hook", "progress")
class Progress:
    """A progress bar over all steps, and a line for each validation; plain lines where there is no terminal.

    The bar shows the time that is left (at the mean pace so far, validations included), the loss, the share of time
    spent waiting for data, images a second and the gradient's norm, as far as the terminal is wide enough.

    Args:
        metrics: what the line of a validation shows, where it exists.

    Example: {name: progress}
    """

    def __init__(
        self, *, metrics: tuple[str, ...] = ("val/loss", "val/score", "val/liver/dice", "val/tumour/dice")
    ) -> None:
        self._shown = metrics
        self._bar: Any = None

    def on_fit_start(self, state: RunState) -> None:
        """Open the bar."""
        from tqdm import tqdm

        if state.resumed_from is not None:
            self._say(f"going on from step {state.resumed_from}")
        self._from, self._since, self._said = state.step, time.monotonic(), 0.0
        if sys.stderr.isatty():
            self._bar = tqdm(
                desc="train",
                total=state.total_steps,
                initial=state.step,
                smoothing=0,
                dynamic_ncols=True,
                bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} eta {remaining}{postfix}",
            )

    def on_step_end(self, state: RunState, metrics: dict[str, float]) -> None:
        """Move the bar, or write a line."""
        if self._bar is not None:
            if metrics:
                self._bar.set_postfix_str(self._fitting(_figures(state, metrics), state), refresh=False)
            self._bar.update(state.step - self._bar.n)
        elif metrics and (time.monotonic() - self._said >= EVERY_S or state.step >= state.total_steps):
            self._said = time.monotonic()
            pace = (self._said - self._since) / (state.step - self._from)
            left = _clock(pace * (state.total_steps - state.step))
            head = f"step {state.step}/{state.total_steps}  epoch {state.epoch}  eta {left}"
            self._say("  ".join([head, *_figures(state, metrics)]))

    def on_eval_start(self, state: RunState) -> None:
        """Say why the bar stands still."""
        if self._bar is not None:
            self._bar.set_description_str("valid")

    def on_eval_end(self, state: RunState, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Print the validation's line."""
        shown = "  ".join(f"{n.removeprefix('val/')} {metrics[n]:.4f}" for n in self._shown if n in metrics)
        self._say(f"epoch {state.epoch}  step {state.step}  val: {shown}")
        if self._bar is not None:
            self._bar.set_description_str("train")

    def on_fit_end(self, state: RunState, reason: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def on_failed(self, state: RunState, error: Exception) -> None:
        """Close the bar, so that the error stands on a line of its own."""
        if self._bar is not None:
            self._bar.close()

    def _fitting(self, figures: list[str], state: RunState) -> str:
        """As many of the figures as leave room for a bar; tqdm would cut the last one in two."""
        total = str(state.total_steps)
        room = (self._bar.format_dict["ncols"] or 80) - len(f"train 100% |######| {total}/{total} eta 00:00:00, ")
        while figures and len(" ".join(figures)) > room:
            figures = figures[:-1]
        return " ".join(figures)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)


def _figures(state: RunState, metrics: Mapping[str, float]) -> list[str]:
    """What is shown of the last steps, what matters most first."""
    speed = state.cost.get("images_per_s", 0)
    return [
        f"loss {metrics['train/loss']:.4f}",
        f"wait {100 * state.cost.get('loader_wait', 0):.0f}%",
        f"{speed:.{0 if speed >= 100 else 1}f} img/s",
        f"grad {metrics['train/gradient_norm']:.2f}",
    ]


def _clock(seconds: float) -> str:
    from tqdm import tqdm

    return str(tqdm.format_interval(seconds))
