"""Failures that name themselves."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from core import dist
from core.contracts import Batch, Record
from core.errors import UserError

MAX_SKIPPED = 20
"""fp16 steps in a row that the gradient scaler may skip before training stops."""


class NonFiniteError(UserError):
    """The loss or the gradient stopped being a number."""

    @classmethod
    def at(cls, step: int, norm: float, values: dict[str, float], saved: str) -> NonFiniteError:
        """The error of one step, with its losses on this rank, and which checkpoint is the last."""
        losses = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        return cls(
            f"step {step}: the gradient's norm is {norm} ({losses} on rank {dist.rank()}); nothing was updated. "
            f"The batch is in failure.json. Try a lower optimizer.lr, train.clip_norm, or train.precision=fp32; "
            f"{saved}, --resume goes on from there"
        )


def failed_step(run: Path, step: int, batch: Sequence[Batch], records: Sequence[Record], error: Exception) -> None:
    """Write ``failure.json`` (``failure_rank<r>.json`` beyond rank 0): the step and the ids of its samples."""
    if not run.is_dir():
        return
    rank = dist.rank()
    path = run / ("failure.json" if rank == 0 else f"failure_rank{rank}.json")
    samples = [{"case": records[i].case, "z": records[i].z, "index": i} for b in batch for i in b.indices]
    text = {"step": step, "rank": rank, "error": f"{type(error).__name__}: {error}", "samples": samples}
    partial = path.with_suffix(".partial")
    text["traceback"] = traceback.format_exception(error)
    try:
        partial.write_text(json.dumps(text, indent=1), encoding="utf-8")
        os.replace(partial, path)
    except OSError as problem:  # a full disk must not hide the error that matters
        print(f"{path} could not be written: {problem}", file=sys.stderr)


def forget_failures(run: Path) -> None:
    """Remove what former attempts at this run wrote of their failures: it has come to a good end since."""
    if dist.rank() == 0:
        for path in run.glob("failure*.json"):
            path.unlink(missing_ok=True)


def out_of_memory(error: Exception, device: torch.device, data: Any) -> UserError:
    """Out of memory in the trial step, with the numbers and the knobs."""
    free, total = torch.cuda.mem_get_info(device)
    smaller = max((n for n in range(1, data.micro) if data.batch % (n * data.world) == 0), default=None)
    micro = "" if smaller is None else f"train.micro_batch={smaller} (same batch, more accumulation), "
    return UserError(
        f"the trial step ran out of memory on {device}: micro-batch {data.micro}, "
        f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GB used at most of {total / 2**30:.1f} GB "
        f"({free / 2**30:.1f} GB free now).\nTry {micro}train.activation_checkpointing=true, a smaller "
        f"dataset.size, or train.precision=bf16. ({str(error).splitlines()[0]})"
    )
