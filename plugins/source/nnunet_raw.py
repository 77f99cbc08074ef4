"""nnU-Net's raw data layout."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from core.contracts import Case
from core.data.layouts import compiled, label_map, leave_out, patient, read_description
from core.data.overlaps import patient_of
from core.data.store import natural
from registry import register


@register("source", "nnunet_raw")
class NnunetRaw:
    """A data set in nnU-Net's raw layout: imagesTr/CASE_0000.nii.gz with labelsTr/CASE.nii.gz and dataset.json.

    Version 2, and version 1's dataset.json too; .nii.gz, .nrrd or .mha by its ``file_ending``. Scans in imagesTs have
    the part ``test`` (split ``official``), with a label if labelsTs has one. One channel only. What liver and tumour
    are is read from the labels' names, regions (``liver: [1, 2]``, ``tumour: 2``) too. Dataset003_Liver is MSD Task03,
    which is LiTS: its patients get LiTS' names.

    Isensee et al. 2021, nnU-Net, arXiv:1809.10486.

    Args:
        root: the data set's folder, with dataset.json.
        label_map: value in the label files -> 0, 1 (liver) or 2 (tumour); values not named become background. Null
            reads the labels' names.
        origin: the data set's name; null is the folder's.
        patient_regex: finds the patient in a case's name: its first group, or all that it matches; null takes each
            case for a patient of its own.
        exclude: case ids to leave out.
        intensity: "windowed" if the scans were windowed or rescaled before; figures in HU are then left blank.

    Raises ValueError if the folder or its dataset.json is missing or wrong, or there are several channels.

    Example: {name: nnunet_raw, root: data/raw/Dataset003_Liver}
    """

    def __init__(
        self,
        *,
        root: Path = Path("data/raw/Dataset003_Liver"),
        label_map: dict[int, int] | None = None,
        origin: str | None = None,
        patient_regex: str | None = None,
        exclude: list[str] | None = None,
        intensity: Literal["hu", "windowed"] = "hu",
    ) -> None:
        self._root = Path(root).expanduser()
        self._label_map, self._origin, self._exclude = label_map, origin, exclude
        self._hu = intensity == "hu"
        self._pattern = compiled(patient_regex)

    def cases(self) -> list[Case]:
        """Cases by name, those of imagesTs last."""
        described = read_description(
            self._root, "want a data set's folder, such as Dataset003_Liver, with dataset.json, imagesTr and labelsTr"
        )
        file = self._root / "dataset.json"
        channels = described.get("channel_names", described.get("modality"))
        if not isinstance(channels, dict) or len(channels) != 1:
            shown = (
                ", ".join(f"{key} {name}" for key, name in channels.items()) if isinstance(channels, dict) else "none"
            )
            raise ValueError(f"{file}: channel_names: want one channel, a CT; it has {shown}")
        mapping = label_map(self._label_map, described.get("labels"), file)
        ending = str(described.get("file_ending", ".nii.gz"))
        origin = self._origin or _origin(self._root.name)
        cases = []
        for case, image, label, part in self._found(described, ending):
            cases.append(
                Case(
                    id=case,
                    patient=patient(self._pattern, case) if self._pattern else patient_of(origin, case),
                    image=image,
                    label=label,
                    origin=origin,
                    hu_trusted=self._hu,
                    label_map=mapping if label is not None else (),
                    part=part,
                )
            )
        if not cases:
            raise ValueError(f"{self._root}: no CASE_0000{ending} in imagesTr (file_ending of dataset.json)")
        return leave_out(cases, self._exclude, self._root)

    def _found(self, described: Mapping[str, Any], ending: str) -> Iterator[tuple[str, Path, Path | None, str]]:
        listed = described.get("dataset")
        if isinstance(listed, dict):  # cases that lie elsewhere
            for case in sorted(listed, key=natural):
                entry = listed[case]
                images = entry.get("images") if isinstance(entry, dict) else None
                if not isinstance(images, list) or len(images) != 1 or not isinstance(entry.get("label"), str):
                    raise ValueError(
                        f"{self._root / 'dataset.json'}: dataset.{case}: want {{images: [one path], label: path}}, "
                        f"got {entry!r}"
                    )
                yield case, self._root / images[0], self._root / entry["label"], "train"
        for name, part in (("Tr", "train"), ("Ts", "test")):
            if part == "train" and isinstance(listed, dict):
                continue
            images, labels = self._root / f"images{name}", self._root / f"labels{name}"
            scans = {}
            for path in _files(images, ending):
                match = re.fullmatch(r"(.+)_(\d{4})", path.name[: -len(ending)])
                if match and match[2] != "0000":
                    raise ValueError(f"{path}: a second channel; want one channel, a CT")
                if match:
                    scans[match[1]] = path
            masks = {path.name[: -len(ending)]: path for path in _files(labels, ending)}
            for case in sorted({*scans, *masks}, key=natural):
                # A missing one of a pair is named where it should be, so that `prepare` reports it and goes on.
                expected = labels / f"{case}{ending}" if part == "train" else None
                yield case, scans.get(case, images / f"{case}_0000{ending}"), masks.get(case, expected), part


def _files(folder: Path, ending: str) -> list[Path]:
    # Hidden ones too are `._CASE.nii.gz`, which macOS leaves on foreign disks.
    found = folder.iterdir() if folder.is_dir() else []
    return sorted(p for p in found if p.name.endswith(ending) and not p.name.startswith("."))


def _origin(folder: str) -> str:
    # nnU-Net numbers the Decathlon's tasks as the Decathlon does: 1 to 10.
    match = re.fullmatch(r"(?:Dataset|Task)0*(\d+)_\w+", folder)
    return f"MSD Task{int(match[1]):02d}" if match and 1 <= int(match[1]) <= 10 else folder
