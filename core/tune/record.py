"""``RUN/tuned.yaml``: the post-processing that was chosen on the run's validation cases, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from core import config
from core.build import Plan, convert, plain
from core.document import ConfigError
from core.report.tables import number, whole_file

FILE = "tuned.yaml"
_HEAD = """\
# Written by tools/tune.py. evaluate.py, predict.py and load_run take this post-processing instead of the run's own;
# --untuned, or postprocess=... on the command line, leaves it aside. Figures on these cases are optimistic.
"""


@dataclass(frozen=True)
class Tuned:
    """One choice. The order of the fields is that of the file.

    Attributes:
        postprocess: the whole list, as it replaces the run's own.
        settings: what was varied and what was chosen, in words.
        objective: what it was chosen by.
        mode: whether that is to be great or small.
        value: the objective on `cases`, with the choice.
        own: the same with the run's own post-processing; None is not a number.
        held_out: each patient judged under what the others would choose; None with a single patient.
        tried: how many settings.
        cases: the validation cases on which it was chosen; figures on them are optimistic.
        patients: how many they come from.
        checkpoint: the file's name.
        step: global batches that it was trained for.
        checkpoint_hash: SHA-256 of the checkpoint's file.
        overrides: of the configuration, while it was chosen.
        time: when, UTC.
    """

    postprocess: list[Annotated[Plan, "postprocess"]]
    settings: dict[str, str]
    objective: str
    mode: Literal["min", "max"]
    value: float
    own: float | None
    held_out: float | None
    tried: int
    cases: list[str]
    patients: int
    checkpoint: str
    step: int
    checkpoint_hash: str
    overrides: list[str]
    time: str

    @property
    def text(self) -> str:
        """One line for the head of a report."""
        chosen = ", ".join(f"{name} {word}" for name, word in self.settings.items())
        held_out = "" if self.held_out is None else f", {number(self.held_out)} held out"
        given = f"; with {' '.join(self.overrides)}" if self.overrides else ""
        return (
            f"post-processing from {FILE}: {chosen}; chosen among {self.tried} on {len(self.cases)} validation case"
            f"{'s' * (len(self.cases) != 1)} ({self.objective} {number(self.own)} -> {number(self.value)} there"
            f"{held_out}){given}"
        )


def write(run: Path, tuned: Tuned) -> Path:
    """Write the choice into the run directory, whole or not at all."""
    with whole_file(run / FILE) as file:
        file.write((_HEAD + config.dump(plain(tuned))).encode())
    return run / FILE


def read(run: Path) -> Tuned | None:
    """The run's choice, or None without one. The experiment's plugins must be loaded.

    Raises:
        ConfigError: with every problem of the file.
    """
    path = run / FILE
    if not path.is_file():
        return None
    problems: list[str] = []
    found: Tuned | None = convert(config.read(path, problems), Tuned, "", problems)
    if problems or found is None:
        raise ConfigError(problems, f"{path}; mend it, or delete it to go on with the run's own post-processing")
    return found


def overridden(overrides: Sequence[str]) -> bool:
    """Whether the command line gives post-processing, which then counts."""
    return any(re.match(r"\s*postprocess\b", text) for text in overrides)
