"""A rank that hangs, ends or is too slow is named, where the process group would only say that time is up."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch.distributed

from core import dist

_TIMED_OUT = re.compile(r"timed?[ -]?out", re.IGNORECASE)
_COLLECTIVE = re.compile(r"gloo/|NCCL|Connection (closed|reset|refused)|Broken pipe")

RUNS, TIMED_OUT, CLOSED, FAILED, LEFT = "runs", "timed out", "closed", "failed", "left"


@dataclass(frozen=True)
class Report:
    """What a rank says of itself.

    Attributes:
        call: which of the step's calls of `Watch.at` it was, from 0: all ranks make the same calls.
        age: seconds from that call to the report.
        wall: the clock at the report, in seconds.
        beat: counts the reports.
        state: RUNS, or why it gave up.
        error: the error that ended it, if it is its own.
    """

    step: int
    call: int
    doing: str
    age: float
    wall: float
    beat: int
    state: str
    error: str

    @property
    def place(self) -> tuple[int, int]:
        """How far it came."""
        return self.step, self.call

    def __str__(self) -> str:
        """Step, what it did, and how long ago."""
        return f"step {self.step} ({self.doing}), {self.age + max(0.0, time.time() - self.wall):.0f} s ago"


class Watch:
    """Knows where every rank is, and names the one that the others wait for. Does nothing with a single process.

        with Watch(settings.timeout_s) as watch:
            try:
                ...
                watch.at(step, "loading data")   # before each part of a step, on all ranks
                ...
            except Exception as error:
                text = watch.blame(error)        # before anything else: the other ranks are asking
                if text is not None:
                    raise UserError(text) from error
                raise

    A thread writes this rank's place into the process group's key-value store every second. Under gloo the ranks
    that wait too long get an error, and `blame` finds out for whom they waited. Under NCCL they are aborted instead:
    so the thread, shortly before, prints who is furthest behind. Either way the rank that hangs prints where its main
    thread is, and ends once all others have given up on it.

    A rank with more validation cases than the others may legitimately keep them waiting for longer than `timeout_s`:
    they give up all the same, since only the process group's own time-out ends a wait. If `at` is called case by case,
    the message says that the rank was still at work.

    Args:
        timeout_s: the process group's time-out, in seconds.
    """

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s, self.world, self.rank = timeout_s, dist.world(), dist.rank()
        self._period = max(0.1, min(1.0, timeout_s / 10))
        self._place: tuple[int, int, str, float] = (0, 0, "starting", time.monotonic())
        self._state, self._error, self._beat = RUNS, "", 0
        self._told = False
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._main = threading.get_ident()
        store: Any = dist.store() if self.world > 1 else None
        # A client of a store serves one thread at a time, and the process group may wait on its own for minutes; before
        # torch 2.8 there is no other to be had.
        self._store = store.clone() if hasattr(store, "clone") else store

    def __enter__(self) -> Watch:
        if self._store is not None:
            self._main = threading.get_ident()
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(2)

    def at(self, step: int, doing: str) -> None:
        """Say what comes next: costs a microsecond. Called again with the same words, it says that work goes on."""
        last = self._place
        call = 0 if step != last[0] else last[1] if doing == last[2] else last[1] + 1
        self._place = (step, call, doing, time.monotonic())

    def blame(self, error: BaseException) -> str | None:
        """Which rank is to blame for `error`, as text for the user; None if this rank is, or nobody knows.

        Takes some seconds: the other ranks are given the time to report as well.
        """
        if self._store is None:
            return None
        self._error = f"{type(error).__name__}: {_line(error)}"
        self._state = _kind(error)
        found: list[str | None] = []
        # In a thread of its own: a store whose host is gone may never answer.
        asking = threading.Thread(target=lambda: found.append(self._ask()), daemon=True)
        asking.start()
        asking.join(2 * self._grace)
        if found or self._state == FAILED:
            return found[0] if found else None
        return self._unknown("it does not answer")

    @property
    def _grace(self) -> float:
        return 2 * self._period + 0.5

    def _ask(self) -> str | None:
        try:
            self._publish()
            if self._state == FAILED:
                return None
            first, until = self._reports(), time.monotonic() + self._grace
            while True:
                now = self._reports()
                silent = [r for r in range(self.world) if r not in now or now[r].state == RUNS]
                alive = [r for r in silent if r in now and (r not in first or now[r].beat != first[r].beat)]
                known = any(report.state in (FAILED, LEFT) for report in now.values())
                if known or (len(silent) < 2 and alive == silent) or time.monotonic() > until:
                    return self._verdict(now, silent, alive)
                time.sleep(self._period / 4)
        except Exception as error:
            return self._unknown(_line(error))

    def _verdict(self, reports: dict[int, Report], silent: Sequence[int], alive: Sequence[int]) -> str | None:
        in_vain = [r for r, report in reports.items() if report.state == TIMED_OUT]
        short, rest = self._judge(reports, [r for r in silent if r not in alive], alive, in_vain)
        # One long message, not one a rank.
        first = min((r for r, report in reports.items() if report.state in (TIMED_OUT, CLOSED)), default=self.rank)
        if not short:
            return None
        return f"{short}: {rest}" if self.rank <= first else f"{short} (rank {first} says more)"

    def _judge(
        self, reports: dict[int, Report], gone: Sequence[int], alive: Sequence[int], in_vain: Sequence[int]
    ) -> tuple[str, str]:
        by = {state: [r for r, report in reports.items() if report.state == state] for state in (FAILED, LEFT, CLOSED)}
        if by[FAILED]:
            errors = "; ".join(f"{reports[r].error}, at {reports[r]}" for r in by[FAILED])
            return f"{_ranks(by[FAILED])} failed", f"{errors}; the other ranks stop because of it"
        if by[LEFT]:
            return self._hung(reports, by[LEFT], in_vain)
        if gone:
            state = "no longer there, or frozen" if in_vain else "no longer there"
            hint = "if it printed no error, the system may have ended it, e.g. for want of memory"
            return f"{_ranks(gone)} {_plural(gone, 'is', 'are')} {state}", f"{_heard(reports, gone)}; {hint}"
        if alive and in_vain:
            # Of those that have not given up, the ones that came less far hold up the rest.
            least = min(reports[r].place for r in alive)
            return self._hung(reports, [r for r in alive if reports[r].place == least], in_vain)
        late = [r for r in by[CLOSED] if reports[r].age < self.timeout_s / 2]
        if late and in_vain:
            return f"{_ranks(late)} came too late", f"{_heard(reports, late)}; {self._waited(in_vain)}"
        return "", ""

    def _hung(self, reports: dict[int, Report], ranks: Sequence[int], in_vain: Sequence[int]) -> tuple[str, str]:
        told = f"{_heard(reports, ranks)}; {self._waited(in_vain)}"
        if all(reports[r].age < self.timeout_s / 2 for r in ranks):
            return f"{_ranks(ranks)} kept the others waiting", f"{told}; still at work: raise train.timeout_s"
        return f"{_ranks(ranks)} {_plural(ranks, 'has', 'have')} hung", told

    def _waited(self, ranks: Sequence[int]) -> str:
        return f"{_ranks(ranks)} waited {self.timeout_s:g} s (train.timeout_s)"

    def _unknown(self, reason: str) -> str:
        return (
            f"the connection to another rank broke ({self._error}), and the ranks' common key-value store is lost too "
            f"({reason}): the process that kept it is gone, which is rank 0 unless torchrun keeps it"
        )

    def _run(self) -> None:
        try:
            while True:
                self._publish()
                if self._end.wait(self._period):
                    return
                self._look()
        except Exception as error:  # not again: the store itself prints a page at each try
            if self._state == RUNS:
                self._say(f"the key-value store of the ranks is lost, hangs are no longer found ({_line(error)})")
        while not self._end.wait(self._period):
            if self._age() > 2 * self.timeout_s:
                self._leave("the others can no longer be reached")

    def _leave(self, why: str) -> None:
        self._say(f"{why}; no progress for {self._age():.0f} s: this rank ends")
        os._exit(1)

    def _age(self) -> float:
        return time.monotonic() - self._place[3]

    def _publish(self) -> None:
        with self._lock:
            step, call, doing, since = self._place
            self._beat += 1
            age = time.monotonic() - since
            report = Report(step, call, doing, age, time.time(), self._beat, self._state, self._error)
            self._store.set(f"watch/{self.rank}", json.dumps(asdict(report)))

    def _reports(self) -> dict[int, Report]:
        keys = {rank: f"watch/{rank}" for rank in range(self.world)}
        return {r: Report(**json.loads(self._store.get(k))) for r, k in keys.items() if self._store.check([k])}

    def _look(self) -> None:
        age = self._age()
        # Before the process group's time-out, which under NCCL ends the process without another word.
        if age < 0.9 * self.timeout_s:
            self._told = False
            return
        reports = self._reports()
        others = [report for rank, report in reports.items() if rank != self.rank]
        if not self._told:
            self._told = True
            least = min(report.place for report in reports.values())
            behind = [rank for rank, report in reports.items() if report.place == least]
            stack = self._stack()
            if self.rank in behind and stack is not None:
                self._say(f"no progress since {reports[self.rank]}; the main thread is at\n{stack}")
            elif self.rank == min((r for r in reports if r not in behind), default=0):
                signs = "; ".join(f"rank {r} at {reports[r]}" for r in behind)
                self._say(f"no progress for {age:.0f} s; furthest behind: {signs}")
        if self._state == RUNS and len(others) == self.world - 1 and all(o.state != RUNS for o in others):
            self._state = LEFT
            self._publish()
            self._leave("the other ranks have given up on this one")

    def _stack(self) -> str | None:
        """Where the main thread is; None if it waits for other ranks."""
        frame = sys._current_frames().get(self._main)
        if frame is None:
            return None
        rows = traceback.extract_stack(frame)
        inside = torch.distributed.distributed_c10d.__file__
        return None if any(row.filename == inside for row in rows) else "".join(traceback.format_list(rows[-12:]))

    def _say(self, text: str) -> None:
        print(f"watch, rank {self.rank}: {text}", file=sys.stderr, flush=True)


def _kind(error: BaseException) -> str:
    """Whether another rank made this rank fail, and how."""
    text = str(error)
    distributed = isinstance(error, torch.distributed.DistError)
    if not distributed and not (isinstance(error, RuntimeError) and _COLLECTIVE.search(text)):
        return FAILED
    return TIMED_OUT if _TIMED_OUT.search(text) else CLOSED


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def _heard(reports: dict[int, Report], ranks: Sequence[int]) -> str:
    signs = []
    for rank in ranks:
        whose = "its" if len(ranks) == 1 else f"rank {rank}'s"
        seen = f"was {reports[rank]}" if rank in reports else "is missing"
        signs.append(f"{whose} last sign of life {seen}")
    return "; ".join(signs)


def _ranks(ranks: Sequence[int]) -> str:
    shown = ", ".join(str(r) for r in ranks[:8])
    return f"{_plural(ranks, 'rank', 'ranks')} {shown}{' ...' if len(ranks) > 8 else ''}"


def _plural(ranks: Sequence[int], one: str, many: str) -> str:
    return one if len(ranks) == 1 else many
