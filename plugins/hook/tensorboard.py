"""TensorBoard event files."""

from __future__ import annotations

from typing import Any

from core.contracts import RunState
from registry import register


@register("hook", "tensorboard")
class TensorBoard:
    """Writes ``tensorboard/`` in the run directory: losses, learning rate, validation, cost, the config as text.

    Resuming hides what was written after the checkpoint's step. Look with ``tensorboard --logdir runs``.

    Example: {name: tensorboard}
    """

    def __init__(self) -> None:
        self._writer: Any = None

    def on_fit_start(self, state: RunState) -> None:
        """Open the writer."""
        from torch.utils.tensorboard import SummaryWriter

        purge = None if state.resumed_from is None else state.step + 1
        self._writer = SummaryWriter(str(state.run / "tensorboard"), purge_step=purge)
        if purge is None:
            self._writer.add_text("config", "```yaml\n" + state.config + "\n```", 0)

    def on_step_end(self, state: RunState, metrics: dict[str, float]) -> None:
        """Write training metrics and what the steps cost."""
        if metrics:
            self._scalars(metrics, state.step)
            self._scalars({f"cost/{name}": value for name, value in state.cost.items()}, state.step)

    def on_eval_end(self, state: RunState, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Write validation metrics and the distribution of the per-case Dice."""
        self._scalars(metrics, state.step)
        for structure in ("liver", "tumour"):
            dice = [r["dice"] for r in rows if r.get("structure") == structure and r.get("dice") is not None]
            if dice:
                import numpy as np

                self._writer.add_histogram(f"val_cases/{structure}_dice", np.asarray(dice), state.step)
        self._writer.flush()

    def on_fit_end(self, state: RunState, reason: str) -> None:
        """Close the writer."""
        self._writer.close()

    def on_failed(self, state: RunState, error: Exception) -> None:
        """Close the writer, if it was opened."""
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
