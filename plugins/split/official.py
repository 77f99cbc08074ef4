"""The split of a data set's own layout."""

from __future__ import annotations

from core.data.splits import PARTS, SplitError, check_share, validating
from core.data.store import Store
from registry import register


@register("split", "official")
class Official:
    """The split that a data set's layout gives: LiTS' and the Decathlon's test scans, a CSV's column ``split``.

    Where the layout names no case to validate on, a share of its training patients does, drawn as `stratified` draws.
    Cases without a label are left out; LiTS' and the Decathlon's test scans have none, so nothing of them tests here.

    Args:
        val: share of the training patients that validates, if the layout has no val; 0 validates on none.
        seed: of that draw.

    Raises ValueError for an impossible share, and SplitError if the layout gives no split, or not for all cases.

    Example: {name: official, val: 0.15}
    """

    def __init__(self, store: Store, *, val: float = 0.15, seed: int = 0) -> None:
        check_share("val", val)
        self._store, self._val, self._seed = store, val, seed

    def parts(self) -> dict[str, list[str]]:
        """Case ids under train, val and test."""
        store = self._store
        cases = [case for case in store.cases if not store.info(case).external]
        without = [case for case in cases if store.info(case).labelled and not store.info(case).part]
        if not any(store.info(case).part for case in cases):
            raise SplitError(f"{store.root}: the source's layout gives no split; use split: stratified, or file")
        if without:
            shown = ", ".join(without[:5]) + (" ..." if len(without) > 5 else "")
            raise SplitError(
                f"{store.root}: the layout says of {len(without)} of {len(cases)} cases neither train, val nor test: "
                f"{shown}; name their part, leave them out (source.exclude), or use split: file"
            )
        parts = {
            name: [case for case in cases if store.info(case).labelled and store.info(case).part == name]
            for name in PARTS
        }
        if not parts["val"]:
            parts["val"], parts["train"] = validating(store, parts["train"], self._val, self._seed)
        return parts
