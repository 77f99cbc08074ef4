"""How much memory there is, and memory that processes share."""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.errors import UserError


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken: of a GPU, else of this computer and of the container that limits us."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_of_computer(), _of_container())


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit, name in ((2**30, "GB"), (2**20, "MB")):
        if count >= 0.05 * unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1024:.1f} kB"


class Shared:
    """Memory that other processes of this computer can map too, however they start, if they get this object.

    An anonymous file holds it, which is gone with the last process that has it open. (``/dev/shm`` may be small, as it
    is in containers.)

    Args:
        count: bytes.
        path: where another process has it open; None takes new memory.

    Attributes:
        path: under which other processes find it while this object lives; None where a system has no such files, and
            then the memory is this process's alone.
    """

    def __init__(self, count: int, path: str | None = None) -> None:
        self.count, self.path = count, None
        if path is None and not hasattr(os, "memfd_create"):
            self.buffer: Any = bytearray(count)
            return
        if path is None:
            file = os.memfd_create("hepar-data")
            os.ftruncate(file, count)
        else:
            file = os.open(path, os.O_RDWR)
        weakref.finalize(self, os.close, file)
        self.path, self.buffer = f"/proc/{os.getpid()}/fd/{file}", mmap.mmap(file, count)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle where it is found, not what it holds."""
        if self.path is None:
            raise UserError(
                "this system has no memory that such data processes could share; set train.worker_start=thread"
            )
        return Shared, (self.count, self.path)

    def array(self, shape: tuple[int, ...], dtype: str, at: int) -> np.ndarray:
        """The memory from byte `at` on as an array."""
        return np.ndarray(shape, dtype, self.buffer, at)


def _of_computer() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_container(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """Of this process's control group (Linux, both versions); a very large number if nothing limits it."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = int((folder / limit).read_text()), int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / limit).with_name("memory.stat").read_text().splitlines())
            return most - now + int(stat.get(cached, 0))  # files that are merely cached make room
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return 1 << 62
