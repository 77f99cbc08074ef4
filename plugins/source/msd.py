"""The Medical Segmentation Decathlon's layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from core.contracts import Case
from core.data.layouts import bare, label_map, leave_out, read_description
from core.data.overlaps import patient_of
from registry import register

_TASKS = {"liver": 3, "hepaticvessel": 8}


@register("source", "msd")
class Msd:
    """A task of the Medical Segmentation Decathlon: dataset.json lists the pairs; Task03 is LiTS.

    The pairs under ``training`` have the part ``train`` (split ``official``), the scans under ``test`` have no label
    and take part in no split. What liver and tumour are is read from the labels' names; where that does not tell
    (Task08 has vessels and tumours, and no liver), `label_map` says it. Task03's patients are those of LiTS, so that
    the two never part in a split.

    Antonelli et al. 2022, The Medical Segmentation Decathlon, arXiv:2106.05735.

    Args:
        root: the task's folder, with dataset.json.
        label_map: value in the label files -> 0, 1 (liver) or 2 (tumour), e.g. ``{2: 2}``; values not named become
            background. Null reads the labels' names.
        origin: the data set's name; null is ``MSD TaskNN``, found from the folder's or the data set's name.
        exclude: case ids to leave out, e.g. ``[liver_53]``.
        intensity: "windowed" if the scans were windowed or rescaled before; figures in HU are then left blank.

    Raises ValueError if the folder or its dataset.json is missing or wrong.

    Example: {name: msd, root: data/raw/Task03_Liver}
    """

    def __init__(
        self,
        *,
        root: Path = Path("data/raw/Task03_Liver"),
        label_map: dict[int, int] | None = None,
        origin: str | None = None,
        exclude: list[str] | None = None,
        intensity: Literal["hu", "windowed"] = "hu",
    ) -> None:
        self._root = Path(root).expanduser()
        self._label_map, self._origin, self._exclude = label_map, origin, exclude
        self._hu = intensity == "hu"

    def cases(self) -> list[Case]:
        """The training pairs, then the test scans, in the order of dataset.json."""
        described = read_description(
            self._root, "want a task's folder, such as Task03_Liver, with dataset.json, imagesTr and labelsTr"
        )
        file = self._root / "dataset.json"
        mapping = label_map(self._label_map, described.get("labels"), file)
        origin = self._origin or _origin(self._root.name, str(described.get("name", "")))
        pairs = [(_entry(item, "training", file), "train") for item in _listed(described, "training", file)]
        pairs += [(_entry(item, "test", file), "test") for item in _listed(described, "test", file)]
        if not pairs:
            raise ValueError(f"{file}: lists no scan, neither under training nor under test")
        cases = []
        for (image, label), part in pairs:
            case = bare(Path(image).name)
            cases.append(
                Case(
                    id=case,
                    patient=patient_of(origin, case) if part == "train" else f"test-{case}",
                    image=self._file(image),
                    label=self._file(label) if label else None,
                    origin=origin,
                    hu_trusted=self._hu,
                    label_map=mapping if label else (),
                    part=part,
                )
            )
        return leave_out(cases, self._exclude, self._root)

    def _file(self, listed: str) -> Path:
        path = self._root / listed
        # Unpacked files keep their place in dataset.json under the packed name.
        return path.with_suffix("") if not path.exists() and path.with_suffix("").is_file() else path


def _listed(described: dict[str, Any], key: str, file: Path) -> list[Any]:
    found = described.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"{file}: {key}: want a list, got a {type(found).__name__}")
    return found


def _entry(item: Any, key: str, file: Path) -> tuple[str, str]:
    """Image and label (or an empty string) of one line; ``test`` lists images alone."""
    image, label = (item.get("image"), item.get("label", "")) if isinstance(item, dict) else (item, "")
    if not isinstance(image, str) or not isinstance(label, str) or (key == "training" and not label):
        want = "{image: ..., label: ...}" if key == "training" else "a scan's path"
        raise ValueError(f"{file}: {key}: want {want}, got {item!r}")
    return image, label


def _origin(folder: str, name: str) -> str:
    match = re.match(r"Task0*(\d+)", folder, re.IGNORECASE)
    number = int(match[1]) if match else _TASKS.get(name.lower())
    return f"MSD Task{number:02d}" if number is not None else f"MSD {name or folder}"
