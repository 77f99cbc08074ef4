"""How much memory there is."""

from __future__ import annotations

import os
from pathlib import Path

import torch


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
