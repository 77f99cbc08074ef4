"""Hooks: they listen on rank 0, each with a key of its own for its state."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any

from core import dist
from core.contracts import RunState


class Hooks:
    """The hooks of a run, in the order of the YAML.

    Args:
        hooks: name and hook; a name given twice becomes ``name_2``.
    """

    def __init__(self, hooks: Sequence[tuple[str, Any]]) -> None:
        self.by_key: dict[str, Any] = {}
        for name, hook in hooks:
            key, n = name, 2
            while key in self.by_key:
                key, n = f"{name}_{n}", n + 1
            self.by_key[key] = hook

    def emit(self, event: str, *args: Any) -> None:
        """Call ``on_<event>`` of every hook that has it, on rank 0."""
        if dist.rank() != 0:
            return
        for hook in self.by_key.values():
            method = getattr(hook, f"on_{event}", None)
            if method is not None:
                method(*args)

    def emit_failed(self, state: RunState, error: Exception) -> None:
        """Tell every hook of a failure; one that fails in turn is printed, so that the first error stays the error."""
        if dist.rank() != 0:
            return
        for hook in self.by_key.values():
            try:
                if hasattr(hook, "on_failed"):
                    hook.on_failed(state, error)
            except Exception:
                traceback.print_exc(file=sys.stderr)

    def state_dict(self) -> dict[str, Any]:
        """The state of every hook that has one, by key."""
        return {key: hook.state_dict() for key, hook in self.by_key.items() if hasattr(hook, "state_dict")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give every hook its state back; hooks that are new or gone are left alone."""
        for key, hook in self.by_key.items():
            if key in state and hasattr(hook, "load_state_dict"):
                hook.load_state_dict(state[key])
