"""What a benchmark prints and writes: the machine, the settings, and tables of ratios."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.bench.timing import Spread
from core.errors import UserError
from core.parallel import cpus

WIDTH = 100
Figure = Spread | float | str | None
"""A figure of several blocks, of one measurement, a word, or nothing."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: in the rows, and in the JSON.
        head: what stands above it.
        form: format of a number, e.g. ``.3f``.
        range: whether lowest and highest block stand behind the median.
    """

    key: str
    head: str
    form: str = ".3f"
    range: bool = False


@dataclass
class Table:
    """Rows of figures, and what they mean.

    Attributes:
        notes: lines below the table.
    """

    key: str
    title: str
    columns: Sequence[Column]
    rows: list[dict[str, Figure]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, **figures: Figure) -> None:
        """Add the row `name`."""
        self.rows.append({"row": name, **figures})

    def text(self) -> str:
        """The table for a terminal."""
        lines = [["", *(c.head for c in self.columns)]]
        for row in self.rows:
            lines.append([str(row["row"]), *(_shown(row.get(c.key), c) for c in self.columns)])
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        out = [self.title]
        for name, *cells in lines:
            shown = [f"  {name:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(cells, widths[1:], strict=True))]
            out.append("  ".join(shown).rstrip())
        for note in self.notes:
            out += textwrap.wrap(note, WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
        return "\n".join(out)


@dataclass
class Report:
    """One run of a benchmark.

    Attributes:
        settings: what was measured and how, by name.
        environment: `machine`, as it was before anything was measured.
    """

    bench: str
    settings: Mapping[str, Any]
    tables: list[Table] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The report for a terminal."""
        here = self.environment
        gpu = ", ".join(here["gpus"]) or "no GPU"
        versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items() if version)
        dirty = " and changes" if here["dirty"] else ""
        rows = [
            ("command", here["command"]),
            ("machine", f"{here['cpu']}, {_many(here['cores'], 'core')}, {here['memory_gb']:.0f} GB, {gpu}"),
            (
                "",
                f"torch on {_many(here['threads'], 'thread')}; others kept {here['busy']:.1f} cores busy at the start",
            ),
            ("versions", f"python {here['python']}, {versions}"),
            ("commit", f"{(here['commit'] or 'none')[:12]}{dirty}, {here['time']}"),
            ("settings", ", ".join(f"{name} {_word(value)}" for name, value in self.settings.items())),
        ]
        lines = []
        for key, value in rows:
            lines += textwrap.wrap(value, WIDTH, initial_indent=f"{key:<10}", subsequent_indent=" " * 10)
        if here["busy"] > 0.25:
            lines.append(f"{'note':<10}this machine was busy with other work; measure on a quiet one")
        return "\n\n".join(["\n".join(lines), *(table.text() for table in self.tables)])

    def data(self) -> dict[str, Any]:
        """All of it as JSON can hold it; a figure of several blocks is ``{median, low, high, values}``."""
        tables = {
            t.key: {"title": t.title, "notes": t.notes, "rows": [{k: _plain(v) for k, v in r.items()} for r in t.rows]}
            for t in self.tables
        }
        return {"bench": self.bench, **self.environment, "settings": dict(self.settings), "tables": tables}

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(self.data(), indent=1, default=str) + "\n", encoding="utf-8")


def check_target(path: Path | None) -> None:
    """Raises UserError, before any long work, if the JSON file could not be written."""
    if path is not None and not path.resolve().parent.is_dir():
        raise UserError(f"--json {path}: no such folder: {path.parent}")
    if path is not None and path.is_dir():
        raise UserError(f"--json {path}: a folder; want a file")


def machine() -> dict[str, Any]:
    """This machine, how busy others keep it, the versions of what is measured, the command and the time."""
    import torch

    from core.rundir import environment

    found = environment()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "cpu": _cpu(),
        "cores": cpus(),
        "threads": found["threads"],
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        "gpus": [f"{gpu.name} {gpu.total_memory / 2**30:.0f} GB" for gpu in gpus],
        "busy": _busy_cores(),
        "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        **{key: found[key] for key in ("python", "platform", "versions", "commit", "dirty")},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or not x86
        return platform.processor() or platform.machine()


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _busy_cores(seconds: float = 0.5) -> float:
    """Cores that all processes use while this one sleeps; the load average would still count the benchmark before."""
    try:
        before = _ticks()
        time.sleep(seconds)
        busy, total = (now - then for now, then in zip(_ticks(), before, strict=True))
    except (OSError, ValueError):  # not Linux
        return os.getloadavg()[0]
    return busy / max(total, 1) * (os.cpu_count() or 1)


def _ticks() -> tuple[int, int]:
    line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    # User, nice, system, idle, waiting for disks, interrupts (two kinds), stolen by other guests of the computer.
    ticks = [int(word) for word in line.split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def _shown(value: Figure, column: Column) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, Spread):
        form = column.form
        between = f" ({value.low:{form}} to {value.high:{form}})" if column.range else ""
        return f"{value.median:{form}}{between}"
    return f"{value:{column.form}}"


def _plain(value: Figure) -> Any:
    if isinstance(value, Spread):
        return {"median": value.median, "low": value.low, "high": value.high, "values": list(value.values)}
    return value


def _word(value: Any) -> str:
    return "none" if value is None else " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
