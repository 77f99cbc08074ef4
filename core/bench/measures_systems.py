"""The systems that metrics are measured against; nothing is imported here, the memory of processes would grow by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class System:
    """One system.

    Attributes:
        title: in tables.
        module: to import.
        package: to install.
        wanted: how many times as long it should take.
        slow: it takes minutes a pair, so it is timed once.
    """

    title: str
    module: str
    package: str
    wanted: str
    slow: bool = False


SYSTEMS = {
    "lits": System("the LiTS scorer's way", "scipy", "scipy", ">= 5"),
    "surface_distance": System("surface-distance", "surface_distance", "surface-distance", ">= 10"),
    "monai": System("MONAI, one by one", "monai", "monai", ">= 40"),
    "medpy": System("medpy", "medpy", "medpy", ">= 300", slow=True),
}
"""By what `--against` takes."""
