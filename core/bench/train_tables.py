"""What is printed of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.bench.report import Column, Table
from core.bench.timing import Spread, rate, ratio
from core.bench.turns import BARE, EAGER, LOOP, QUIET

SAVE_EVERY_S = 600.0
"""The time between checkpoints that their share is given for."""


@dataclass(frozen=True)
class Measured:
    """One variant's figures.

    Attributes:
        seconds: of a block, by side.
        between: seconds of what happens between steps: ``stall``, ``write``, ``validation``.
        images: of a block.
        flops: of an image.
        wait: seconds a step that the loop waits for its loader.
        hooks: seconds of the hooks in a step without metrics, `hooks_logged` in one with metrics.
        reading: seconds that one reading of the metrics takes.
        peaks: bytes of GPU memory, by side; 0 elsewhere.
        said: what the training had to say.
    """

    seconds: Mapping[str, Spread]
    between: Mapping[str, Spread]
    steps: int
    images: int
    flops: float
    wait: float
    hooks: float
    hooks_logged: float
    reading: float
    peaks: Mapping[str, int]
    log_every: int
    validate_every: int
    steps_per_epoch: int
    parameters: int
    micro: int
    said: list[str]

    @property
    def step(self) -> float:
        """Seconds of a step of the full loop."""
        return self.seconds[LOOP].median / self.steps


def tables(
    measured: Mapping[str, Measured], refused: Mapping[str, str], detailed: str, peak: float | None
) -> list[Table]:
    """All tables.

    Args:
        measured: by title.
        refused: titles of those that could not be measured, with the reason.
        detailed: title of the one that was looked at in detail.
        peak: of the device in TFLOP/s.
    """
    out = [_loop(measured, refused), _step(measured[detailed], detailed)]
    return [*out, _between(measured[detailed]), _arithmetic(measured, peak)]


def _loop(measured: Mapping[str, Measured], refused: Mapping[str, str]) -> Table:
    table = Table(
        "loop",
        "the full training loop against the bare loop on one resident batch",
        [
            Column("full", "images/s", ".2f"),
            Column("bare", "bare images/s", ".2f"),
            Column("ratio", "of the bare loop", ".3f", range=True),
            Column("wait", "loader wait", ".3f"),
        ],
        notes=["Augmentation on the device is arithmetic that the bare loop does not have."],
    )
    for title, one in measured.items():
        rates = {side: rate(one.images, seconds) for side, seconds in one.seconds.items()}
        bare = rates[BARE]
        table.add(title, full=rates[LOOP], bare=bare, ratio=ratio(rates[LOOP], bare), wait=one.wait / one.step)
        if QUIET in rates:
            table.add("  without hooks and logging", full=rates[QUIET], bare=bare, ratio=ratio(rates[QUIET], bare))
        if EAGER in rates:
            table.add("  bare loop, not compiled", bare=rates[EAGER], ratio=ratio(rates[EAGER], bare))
        table.notes += one.said
    for title, why in refused.items():
        table.add(title, ratio="refused")
        table.notes.append(f"{title}: {why}")
    return table


def _step(one: Measured, title: str) -> Table:
    parts = {
        "waiting for the loader": one.wait,
        "hooks": one.hooks + max(one.hooks_logged - one.hooks, 0.0) / one.log_every,
        "reading the metrics": one.reading / one.log_every,
    }
    parts["the rest (averages, flags, seeds; and noise)"] = (
        one.step - one.seconds[BARE].median / one.steps - sum(parts.values())
    )
    table = Table(
        "step",
        f"what the full loop adds to a step of {1000 * one.step:.1f} ms ({title})",
        [Column("ms", "ms", ".3f"), Column("share", "share of the step", ".4f")],
        notes=[
            f"Metrics are read, and hooks get them, every {one.log_every} steps (train.log_every): one reading takes "
            f"{1000 * one.reading:.2f} ms, the hooks of such a step {1000 * one.hooks_logged:.2f} ms."
        ],
    )
    for name, seconds in parts.items():
        table.add(name, ms=1000 * seconds, share=seconds / one.step)
    return table


def _between(one: Measured) -> Table:
    between, epoch = one.between, one.steps_per_epoch * one.step
    table = Table(
        "between",
        "what happens between steps",
        [Column("seconds", "s", ".3f", range=True), Column("share", "share of the time", ".5f")],
        notes=[
            f"A checkpoint: the loop waits while the state is copied, then a thread writes it; shares are those of one "
            f"every {SAVE_EVERY_S / 60:.0f} minutes."
        ],
    )
    table.add("checkpoint: the loop waits", seconds=between["stall"], share=between["stall"].median / SAVE_EVERY_S)
    table.add("checkpoint: a thread writes", seconds=between["write"], share=between["write"].median / SAVE_EVERY_S)
    if "validation" in between:
        seconds, every = between["validation"].median, one.validate_every
        table.add("validation", seconds=between["validation"], share=seconds / (seconds + every * epoch))
        table.notes.append(
            f"A validation: all its cases once, after the few steps of this run, when labels are still ragged; its "
            f"share is that of one every {every} epochs of {epoch:.0f} s (train.validate_every)."
        )
    return table


def _arithmetic(measured: Mapping[str, Measured], peak: float | None) -> Table:
    table = Table(
        "arithmetic",
        "arithmetic and memory",
        [
            Column("gflop", "GFLOP an image", ".2f"),
            Column("tflops", "TFLOP/s", ".3f"),
            Column("bare_tflops", "bare", ".3f"),
            Column("share", "of the peak", ".3f"),
            Column("memory_gb", "peak GB", ".2f"),
            Column("bare_gb", "bare", ".2f"),
        ],
        notes=[
            "Convolutions and matrix products, forward and backward, as torch counts them. "
            + (f"Peak: {peak:g} TFLOP/s." if peak else "No peak is known for this device; --peak-tflops gives one.")
        ],
    )
    for title, one in measured.items():
        work = one.flops * one.images / 1e12
        full, bare = work / one.seconds[LOOP].median, work / one.seconds[BARE].median
        table.add(
            title,
            gflop=one.flops / 1e9,
            tflops=full,
            bare_tflops=bare,
            share=full / peak if peak else None,
            memory_gb=one.peaks[LOOP] / 2**30 or None,
            bare_gb=one.peaks[BARE] / 2**30 or None,
        )
    return table
