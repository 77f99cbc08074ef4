"""Cases, each as often as another."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts import Record
from core.data.orders import check_records, check_share, member, nested
from registry import register


@register("sampler", "case_balanced")
class CaseBalanced:
    """Draw each case equally often, however many samples it has: a thin-sliced scan does not count for five others.

    Cases come from an endless row of shuffles that runs on from epoch to epoch, and so do the samples of each case.

    Args:
        tumour_fraction: share of samples with tumour among those of a case that has both kinds; null draws a case's
            samples as they are. Cases without tumour stay without, so the share of all is lower.
        length: samples an epoch; null takes as many as there are records.

    Raises:
        ValueError: if there are no records, or a value is out of range.

    Example: {name: case_balanced, tumour_fraction: 0.5}
    """

    def __init__(
        self, records: Sequence[Record], *, tumour_fraction: float | None = None, length: int | None = None
    ) -> None:
        self.share = None if tumour_fraction is None else check_share("tumour_fraction", tumour_fraction)
        check_records(records, length)
        cases: dict[str, tuple[list[int], list[int]]] = {}
        for index, record in enumerate(records):
            cases.setdefault(record.case, ([], []))[record.tumour_voxels > 0].append(index)
        self.cases = list(cases.values())
        self.length = length or len(records)

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        """Positions in `records`."""

        def draw(case: int, turn: int) -> int:
            other, tumour = self.cases[case]
            if self.share is None or not other or not tumour:
                return member([*other, *tumour], turn, (seed, 1, case))
            # Cases begin at different points of their share: else all would show tumour in the same round.
            before, after = (
                (self.share.numerator * k + case * self.share.denominator // len(self.cases)) // self.share.denominator
                for k in (turn, turn + 1)
            )
            if after > before:
                return member(tumour, before, (seed, 2, case))
            return member(other, turn - before, (seed, 3, case))

        return nested(len(self.cases), epoch * self.length, self.length, (seed, 0), draw).tolist()
