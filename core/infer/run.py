"""A finished (or running) run as something that predicts; needs neither the store nor the training data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core import experiment as experiments
from core.build import Plan, build
from core.contracts import Inferer, Metric, Postprocess, Prediction
from core.data.grid import to_grid
from core.errors import UserError
from core.experiment import Experiment
from core.infer.evaluate import infer
from core.infer.network import Network
from core.train import checkpoint as checkpoints
from core.train.precision import autocast
from core.tune import record
from core.tune.record import Tuned
from core.values import CLASSES

if TYPE_CHECKING:
    from core.data.store import Store
    from core.data.volume import Volume


CROPPED = (
    "trained on scans cropped to the reference's liver (prepare.crop: liver): a new scan, which has none, is taken "
    "whole; figures on cropped scans are optimistic"
)


@dataclass(frozen=True)
class Run:
    """A run with one of its checkpoints loaded.

    Attributes:
        folder: the run directory.
        experiment: its configuration, overrides and tuned post-processing applied.
        network: HU -> logits, on `device`, in evaluation mode; the averaged (EMA) weights where the run keeps them.
        inferer: component of kind ``inferer``.
        postprocess: components of kind ``postprocess``.
        device: where the network is.
        checkpoint: the file that was loaded.
        step: global batches that it was trained for.
        averaged: whether the weights are the averaged ones.
        note: what the user should know of the choice of the checkpoint, or an empty string.
        tuned: where the post-processing comes from if tools/tune.py chose it; its `cases` are the validation cases that
            it was chosen on, and `text` says so in a line.
    """

    folder: Path
    experiment: Experiment
    network: Network
    inferer: Inferer
    postprocess: list[Postprocess]
    device: torch.device
    checkpoint: Path
    step: int
    averaged: bool
    note: str
    tuned: Tuned | None = None

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of training, for inference."""
        return autocast(self.device, self.experiment.train.precision)

    def predict(self, volume: Volume, *, probabilities: bool = False) -> Prediction:
        """Post-processed labels on the volume's own (canonical) grid, and probabilities if asked for.

        The volume is cropped and resampled as the run's store was (``prepare:``), and the prediction brought back.
        """
        inside, grid = to_grid(volume, self.experiment.prepare)
        with self.autocast():
            found, _ = infer(
                inside, inferer=self.inferer, postprocess=self.postprocess, probabilities=probabilities, grid=grid
            )
        return Prediction(found.labels, found.probabilities if probabilities else None)

    def metrics(self) -> list[Metric]:
        """The experiment's metrics, those too that training's validations leave out."""
        return [build(plan) for plan in self.experiment.metric]


def load_run(
    path: Path | str,
    checkpoint: str | Path = "best",
    device: torch.device | str | None = None,
    overrides: Sequence[str] = (),
    *,
    tuned: bool = True,
) -> Run:
    """Load a run directory: ``load_run("runs/x").predict(volume)``.

    Outside the tools, say ``registry.discover("plugins")`` first: core imports no plugin by itself.

    Args:
        path: the run directory.
        checkpoint: "best", "last", or a checkpoint's path. A run without a best one (nothing was validated) gives its
            last.
        device: None takes a GPU where there is one.
        overrides: dotted paths, as on the command line.
        tuned: take the post-processing that tools/tune.py chose, where the run has one (``tuned.yaml``) and `overrides`
            give no other.

    Raises:
        UserError: if the run or the checkpoint does not exist, the checkpoint does not fit the model, or the
            post-processing was chosen with another checkpoint.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"no such run directory: {folder}{_known_runs(folder)}")
    experiment = experiments.load(folder, overrides)
    file, note = find_checkpoint(folder, checkpoint)
    where = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if where.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {where}: there is no CUDA device here; leave --device out, or use --device cpu")
    if experiment.prepare.crop == "liver":
        note = "; ".join(filter(None, [note, CROPPED]))
    state = checkpoints.load(file)
    choice = record.read(folder) if tuned else None
    if choice is not None and record.overridden(overrides):
        note = "; ".join(filter(None, [note, f"postprocess is given, so {folder / record.FILE} is not used"]))
        choice = None
    if choice is not None:
        _same_checkpoint(choice, folder, file, int(state["step"]), checkpoint)
        experiment = dataclasses.replace(experiment, postprocess=list(choice.postprocess))
    network = build_network(experiment)
    _fill(network, state, file, experiment)
    network.to(where).eval()
    if experiment.train.channels_last:
        network.use_channels_last()
    return Run(
        folder=folder,
        experiment=experiment,
        network=network,
        inferer=build(experiment.inferer, network=network, geometry=experiment.geometry),
        postprocess=[build(plan) for plan in experiment.postprocess],
        device=where,
        checkpoint=file,
        step=int(state["step"]),
        averaged=state.get("ema") is not None,
        note=note,
        tuned=choice,
    )


def build_network(experiment: Experiment) -> Network:
    """The experiment's network without its weights: no download, no store; a checkpoint holds all it lacks."""
    window = build(experiment.window, store=None, cases=None)
    plan: Plan = experiment.model
    if "weights" in plan.args:
        plan = dataclasses.replace(plan, args={**plan.args, "weights": None})
    channels = window.channels(experiment.geometry.images) * experiment.geometry.repeat
    return Network(window, build(plan, in_channels=channels, classes=CLASSES), experiment.geometry)


def find_checkpoint(folder: Path, which: str | Path) -> tuple[Path, str]:
    """The checkpoint's file, and a note if it is not the one that was asked for.

    Raises:
        UserError: if there is none.
    """
    for file in (checkpoints.find(folder, str(which)), folder / checkpoints.FOLDER / which):
        if file.is_file():
            return file, ""
    last = checkpoints.find(folder, "last")
    if str(which) == "best" and last.is_file():
        return last, f"{folder} has no best checkpoint (nothing was validated), using {last.name}"
    existing = sorted(p.name for p in (folder / checkpoints.FOLDER).glob("*.pt"))
    raise UserError(
        f"{folder}: no checkpoint '{which}'\n  there are: {', '.join(existing) or 'none; has training saved one yet?'}"
    )


def read_split(folder: Path, part: str, store: Store) -> list[str]:
    """The case ids of one part of the run's split, checked against the store.

    Raises:
        UserError: if the part is empty, a case is missing or unlabelled, or its content is no longer what the run saw.
    """
    file = folder / "split.json"
    if not file.is_file():
        raise UserError(f"{file} is missing: the run has no recorded split; was it trained?")
    recorded = json.loads(file.read_text(encoding="utf-8"))
    cases: list[str] = recorded["parts"].get(part, [])
    if not cases:
        sizes = ", ".join(f"{name} {len(ids)}" for name, ids in recorded["parts"].items())
        raise UserError(
            f"the {part} split of {folder} is empty (cases: {sizes}); nothing to evaluate.\n"
            f"  Train with a {'source that is external' if part == 'external' else f'split that has {part} cases'}, "
            f"or evaluate another one with --split"
        )
    problems = [text for case in cases for text in _mismatch(case, recorded["hashes"], store)]
    if problems:
        raise UserError(
            f"{file}: {len(problems)} of {len(cases)} {part} cases no longer match the store {store.root}\n"
            + "\n".join(f"  {text}" for text in problems)
            + "\n  Point store= at the store that the run was trained on, or train anew."
        )
    return cases


def digest(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    sha = hashlib.sha256()
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def _mismatch(case: str, hashes: Mapping[str, str], store: Store) -> list[str]:
    if case not in store.cases:
        return [f"case '{case}' is not in the store"]
    info = store.info(case)
    if info.content_hash != hashes.get(case):
        return [f"case '{case}': its image has changed since the run began ({info.image_path})"]
    if not info.labelled:
        return [f"case '{case}' has no reference ({info.image_path})"]
    return []


def _fill(network: Network, state: dict[str, Any], file: Path, experiment: Experiment) -> None:
    try:
        checkpoints.fit(network, checkpoints.weights(state), file)
    except checkpoints.CheckpointError as error:
        args = ", ".join(f"{key}={value}" for key, value in experiment.model.args.items() if key != "weights")
        raise UserError(f"{error}\n  the experiment's model: {experiment.model.name} ({args})") from error


def _same_checkpoint(choice: Tuned, folder: Path, file: Path, step: int, asked: str | Path) -> None:
    if digest(file) != choice.checkpoint_hash:
        which = "" if str(asked) == "best" else f" --checkpoint {asked}"
        raise UserError(
            f"{folder / record.FILE}: this post-processing was chosen with checkpoint {choice.checkpoint} of step "
            f"{choice.step}, and {file.name} of step {step} is another\n"
            f"  choose again:   python tools/tune.py {folder}{which} --overwrite\n"
            f"  leave it aside: --untuned (in Python: tuned=False), or delete the file"
        )


def _known_runs(folder: Path) -> str:
    parent = folder.parent
    runs = sorted(p.parent.name for p in parent.glob("*/config.yaml")) if parent.is_dir() else []
    return f"\n  there are in {parent}: {', '.join(runs)}" if runs else ""
