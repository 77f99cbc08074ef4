"""All that an audit found, ready to be written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.audit.across import check_across, check_names
from core.audit.case import Examined
from core.audit.rules import RULES, SEVERITIES, Finding, Severity


@dataclass(frozen=True)
class Audit:
    """The cases of a source and what was found.

    Attributes:
        title: of the experiment.
        source: its source, as text.
        cases: in the source's order.
        findings: of single cases and across cases, the worst first.
    """

    title: str
    source: str
    cases: list[Examined]
    findings: list[Finding]

    def of_case(self, case: str) -> list[Finding]:
        """The findings that concern one case."""
        return [f for f in self.findings if case in f.cases]

    def count(self, severity: Severity) -> int:
        """How many findings are of one severity."""
        return sum(RULES[f.rule].severity == severity for f in self.findings)

    def worst(self, case: str) -> Severity | None:
        """The worst severity of a case's findings, or None."""
        found = {RULES[f.rule].severity for f in self.of_case(case)}
        return next((s for s in SEVERITIES if s in found), None)


def conclude(title: str, source: str, examined: Sequence[Examined]) -> Audit:
    """Add what cases say against one another, and sort by severity and rule."""
    found = [*check_names([e.case for e in examined]), *(f for e in examined for f in e.findings)]
    found += check_across(examined)
    order = {rule: i for i, rule in enumerate(RULES)}
    found.sort(key=lambda f: (SEVERITIES.index(RULES[f.rule].severity), order[f.rule]))
    return Audit(title, source, list(examined), found)
