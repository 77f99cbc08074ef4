"""The process group: started by torchrun, or absent."""

from __future__ import annotations

import contextlib
import datetime
import gc
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from core.errors import UserError


def launched() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def start(timeout_s: float = 1800) -> torch.device:
    """Join the process group if torchrun started us; returns this rank's device."""
    global _store
    local = int(os.environ.get("LOCAL_RANK", 0))
    if torch.cuda.is_available() and local >= torch.cuda.device_count():
        raise UserError(
            f"this computer has {torch.cuda.device_count()} GPUs, but torchrun started more processes; want "
            f"--nproc_per_node {torch.cuda.device_count()} or fewer"
        )
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if launched() and not dist.is_initialized():
        backend, timeout = "nccl" if device.type == "cuda" else "gloo", datetime.timedelta(seconds=timeout_s)
        store, rank, world = next(iter(rendezvous("env://", timeout=timeout)))
        # torchrun --max-restarts keeps its store: without a prefix of its own, an attempt would find the addresses of
        # the ranks that died.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        _store = dist.PrefixStore(f"attempt_{attempt}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=_store, rank=rank, world_size=world, timeout=timeout)
    return device


_store: Any = None


def store() -> Any:
    """The key-value store that the ranks of this attempt share; None without a group."""
    return _store if dist.is_initialized() else None


def stop() -> None:
    """Leave the process group together. Let go of every DDP module first: it holds on to the group.

    A gloo group that outlives this call is torn down by the interpreter's exit, which now and then aborts the process
    ("terminate called without an active exception").
    """
    if dist.is_initialized():
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    """This process's rank; 0 without a group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of ranks; 1 without a group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: Any) -> list[Any]:
    """Every rank's `value`, in the order of ranks, on all ranks. Values are pickled: for rows, not for tensors."""
    if world() == 1:
        return [value]
    out: list[Any] = [None] * world()
    dist.all_gather_object(out, value)
    return out


def broadcast_buffers(module: torch.nn.Module) -> None:
    """Give every rank rank 0's buffers (BatchNorm's running statistics differ by rank)."""
    if world() == 1:
        return
    for buffer in module.buffers():
        dist.broadcast(buffer, src=0)


_training = False


@contextlib.contextmanager
def training_sums() -> Iterator[None]:
    """Inside this context `sum_over_ranks` sums; outside it is the identity (validation shards are uneven)."""
    global _training
    _training = True
    try:
        yield
    finally:
        _training = False


def sum_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """Differentiable sum over all ranks; the identity on one process and outside training.

    Losses that are ratios sum numerator and denominator with it, so that they are ratios over one micro-batch of all
    ranks. Its gradient is summed too: each rank holds the same loss, and DDP then averages over ranks.
    """
    if not _training or world() == 1:
        return tensor
    return _Sum.apply(tensor)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        out = tensor.detach().clone().contiguous()
        dist.all_reduce(out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        out = gradient.clone().contiguous()
        dist.all_reduce(out)
        return out
