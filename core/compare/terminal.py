"""A comparison as a table in the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from core.compare import words
from core.compare.groups import differing
from core.compare.lesions import ALL_SIZES
from core.compare.metrics import THRESHOLDS
from core.compare.result import Comparison, Difference
from core.compare.words import number, p_value

_WIDE = 110
_NAME = 40
_WIDTHS = (8, 8, 9, 19, 8, 8, 10, 7)
_KEYS = 12  # configuration keys shown


def letter(place: int) -> str:
    """A, B, ... Z, then R27."""
    return chr(65 + place) if place < 26 else f"R{place + 1}"


def terminal(comparison: Comparison) -> str:
    """Runs, the differences of all pairs, lesions, and what may be concluded."""
    blocks = [_head(comparison), _differences(comparison), _found(comparison), _conclusions(comparison)]
    return "\n\n".join(block for block in blocks if block)


def _head(comparison: Comparison) -> str:
    lines = [words.PHANTOM] if comparison.phantom else []
    for i, evaluation in enumerate(comparison.evaluations):
        facts = [f"seed {words.seed_word(comparison, i)}"]
        if evaluation.provenance.get("step") is not None:
            facts.append(f"step {evaluation.provenance['step']}")
        lines.append(f"{letter(i)}  {evaluation.name}  ({evaluation.folder}; {', '.join(facts)})")
    apart = differing(comparison.evaluations)
    for key, values in apart[:_KEYS]:
        lines.append(f"   {key}: {', '.join(f'{letter(i)} {_short(value)}' for i, value in enumerate(values))}")
    if len(apart) > _KEYS:
        lines.append(f"   and {len(apart) - _KEYS} more keys (comparison.html)")
    first = comparison.evaluations[0]
    patients = len(set(first.patients))
    lines.append(f"{len(first.cases)} case{'s' * (len(first.cases) != 1)} of {patients} patient{'s' * (patients != 1)}")
    lines += [f"note: {note}" for note in comparison.notes]
    if not comparison.declared:
        lines.append("note: metrics chosen on the command line; p is honest only if they were chosen before any figure")
    return "\n".join(lines)


def _short(value: str) -> str:
    return value if len(value) <= 24 else f"{value[:21]}..."


def _differences(comparison: Comparison) -> str:
    """One line a metric and pair; of several pairs, a metric's under its name."""
    several = len(comparison.pairs) > 1
    one, other = ("first", "second") if several else ("A", "B")
    heads = (one, other, "diff." if several else "B - A", "95 % interval", "p", "Holm", "Wilcoxon", "cases")
    lines = [_columns("", heads, _WIDTHS)]
    for metric in comparison.metrics:
        if several:
            lines.append(metric.title)
        for row in comparison.differences:
            if row.metric == metric:
                cells = (
                    *(number(row.value_a), number(row.value_b), words.difference(row), words.interval(row)),
                    *(p_value(row.p), p_value(row.holm), p_value(row.wilcoxon), str(row.cases)),
                )
                name = f"  {letter(row.b)} - {letter(row.a)}" if several else metric.title
                lines.append(_columns(name, cells, _WIDTHS))
                lines += [f"    {text}" for text in _left_out(row)]
    return "\n".join(lines)


def _found(comparison: Comparison) -> str:
    """Lesions that both find, one alone, or none: of two runs by size."""
    if not comparison.found:
        return ""
    several = len(comparison.pairs) > 1
    one, other = ("first", "second") if several else ("A", "B")
    title = f"lesions found ({THRESHOLDS[comparison.threshold]})"
    lines = [_columns(title, ("both", f"only {one}", f"only {other}", "neither"), (13,) * 4)]
    for row in comparison.found:
        counts = tuple(str(count) for count in (row.both, row.only_a, row.only_b, row.neither))
        if not several:
            lines.append(_columns(f"  {row.level}", counts, (13,) * 4))
        elif row.level == ALL_SIZES:
            lines.append(_columns(f"  {letter(row.a)} and {letter(row.b)}", counts, (13,) * 4))
    return "\n".join(lines)


def _columns(name: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"{name:<{_NAME}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _left_out(row: Difference) -> list[str]:
    return [
        f"{count} case{'s' * (count != 1)} with a number in {letter(place)} alone left out"
        for count, place in ((row.only_a, row.a), (row.only_b, row.b))
        if count
    ]


def _conclusions(comparison: Comparison) -> str:
    if len(comparison.pairs) == 1:
        said = [words.conclusion(row, comparison) for row in comparison.differences]
        said += [words.apart(row) for row in comparison.differences]
    else:
        said = [words.conclusion(row, comparison) for row in comparison.differences if words.is_shown(row)]
        said += words.quiet(comparison)
    said.append(words.trainings(comparison))
    if any(len(group.members) > 1 for group in comparison.groups):
        for metric, values in zip(comparison.metrics, comparison.values, strict=True):
            shown = (
                f"{', '.join(map(letter, group.members))} {words.spread(values, group.members)}"
                for group in comparison.groups
            )
            said.append(f"{metric.title}, mean (lowest to highest) of the trainings: {'; '.join(shown)}.")
    said.append(words.looks(comparison))
    return "\n".join(_fill(text) for text in said if text)


def _fill(text: str) -> str:
    """Wrapped, but not between a number and its percent sign."""
    whole = textwrap.fill(
        text.replace(" %", "\u00a0%").replace("p = ", "p\u00a0=\u00a0"),
        _WIDE,
        initial_indent="- ",
        subsequent_indent="  ",
    )
    return whole.replace("\u00a0", " ")
