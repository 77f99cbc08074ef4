"""Mixed precision, the same in training, validation, evaluation and prediction."""

from __future__ import annotations

import contextlib
from typing import Any

import torch

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The autocast context of ``train.precision``; does nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    """A gradient scaler, which does nothing but for fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
