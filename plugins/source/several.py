"""Several sources in one experiment."""

from __future__ import annotations

import dataclasses
import re

from core.contracts import Case, Source
from core.data.overlaps import refusals, shares_numbers
from registry import register, suggest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@register("source", "several")
class Several:
    """Several sources as one; some of them may be an external test set.

    Case ids get the source's name before them (``lits.volume-3``), patients too, so that two sources' ``001`` are two;
    LiTS and MSD Task03 number the same patients alike and keep them together. Cases of `external` sources never train
    or validate: ``evaluate.py RUN --split external`` tests on them. An external set that shares patients with another
    source, as far as is known of public sets, is refused.

    Args:
        sources: name -> source.
        external: names of those that are external test sets.

    Raises ValueError for a name that cannot begin an id, an unknown external one, or an external set that overlaps.

    Example: {name: several, sources: {lits: {name: lits}, hv: {name: msd}}, external: [hv]}
    """

    def __init__(self, *, sources: dict[str, Source], external: list[str] | None = None) -> None:
        for name in sources:
            if not _NAME.fullmatch(name):
                raise ValueError(f"sources: '{name}' begins case ids: want letters, digits and _ - only")
        for name in external or []:
            if name not in sources:
                raise ValueError(
                    f"external: no source '{name}'{suggest(name, sources)} There are: {', '.join(sources)}"
                )
        if not set(sources) - set(external or []):
            raise ValueError("want at least one source that is not external, to train on")
        self._sources, self._external = sources, external or []

    def cases(self) -> list[Case]:
        """The cases of each source in turn."""
        found: list[tuple[str, Case]] = []
        for name, source in self._sources.items():
            try:
                found += [(name, case) for case in source.cases()]
            except ValueError as error:
                raise ValueError(f"sources.{name}: {error}") from error
        outside = {case.origin for name, case in found if case.external or name in self._external}
        inside = {case.origin for name, case in found if not (case.external or name in self._external)}
        wrong = refusals(outside, inside)
        if wrong:
            raise ValueError("\n  ".join(["external: patients of the training data", *wrong]))
        return [
            dataclasses.replace(
                case,
                id=f"{name}.{case.id}",
                patient=f"LiTS.{case.patient}" if shares_numbers([case.origin]) else f"{name}.{case.patient}",
                external=case.external or name in self._external,
            )
            for name, case in found
        ]
