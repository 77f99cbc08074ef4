"""Weights & Biases."""

from __future__ import annotations

import importlib.util
import secrets
from typing import Any, Literal

from core import config
from core.contracts import RunState
from core.errors import UserError
from registry import register


@register("hook", "wandb")
class Wandb:
    """Sends figures, pictures of validation slices and the config to Weights & Biases (wandb.ai), or keeps them for it.

    What it writes is below ``wandb/`` in the run directory; ``wandb sync`` sends what was kept offline. A resumed run
    goes on as the same one there: steps between its checkpoint and the interruption are then there twice, equal.

    Args:
        project: where the run is listed.
        run_name: null is the run directory's name.
        entity: user or team; null is the default of the account.
        mode: null is what the environment's WANDB_MODE says, else online.
        images: whether pictures of validation slices are sent; they show patients' scans.

    Raises:
        ValueError: if the package is not installed.

    Example: {name: wandb, project: liver, mode: offline}
    """

    def __init__(
        self,
        *,
        project: str = "hepar",
        run_name: str | None = None,
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        images: bool = False,
    ) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise ValueError('the package wandb is not installed; pip install -e ".[wandb]"')
        self._project, self._run_name, self._entity = project, run_name, entity
        self._mode, self._images = mode, images
        self._id: str | None = None
        self._run: Any = None

    def on_fit_start(self, state: RunState) -> None:
        """Begin the run there, or go on with it.

        Raises:
            UserError: if it cannot be begun, e.g. for want of a login.
        """
        import wandb

        self._id = self._id or secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=self._project,
                name=self._run_name or state.run.resolve().name,
                entity=self._entity,
                mode=self._mode,
                id=self._id,
                resume="allow",
                dir=str(state.run.resolve()),
                config=config.parse(state.config).plain(),
                # Else it would put itself between us and the terminal.
                settings=wandb.Settings(console="off"),
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"hook wandb: {error}\n  log in with `wandb login`, or set mode: offline (or WANDB_MODE=offline)"
            ) from error
        # A step of our own: theirs may not go back, as it does on a resume.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def on_step_end(self, state: RunState, metrics: dict[str, float]) -> None:
        """Send training metrics and what the steps cost."""
        if metrics:
            cost = {f"cost/{name}": value for name, value in state.cost.items()}
            self._run.log({"step": state.step, "epoch": state.epoch, **metrics, **cost})

    def on_eval_end(self, state: RunState, metrics: dict[str, float], rows: list[dict[str, Any]]) -> None:
        """Send validation metrics, the distribution of the per-case Dice and, if wanted, the slices."""
        import wandb

        values: dict[str, Any] = {"step": state.step, "epoch": state.epoch, **metrics}
        for structure in ("liver", "tumour"):
            dice = [r["dice"] for r in rows if r.get("structure") == structure and r.get("dice") is not None]
            if dice:
                values[f"val_cases/{structure}_dice"] = wandb.Histogram(dice)
        if self._images:
            from core.report.overlay import side_by_side

            for example in state.examples:
                values[f"examples/{example.case}_slice_{example.z}"] = wandb.Image(side_by_side(example))
        self._run.log(values)

    def on_fit_end(self, state: RunState, reason: str) -> None:
        """End the run there."""
        self._run.finish()

    def on_failed(self, state: RunState, error: Exception) -> None:
        """End the run there as failed, if it was begun."""
        if self._run is not None:
            self._run.finish(exit_code=1)

    def state_dict(self) -> dict[str, Any]:
        """The run's id there."""
        return {"id": self._id}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self._id = state["id"]
