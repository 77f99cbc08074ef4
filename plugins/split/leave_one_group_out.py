"""One data set, hospital or patient tests, all others train."""

from __future__ import annotations

from typing import Literal

from core.data.splits import SplitError, check_share, groups, validating
from core.data.store import Store, natural
from registry import register, suggest


@register("split", "leave_one_group_out")
class LeaveOneGroupOut:
    """All cases of one origin (or patient) test, the others train and validate.

    Cases of another group that show a tested patient (the same scan, whole or in part, or patient) take no part.

    Args:
        by: what a group is: the source's ``origin``, or a patient.
        group: the group that tests, by name.
        fold: or its position among the groups' sorted names, from 0.
        val: share of the other patients that validates, drawn as `stratified` draws.
        seed: of that draw.

    Raises ValueError unless one of group and fold is given, and SplitError if there is no such group or only one.

    Example: {name: leave_one_group_out, by: patient, fold: 0}
    """

    def __init__(
        self,
        store: Store,
        *,
        by: Literal["origin", "patient"] = "origin",
        group: str | None = None,
        fold: int | None = None,
        val: float = 0.15,
        seed: int = 0,
    ) -> None:
        check_share("val", val)
        if (group is None) == (fold is None):
            raise ValueError("give either group, the name of the one that tests, or fold, its position from 0")
        self._store, self._by, self._group, self._fold = store, by, group, fold
        self._val, self._seed = val, seed

    def parts(self) -> dict[str, list[str]]:
        """Case ids under train, val and test."""
        store, everyone = self._store, groups(self._store)
        owner = {case: str(getattr(store.info(case), self._by)) for group in everyone for case in group.cases}
        nameless = [case for case in store.cases if owner.get(case) == ""]
        if nameless:
            raise SplitError(f"{store.root}: case '{nameless[0]}' has no {self._by}; its source should name one")
        names = sorted(set(owner.values()), key=natural)
        if len(names) < 2:
            raise SplitError(
                f"{store.root}: all labelled cases have one {self._by}{f', {names[0]!r}' if names else ''}; "
                f"leaving it out leaves nothing to train on"
            )
        tested = [case for case in store.cases if owner.get(case) == self._chosen(names)]
        rest = [case for group in everyone if not set(group.cases) & set(tested) for case in group.cases]
        val, train = validating(store, rest, self._val, self._seed)
        return {"train": train, "val": val, "test": tested}

    def _chosen(self, names: list[str]) -> str:
        if self._group is not None:
            if self._group not in names:
                raise SplitError(
                    f"{self._store.root}: no {self._by} '{self._group}'{suggest(self._group, names)}\n"
                    f"  there are: {', '.join(names)}"
                )
            return self._group
        fold = self._fold or 0
        if not 0 <= fold < len(names):
            raise SplitError(f"{self._store.root}: fold says which {self._by} tests: 0 to {len(names) - 1}, got {fold}")
        return names[fold]
