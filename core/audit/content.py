"""What the slices of a scan say against it, one beside the other."""

from __future__ import annotations

import numpy as np

from core.audit.fit import Small
from core.audit.rules import Finding

JUMP = 3.0
"""A jump is so many times the change between the slices around it."""
JUMP_HU = 20.0

_AROUND = 4
_NAMED = 6


def check_slices(array: np.ndarray, small: Small, case: str) -> list[Finding]:
    """Slices without content, slices that repeat the one before, and jumps."""
    found = []
    constant = [z for z, plane in enumerate(array) if plane.min() == plane.max()]
    if constant:
        found.append(Finding("constant_slices", f"{_slices(constant)} of {len(array)}", (case,)))
    empty = set(constant)
    repeated = [z for z in range(1, len(array)) if z not in empty and np.array_equal(array[z], array[z - 1])]
    if repeated:
        found.append(Finding("repeated_slices", f"{_slices(repeated)} of {len(array)} repeat the one before", (case,)))
    if not constant and not repeated:
        found += _jumps(small, case)
    return found


def _jumps(small: Small, case: str) -> list[Finding]:
    if len(small.image) < 2 * _AROUND + 2:
        return []
    change = np.array([float(np.abs(b - a).mean()) for a, b in zip(small.image[:-1], small.image[1:], strict=True)])
    body = max(float(np.mean(small.image > -150)), 0.02)
    change /= body  # HU per voxel of the body, however much air is around it
    jumps = []
    for z, here in enumerate(change):
        around = np.delete(change[max(0, z - _AROUND) : z + _AROUND + 1], min(z, _AROUND))
        if here > JUMP_HU and here > JUMP * float(np.max(around)):
            jumps.append((z, here, float(np.median(around))))
    step = small.step[0]
    parts = [
        f"between slices {z * step + step - 1} and {(z + 1) * step} ({here:.0f} HU, {usual:.0f} around it)"
        for z, here, usual in jumps[:_NAMED]
    ]
    return [Finding("missing_slices", "; ".join(parts), (case,))] if parts else []


def _slices(found: list[int]) -> str:
    """Which slices, as ranges."""
    runs: list[list[int]] = []
    for z in found:
        if runs and z == runs[-1][1] + 1:
            runs[-1][1] = z
        else:
            runs.append([z, z])
    parts = [str(a) if a == b else f"{a} to {b}" for a, b in runs[:_NAMED]]
    more = ", ..." if len(runs) > _NAMED else ""
    return f"{len(found)} slice{'s' * (len(found) != 1)} ({', '.join(parts)}{more})"
