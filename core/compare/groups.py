"""Which runs are trainings of one method: the same configuration apart from the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.compare.evaluation import Evaluation

SEEDS_WANTED = 3
"""Trainings of each method from which on a claim about methods may be made."""
# What changes no result, or is where things lie. How long a training may take does change it.
_ASIDE = (
    *("run", "file", "hook", "source", "store", "dataset.cache", "prepare.workers", "prepare.compression", "metric"),
    "compare",
)
_ASIDE_TRAIN = ("seed", "save_minutes", "keep_last", "log_every", "workers", "worker_start", "prefetch", "timeout_s")
_IGNORED = (*_ASIDE, *(f"train.{name}" for name in _ASIDE_TRAIN))


@dataclass(frozen=True)
class Group:
    """Runs of one method.

    Attributes:
        members: places of the runs.
        seeds: of their trainings, each once; empty where the runs' configuration is not known.
    """

    members: tuple[int, ...]
    seeds: tuple[int, ...]


def groups(evaluations: Sequence[Evaluation]) -> list[Group]:
    """Each evaluation in one group; one without a configuration is alone in its group."""
    found: dict[Any, list[int]] = {}
    for i, evaluation in enumerate(evaluations):
        known = method(evaluation)
        found.setdefault(i if known is None else tuple(sorted((k, repr(v)) for k, v in known.items())), []).append(i)
    out = []
    for members in found.values():
        seeds = {seed(evaluations[i]) for i in members}
        out.append(Group(tuple(members), tuple(sorted(s for s in seeds if s is not None))))
    return out


def seed(evaluation: Evaluation) -> int | None:
    """Of the training, None where that is not known."""
    found = (evaluation.config or {}).get("train.seed")
    return found if isinstance(found, int) else None


def method(evaluation: Evaluation) -> dict[str, Any] | None:
    """The configuration that makes the method, flat: without the seed and without what changes no figure.

    In brackets: what the evaluation adds to it.
    """
    if evaluation.config is None:
        return None
    own = {k: v for k, v in evaluation.config.items() if not _is_aside(k)}
    for key in ("checkpoint", "tuned", "split_hash"):
        if evaluation.provenance.get(key):
            own[f"({key})"] = evaluation.provenance[key]
    for override in evaluation.provenance.get("overrides") or []:
        path, _, value = str(override).partition("=")
        if not _is_aside(path):
            own[f"({path})"] = value
    return own


def differing(evaluations: Sequence[Evaluation]) -> list[tuple[str, list[str]]]:
    """Keys in which the methods differ, with each run's value; nothing where a configuration is not known."""
    known = [method(evaluation) for evaluation in evaluations]
    keys = sorted({key for own in known if own is not None for key in own})
    out = []
    for key in keys:
        values = ["not known" if own is None else _word(own, key) for own in known]
        if len({v for v, own in zip(values, known, strict=True) if own is not None}) > 1:
            out.append((key, values))
    return out


def _word(own: Mapping[str, Any], key: str) -> str:
    return "-" if key not in own else "null" if own[key] is None else str(own[key])


def _is_aside(key: str) -> bool:
    return any(key == name or key.startswith((f"{name}.", f"{name}[")) for name in _IGNORED)
