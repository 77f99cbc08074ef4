"""What a reader of a comparison must know before its figures."""

from __future__ import annotations

from collections.abc import Sequence

from core.compare import metrics as of_metrics
from core.compare.evaluation import Evaluation


def notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """What a reader must know before the figures."""
    first, out = evaluations[0], []
    names = [evaluation.name for evaluation in evaluations]
    for key, text in (
        ("split_hash", "the runs were trained on different splits; the cases compared here are the same"),
        ("split", "the evaluations are of different parts of a split"),
    ):
        if len({e.provenance[key] for e in evaluations if e.provenance.get(key) is not None}) > 1:
            out.append(text)
    for evaluation, name in zip(evaluations, names, strict=True):
        for key in ("cropped", "selected"):
            if isinstance(evaluation.summary.get(key), str):
                out.append(f"{name}: {evaluation.summary[key]}")
        allowed = evaluation.summary.get("allowed")
        for kind, what in (allowed if isinstance(allowed, dict) else {}).items():
            if what:
                out.append(
                    f"{name}: evaluated with --allow {kind}, which {len(what)} case{'s' * (len(what) != 1)} needed"
                )
    if len({of_metrics.edges_mm(evaluation) for evaluation in evaluations}) > 1:
        edges = ", ".join(f"{edge:g}" for edge in of_metrics.edges_mm(first))
        out.append(f"the evaluations have different size bins; those of {first.name} are used ({edges} mm)")
    return out
