"""Evaluating a case against its parts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.bench.report import Column, Report, Table
from core.bench.timing import in_turns, progress, ratio, spread, timed
from core.bench.volumes import BareNetwork, Clock, Subject, TimedInferer, pick, shares, slice_rate, stand_in
from core.contracts import Metric, OnLogits, Prediction, Rows
from core.data.store import Store
from core.data.volume import Volume
from core.infer.evaluate import evaluate_case, want_probabilities
from core.measure.pair import CasePair


def bench_evaluate(subject: Subject, store: Store, *, cases: int, blocks: int) -> Report:
    """The evaluation of whole cases, reading included, against the bare network; and the share of each part.

    Args:
        subject: the network and what belongs to it.
        store: where the cases are.
        cases: how many, the first ones with a reference.
        blocks: how often each side is timed.
    """
    chosen = pick(store, cases)
    untrained = subject.weights == "untrained"
    arrays = [store.image(case) for case in chosen]
    slices = sum(len(array) for array in arrays)
    bare = BareNetwork(subject, arrays, [store.info(case).spacing_mm[0] for case in chosen])
    labels = {case: stand_in(store.label(case)) for case in chosen} if untrained else {}
    clocks: list[Clock] = []

    def evaluate(inferer: Any, postprocess: Sequence[Any], metrics: Sequence[Any], clock: Clock) -> None:
        for case in chosen:
            with clock.part("reading"):
                volume, reference = store.volume(case), store.label(case)
            used = _StandIn(inferer, labels[case]) if untrained else inferer
            with subject.precision:
                evaluate_case(
                    case,
                    volume,
                    reference,
                    inferer=used,
                    postprocess=postprocess,
                    metrics=metrics,
                    info=store.info(case),
                    probabilities=want_probabilities(subject.metrics),
                )

    whole_inferer = subject.inferer()

    def whole() -> float:
        clock = Clock(subject.device)
        return timed(lambda: evaluate(whole_inferer, subject.postprocess, subject.metrics, clock), subject.device)

    post_names = [plan.name for plan in subject.experiment.postprocess]
    metric_names = [plan.name for plan in subject.experiment.metric]

    def in_parts() -> float:
        clock = Clock(subject.device)
        clocks.append(clock)
        post = [_timed_step(step, f"post{i}", clock) for i, step in enumerate(subject.postprocess)]
        metrics = [_TimedMetric(metric, f"metric{i}", clock) for i, metric in enumerate(subject.metrics)]
        return timed(lambda: evaluate(TimedInferer(subject, clock), post, metrics, clock), subject.device)

    with progress("evaluate", 3 * (blocks + 1)) as bar:
        seconds = in_turns(
            {"evaluation": whole, "bare network": lambda: timed(bare, subject.device), "parts": in_parts}, blocks, bar
        )
    speed = Table(
        "speed",
        f"evaluation against the bare network on the same {slices} slices of {len(chosen)} scans",
        [Column("rate", "slices/s", ".1f"), Column("ratio", "of the bare network", ".3f", range=True)],
    )
    for name in ("bare network", "evaluation"):
        speed.add(name, rate=slice_rate(slices, seconds[name]), ratio=ratio(seconds["bare network"], seconds[name]))
    together = spread([sum(clock.seconds.values()) for clock in clocks[1:]])
    speed.add("the parts below", rate=slice_rate(slices, together), ratio=ratio(seconds["bare network"], together))
    names = {
        "reading": "reading scan and reference",
        "slices": "slices to the network's grid",
        "network": "network",
        "back": "logits back to the scan's grid",
        "labels": "labels, and the rest of the inferer",
        **{f"post{i}": f"post-processing: {name}" for i, name in enumerate(post_names)},
        **{f"metric{i}": f"metric: {name}" for i, name in enumerate(metric_names)},
    }
    parts = shares("parts", "where the time of a case goes", names, [c.seconds for c in clocks[1:]], len(chosen))
    parts.notes.append("Metrics of one case share masks and counts: the first one to ask pays for them.")
    parts.notes += subject.note()
    return Report("evaluate", subject.settings(chosen, blocks), [speed, parts])


class _StandIn:
    """An inferer whose labels are replaced by those that a trained network might give."""

    def __init__(self, inferer: Any, labels: np.ndarray) -> None:
        self.inferer, self.labels = inferer, labels

    def __call__(self, volume: Volume, *, probabilities: bool = False, on_logits: OnLogits | None = None) -> Prediction:
        """As the inferer, but for the labels."""
        found = self.inferer(volume, probabilities=probabilities, on_logits=on_logits)
        return Prediction(self.labels, found.probabilities)


def _timed_step(step: Any, part: str, clock: Clock) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with clock.part(part):
            return step(*args, **kwargs)

    # It keeps the signature, by which a post-processor asks for probabilities.
    return functools.update_wrapper(call, step, updated=())


class _TimedMetric:
    """A metric with a clock."""

    def __init__(self, metric: Metric, part: str, clock: Clock) -> None:
        self.metric, self.part, self.clock = metric, part, clock

    def measure(self, pair: CasePair) -> dict[str, Rows]:
        """As the metric's."""
        with self.clock.part(self.part):
            return self.metric.measure(pair)
