"""Sentences that the numbers allow, and none stronger."""

from __future__ import annotations

from collections.abc import Sequence

from core.compare.groups import SEEDS_WANTED, seed
from core.compare.result import Comparison, Difference
from core.measure.statistics import LEAST_PATIENTS

LEVEL = 0.05
_POINTS = frozenset(("dice", "iou", "nsd_1mm", "nsd_2mm", "nsd_3mm"))
PHANTOM = "PHANTOM: synthetic scans; this describes their generator and says nothing about patients"


def number(value: float | None, *, sign: bool = False, digits: int | None = None) -> str:
    """Three decimals, fewer of large numbers, or so many; a dash where there is no number."""
    if value is None:
        return "-"
    if digits is None:
        digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    text = f"{value:{'+' * sign}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def digits_of(row: Difference) -> int | None:
    """Decimals that a difference and its interval take: four where they are all below 0.01."""
    ends = [x for x in (row.difference, row.interval.low, row.interval.high) if x is not None]
    return 4 if ends and max(map(abs, ends)) < 0.01 and any(ends) else None


def p_value(p: float | None) -> str:
    """As reports print it."""
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(row: Difference) -> str:
    """Both ends, or a dash."""
    low, high = row.interval.low, row.interval.high
    if low is None or high is None:
        return "-"
    digits = digits_of(row)
    return f"{number(low, sign=True, digits=digits)} to {number(high, sign=True, digits=digits)}"


def difference(row: Difference) -> str:
    """B less A, with its sign."""
    return number(row.difference, sign=True, digits=digits_of(row))


def is_shown(row: Difference) -> bool:
    """Whether a difference was found, all tests counted."""
    return row.holm is not None and row.holm < LEVEL and bool(row.difference)


def conclusion(row: Difference, comparison: Comparison) -> str:
    """What may be said of one metric and two runs."""
    a, b = (comparison.evaluations[place].name for place in (row.a, row.b))
    title = row.metric.title
    if row.difference is None or row.p is None:
        return f"{title[0].upper()}{title[1:]} of {a} and {b} cannot be compared: no case counts in both."
    if not row.moving:
        return f"{a} and {b} have the same {title} in {_of_cases(row, comparison)}."
    numbers = f"{difference(row)}, {_interval_words(row)}, p {_equals(row.p)}"
    if tests(comparison) > 1 and row.p < LEVEL:
        numbers += f", after Holm for {tests(comparison)} tests {_equals(row.holm).removeprefix('= ')}"
    if is_shown(row):
        word = "higher" if row.difference > 0 else "lower"
        better = " (lower is better)" if row.metric.lower_is_better else ""
        return f"{b} has a {word} {title} than {a} in {_of_cases(row, comparison)}{better}: {numbers}{_patients(row)}."
    counted = " once all tests are counted" if row.p < LEVEL else ""
    why = "" if row.p < LEVEL else _why_not(row)
    found = f"No difference in {title} was found between {a} and {b} in {_of_cases(row, comparison)}{counted}"
    return f"{found}: {numbers}{_patients(row)}.{why}"


def _of_cases(row: Difference, comparison: Comparison) -> str:
    what = "phantom case" if comparison.phantom else "case"
    return f"these {row.cases} {what}s" if row.cases != 1 else f"this one {what}"


def _patients(row: Difference) -> str:
    if row.interval.ci95 is not None:
        return f" ({row.patients} patients)" if row.patients != row.cases else ""
    return f" ({row.interval.why})"


def _interval_words(row: Difference) -> str:
    return f"95 % interval {interval(row)}" if row.interval.ci95 is not None else "no interval"


def _equals(p: float | None) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _why_not(row: Difference) -> str:
    if row.least_p > LEVEL:
        differ = f"{row.moving} patient differs" if row.moving == 1 else f"{row.moving} patients differ"
        return f" Only {differ}, so none could have been found: the smallest p possible is {row.least_p:.3g}."
    return f" Anything from {interval(row)} fits these data." if row.interval.ci95 else ""


def quiet(comparison: Comparison) -> list[str]:
    """For each metric of several pairs, in how many no difference was found."""
    out = []
    for metric in comparison.metrics:
        rows = [row for row in comparison.differences if row.metric == metric]
        none = sum(not is_shown(row) for row in rows)
        if none:
            pairs = f"any of the {none} pairs" if none == len(rows) else f"{none} of the {len(rows)} pairs"
            out.append(f"No difference in {metric.title} was found in {pairs} (Holm for {tests(comparison)} tests).")
    return out


def tests(comparison: Comparison) -> int:
    """How many were made."""
    return sum(row.holm is not None for row in comparison.differences)


def apart(row: Difference) -> str:
    """What could be told apart with so many patients; empty for few of them, and for what is no mean over cases."""
    if row.sd is None or row.apart_unpaired is None or row.apart_paired is None or row.patients < LEAST_PATIENTS:
        return ""
    text = (
        f"With {row.patients} patients and a standard deviation of {number(row.sd)}, {row.metric.title} of two groups "
        f"of different patients could be told apart from {number(row.apart_unpaired)} on (80 % power at 5 %); paired, "
        f"as here, from {number(row.apart_paired)} on."
    )
    if row.metric.column in _POINTS:
        cannot = [w for w, d in (("unpaired", row.apart_unpaired), ("paired", row.apart_paired)) if d > 0.01]
        how = "either way" if len(cannot) == 2 else "".join(cannot)
        text += f" One point (0.01) cannot be told apart {how}." if cannot else " One point (0.01) can be told apart."
    return text


def trainings(comparison: Comparison) -> str:
    """How many trainings each method has, and what that allows."""
    names = [evaluation.name for evaluation in comparison.evaluations]
    unknown = [e.name for e in comparison.evaluations if e.config is None]
    counts = []
    for group in comparison.groups:
        if comparison.evaluations[group.members[0]].config is not None:
            members = ", ".join(names[place] for place in group.members)
            seeds = ", ".join(map(str, group.seeds))
            counts.append(
                f"{len(group.seeds)} of the configuration of {members} (seed{'s' * (len(group.seeds) != 1)} {seeds})"
            )
    text = f"Trainings: {'; '.join(counts)}. " if counts else ""
    if unknown:
        was, it = ("were", "them") if len(unknown) > 1 else ("was", "it")
        text += f"How {' and '.join(unknown)} {was} trained is not known (no config.yaml beside {it}). "
    if not unknown and len(comparison.groups) == 1:
        if len(comparison.groups[0].seeds) > 1:
            return f"{text}The runs differ by the seed alone: what they differ by here is the variance of training."
        return f"{text}The runs have the same configuration and the same seed."
    least = min(len(group.seeds) for group in comparison.groups)
    if least < SEEDS_WANTED:
        return (
            f"{text}Intervals and p do not contain the variance of training: a claim about a method wants "
            f"{SEEDS_WANTED} seeds or more of each. These figures are about these trainings alone."
        )
    return (
        f"{text}Each p and interval is about two trainings; before a claim about the methods, see that they differ by "
        f"more than the trainings of each among themselves."
    )


def spread(values: Sequence[float | None], members: Sequence[int]) -> str:
    """The mean of a method's trainings and the lowest to the highest of them; the figure itself of one training."""
    known = [value for value in (values[i] for i in members) if value is not None]
    if not known:
        return "-"
    mean = number(sum(known) / len(known))
    return f"{mean} ({number(min(known))} to {number(max(known))})" if len(known) > 1 else mean


def looks(comparison: Comparison) -> str:
    """How often these cases have been looked at."""
    known = [f"{e.name} {e.looks}" for e in comparison.evaluations if e.looks is not None]
    if not known:
        return ""
    return f"Looks at these cases so far: {', '.join(known)}. Choosing by them makes them validation cases."


def seed_word(comparison: Comparison, place: int) -> str:
    """The run's seed, a dash where it is not known."""
    found = seed(comparison.evaluations[place])
    return "-" if found is None else str(found)
