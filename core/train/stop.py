"""Stopping on request: SIGTERM and Ctrl-C let the step finish."""

from __future__ import annotations

import os
import signal
from typing import Any


class StopRequest:
    """Inside this context SIGTERM and SIGINT only set `asked` and `number`; a second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.asked = False
        self.number: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._old = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once and saves nothing\n")
        self.asked, self.number = True, number
