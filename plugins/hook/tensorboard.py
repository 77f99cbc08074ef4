"""TensorBoard event files."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.contracts import RunState
from registry import register


@register("hook", "tensorboard")
class TensorBoard:
    """Writes ``tensorboard/`` in the run directory: figures, pictures of validation slices, the config as text.

    Under ``train/`` losses, gradient norm and learning rate; under ``val/`` the validation's figures; under ``cost/``
    images a second, the share of time spent waiting for data, and memory; under ``val_cases/`` the distribution of the
    per-case Dice; under ``sampler/`` what the sampler drew in an epoch; under ``examples/`` CT, reference and
    prediction of a few slices, the same ones each time. Resuming hides what was written after the checkpoint. Look with
    ``tensorboard --logdir runs``.

    Args:
        images: whether the slices are drawn; at 512 x 512 one takes about 0.3 MB of the event file each time.

    Example: {name: tensorboard, images: true}
    """

    def __init__(self, *, images: bool = True) -> None:
        self._images = images
        self._writer: Any = None
        self._last: dict[str, Any] = {"step": -1, "values": {}}

    def on_fit_start(self, state: RunState) -> None:
        """Open the writer; after a resume, hide what the checkpoint knows nothing of."""
        from torch.utils.tensorboard import SummaryWriter

        # What has this very step: kept if it was validated. If not, there may be a validation that the checkpoint knows
        # nothing of and that is done again; it is hidden together with the step's training row, which is then put back.
        known = 0 < state.step == state.evaluated_step
        purge = None if state.resumed_from is None else state.step + int(known)
        self._writer = SummaryWriter(str(state.run / "tensorboard"), purge_step=purge)
        if state.step == 0:
            self._writer.add_text("config", "```yaml\n" + state.config + "\n```", 0)
        elif not known and self._last["step"] == state.step:
            self._scalars(self._last["values"], state.step)
        self._writer.flush()

    def on_step_end(self, state: RunState, metrics: dict[str, float]) -> None:
        """Write training metrics and what the steps cost."""
        if metrics:
            values = {**metrics, **{f"cost/{name}": value for name, value in state.cost.items()}}
            self._last = {"step": state.step, "values": values}
            self._scalars(values, state.step)
            # At once: a kill would take what is not in the file yet, and a resume never brings it back.
            self._writer.flush()

    def on_epoch_end(self, state: RunState) -> None:
        """Write what the sampler drew."""
        self._scalars({f"sampler/{name}": value for name, value in state.drawn.items()}, state.step)

    def on_eval_end(self, state: RunState, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Write validation metrics, the distribution of the per-case Dice, and the slices."""
        self._scalars(metrics, state.step)
        for structure in ("liver", "tumour"):
            dice = [r["dice"] for r in rows if r.get("structure") == structure and r.get("dice") is not None]
            if dice:
                bins = np.linspace(0, 1, 21)
                self._writer.add_histogram(f"val_cases/{structure}_dice", np.asarray(dice), state.step, bins=bins)
        if self._images:
            from core.report.overlay import side_by_side

            for example in state.examples:
                name = f"examples/{example.case}_slice_{example.z}"
                self._writer.add_image(name, side_by_side(example), state.step, dataformats="HWC")
        self._writer.flush()

    def on_fit_end(self, state: RunState, reason: str) -> None:
        """Close the writer."""
        self._writer.close()

    def on_failed(self, state: RunState, error: Exception) -> None:
        """Close the writer, if it was opened."""
        if self._writer is not None:
            self._writer.close()

    def state_dict(self) -> dict[str, Any]:
        """The last training row, to be written again if a resume has to hide its step."""
        return self._last

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._last = state

    def _scalars(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
