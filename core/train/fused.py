"""torch's optimizers in their fastest form: one kernel an update, which can leave an update out on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

DEVICES = ("cpu", "cuda")
"""Where every torch since 2.6 has fused kernels for SGD and AdamW."""


def optimizer(
    kind: type[torch.optim.Optimizer], parameters: Sequence[nn.Parameter], groups: Sequence[Any], **settings: Any
) -> torch.optim.Optimizer:
    """An optimizer that is fused where all its parameters allow it, else as torch chooses.

    The trainer tells a fused optimizer by ``found_inf`` (on the device) to leave an update out.

    Args:
        kind: an optimizer of torch that knows `fused`.
        parameters: all that are trained, whatever groups they are in.
        groups: what `kind` is given.
        settings: of `kind`.
    """
    fused = bool(parameters) and all(p.is_floating_point() and p.device.type in DEVICES for p in parameters)
    made = kind(groups, fused=fused or None, **settings)  # type: ignore[call-arg]
    if fused and made.defaults.get("momentum"):
        made.register_step_pre_hook(_begin_with_zeros)
    made.register_load_state_dict_pre_hook(_keep_form)
    return made


def _begin_with_zeros(made: torch.optim.Optimizer, *_: Any) -> None:
    # SGD makes its buffers in the first update without filling them; if that is left out, they hold anything.
    for group in made.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and made.state[parameter].get("momentum_buffer") is None:
                made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def _keep_form(made: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    # A checkpoint says how its writer was built; going on elsewhere, or from an unfused one, this form counts.
    groups = [
        {**theirs, "fused": mine["fused"], "foreach": mine["foreach"]}
        for mine, theirs in zip(made.param_groups, state["param_groups"], strict=False)  # torch says if they differ
    ]
    return {**state, "param_groups": groups + state["param_groups"][len(groups) :]}
