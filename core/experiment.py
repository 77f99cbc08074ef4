"""All sections of one experiment file -> plans."""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

import registry
from core import config
from core.build import Plan, convert, plain
from core.document import ConfigError, Node, wrap
from core.errors import UserError
from core.infer.geometry import Geometry
from core.settings import RESUMABLE, PrepareSettings, TrainSettings


def _default(value: Any) -> Any:
    return field(metadata={"node": value})


@dataclass(frozen=True)
class Experiment:
    """One experiment, checked. The order of the fields is the order of ``config.yaml``."""

    source: Annotated[Plan, "source"]
    store: Path
    split: Annotated[Plan, "split"]
    dataset: Annotated[Plan, "dataset"]
    model: Annotated[Plan, "model"]
    loss: list[Annotated[Plan, "loss"]]
    optimizer: Annotated[Plan, "optimizer"]
    window: Annotated[Plan, "window"] = _default({"name": "hu_window"})
    transform: list[Annotated[Plan, "transform"]] = _default([])
    augment: list[Annotated[Plan, "augment"]] = _default([])
    sampler: Annotated[Plan, "sampler"] = _default({"name": "uniform"})
    schedule: Annotated[Plan, "schedule"] = _default({"name": "cosine"})
    inferer: Annotated[Plan, "inferer"] = _default({"name": "slices"})
    postprocess: list[Annotated[Plan, "postprocess"]] = _default([])
    metric: list[Annotated[Plan, "metric"]] = _default(
        [{"name": n} for n in ("dice", "iou", "lesions")]
        # What training's validations can do without.
        + [{"name": n, "validate": False} for n in ("volume", "surface", "calibration", "lits", "error_analysis")]
    )
    hook: list[Annotated[Plan, "hook"]] = _default([{"name": n} for n in ("jsonl", "tensorboard", "progress")])
    train: TrainSettings = _default({})
    prepare: PrepareSettings = _default({})
    compare: list[str] = _default(["tumour/dice", "lesions/iou_0.1/f1", "lesions/iou_0.1/small_recall", "liver/dice"])
    plugins: list[str] = _default([])
    run: Path = _default("runs/unnamed")
    file: str = field(default="", metadata={"hidden": True})

    @property
    def geometry(self) -> Geometry:
        """What data set and inferer share: core's keys of the ``dataset:`` node."""
        geometry: Geometry = self.dataset.keys
        return geometry

    def resolved(self) -> str:
        """The experiment as YAML with every default written out; loading it gives the same plans."""
        return config.dump({key: value for key, value in plain(self).items() if key != "file"})


def load(path: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read and check an experiment file, or a run directory's ``config.yaml``.

    Raises:
        ConfigError: with every problem that was found.
    """
    path = Path(path)
    is_run = path.is_dir()
    if is_run and not (path / "config.yaml").is_file():
        raise ConfigError([f"{path}: a folder, but not a run directory (it has no config.yaml)"])
    problems: list[str] = []
    root = config.read(path / "config.yaml" if is_run else path, problems)
    place = root.place
    if is_run:
        root.value["run"] = Node(str(path), place)
    elif "run" not in root.value:
        root.value["run"] = Node(str(Path("runs") / path.stem), place)
    # Defaults first: `inferer.batch=4` and `metric[1].validate=false` need no section of that name in the file.
    defaults = {f.name: wrap(f.metadata["node"]) for f in dataclasses.fields(Experiment) if "node" in f.metadata}
    root = config.layer(Node(defaults, place), root)
    config.override(root, overrides, problems)
    _load_plugins(root, problems)
    experiment = convert(root, Experiment, "", problems)
    if experiment is not None and not problems:
        problems += _contradictions(experiment, root)
    if problems or experiment is None:
        raise ConfigError(problems)
    checked: Experiment = dataclasses.replace(experiment, file=str(path))
    return checked


def changes(old: Experiment, new: Experiment) -> list[str]:
    """The keys in which two experiments differ beyond what `--resume` may change, with both values."""
    first, second = _flat(plain(old)), _flat(plain(new))
    out = []
    for key in sorted({*first, *second} - {"file"}):
        if any(key == k or key.startswith((f"{k}.", f"{k}[")) for k in RESUMABLE):
            continue
        if first.get(key) != second.get(key):
            out.append(f"{key}: {_word(first, key)} in the run, {_word(second, key)} now")
    return out


def run_tool(main: Callable[[], int]) -> NoReturn:
    """Run a tool's main: a user's error is printed without a traceback, exit 2; an interruption exits 130.

    ``HEPAR_TRACEBACK=1`` shows the traceback all the same.
    """
    try:
        code = main()
        sys.stdout.flush()
    except (UserError, registry.RegistryError) as error:
        if os.environ.get("HEPAR_TRACEBACK"):
            traceback.print_exc()
        print(error, file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _load_plugins(root: Node, problems: list[str]) -> None:
    node = root.value.get("plugins")
    if node is None:
        return
    if not isinstance(node.value, list):
        node.value = [Node(node.value, node.place, node.folder)]
    for i, item in enumerate(node.value):
        if not isinstance(item.value, str):
            continue  # the check of types names it
        if item.value.endswith(".py"):
            item.value = str((item.folder / item.value).resolve())
        try:
            registry.load(item.value)
        except registry.RegistryError as error:
            problems.append(f"{item.place}  plugins[{i}]: {error}")


def _contradictions(experiment: Experiment, root: Node) -> list[str]:
    out = []
    if not experiment.loss:
        out.append(f"{root.value['loss'].place}  loss: want at least one loss")
    micro, batch = experiment.train.micro_batch, experiment.train.batch
    if micro is not None and batch % micro:
        place = root.value["train"].value["micro_batch"].place
        out.append(f"{place}  train.micro_batch: {micro} does not divide train.batch {batch}")
    return out


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else key).items()}
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{path}[{i}]").items()}
    return {path: value}


def _word(flat: dict[str, Any], key: str) -> str:
    return config.dump(flat[key]).removesuffix("...\n").strip() if key in flat else "absent"
