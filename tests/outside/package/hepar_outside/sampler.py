"""A sampler of the installed package."""

from collections.abc import Sequence

import numpy as np

from core.contracts import Record
from registry import register


@register("sampler", "patient_balanced")
class PatientBalanced:
    """Every patient equally often, however many slices each has.

    Args:
        length: samples an epoch; null takes as many as there are records.

    Example: {name: patient_balanced, length: 24}
    """

    def __init__(self, records: Sequence[Record], *, length: int | None = None) -> None:
        self.length = length or len(records)
        groups: dict[str, list[int]] = {}
        for i, record in enumerate(records):
            groups.setdefault(record.patient, []).append(i)
        self.groups = list(groups.values())

    def order(self, seed: int, epoch: int) -> Sequence[int]:
        rng = np.random.default_rng([seed, epoch])
        patients = [rng.permutation(len(self.groups)) for _ in range(-(-self.length // len(self.groups)))]
        return [int(rng.choice(self.groups[p])) for p in np.concatenate(patients)[: self.length]]
