"""What training shows in the terminal."""

from __future__ import annotations

import sys
from typing import Any

from core.contracts import RunState
from registry import register


@register("hook", "progress")
class Progress:
    """A progress bar over all steps, and a line for each validation; plain lines where there is no terminal.

    The bar shows the loss, the gradient's norm, images a second and the share of time spent waiting for data.

    Args:
        metrics: what the line of a validation shows, where it exists.

    Example: {name: progress}
    """

    def __init__(
        self,
        *,
        metrics: tuple[str, ...] = ("val/loss", "val/liver/dice", "val/tumour/dice", "val/dice_macro_foreground"),
    ) -> None:
        self._shown = metrics
        self._bar: Any = None

    def on_fit_start(self, state: RunState) -> None:
        """Open the bar."""
        from tqdm import tqdm

        if state.resumed_from is not None:
            self._say(f"going on from step {state.resumed_from}")
        if sys.stderr.isatty():
            self._bar = tqdm(total=state.total_steps, initial=state.step, desc="train", unit="step", dynamic_ncols=True)

    def on_step_end(self, state: RunState, metrics: dict[str, float]) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(state.step - self._bar.n)
        if not metrics:
            return
        cost = state.cost
        shown = {
            "loss": f"{metrics['train/loss']:.4f}",
            "grad": f"{metrics['train/gradient_norm']:.2f}",
            "img/s": f"{cost.get('images_per_s', 0):.1f}",
            "wait": f"{100 * cost.get('loader_wait', 0):.0f}%",
        }
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        else:
            values = "  ".join(f"{key} {value}" for key, value in shown.items())
            self._say(f"step {state.step}/{state.total_steps}  epoch {state.epoch}  {values}")

    def on_eval_end(self, state: RunState, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Print the validation's line."""
        values = "  ".join(f"{name} {metrics[name]:.4f}" for name in self._shown if name in metrics)
        self._say(f"epoch {state.epoch}  step {state.step}  {values}")

    def on_fit_end(self, state: RunState, reason: str) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()

    def on_failed(self, state: RunState, error: Exception) -> None:
        """Close the bar, so that the error stands on a line of its own."""
        if self._bar is not None:
            self._bar.close()

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)
