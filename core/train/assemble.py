"""From an experiment to a trainer that is ready to fit."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

import registry
from core import dist, rundir, seed
from core.build import Plan, build
from core.config import ConfigError
from core.contracts import Record
from core.data import leakage, splits
from core.data.loader import Blueprint, TrainLoader
from core.data.store import Store
from core.data.summary import check_grid
from core.errors import UserError
from core.experiment import Experiment
from core.infer.network import Network
from core.settings import TrainSettings
from core.train import ddp
from core.train.early import Judge
from core.train.hooks import Hooks
from core.train.objective import Objective
from core.train.recompute import checkpoint_activations
from core.train.trainer import Trainer
from core.train.validate import Validation
from core.values import CLASSES


def split_parts(experiment: Experiment, store: Store) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The run's recorded split, or a new one with the external cases as a fourth part; checked against the store.

    Raises:
        UserError: if a recorded case is gone or its content is another, or a new split leaks and must not.
    """
    recorded = rundir.read_split(experiment.run)
    if recorded is not None:
        parts, hashes = recorded
        changed = [c for c, h in hashes.items() if c not in store.cases or store.info(c).content_hash != h]
        if changed:
            raise UserError(
                f"{experiment.run}: the store {store.root} no longer holds the scans that this run began with: "
                f"{', '.join(changed[:5])}{' ...' if len(changed) > 5 else ''}; prepare it again, or begin another run"
            )
    else:
        split = build(experiment.split, store=store)
        try:
            parts = {name: list(cases) for name, cases in split.parts().items()}
        except ValueError as error:
            raise ConfigError([f"{experiment.split.place}  split '{experiment.split.name}': {error}"]) from error
        parts |= {splits.EXTERNAL: outside} if (outside := splits.externals(store)) else {}
        hashes = {c: store.info(c).content_hash for cases in parts.values() for c in cases if c in store.cases}
    splits.check(parts, store)
    if recorded is None:
        leakage.check(parts, store, experiment.split.keys.leakage)
    return parts, hashes


def assemble(
    experiment: Experiment, device: torch.device, *, resume: bool = False, say: Callable[[str], None] = print
) -> Trainer:
    """Build everything of a training. A collective: rank 0 writes the run directory's records."""
    settings = experiment.train
    store = Store(experiment.store)
    check_grid(store.root, experiment.prepare)
    parts, hashes = split_parts(experiment, store)
    train, val = tuple(parts["train"]), parts.get("val", [])
    objective = Objective(_named([(p, p.keys.weight) for p in experiment.loss])).to(device)
    blueprint = Blueprint(
        store=experiment.store,
        cases=train,
        dataset=experiment.dataset,
        geometry=experiment.geometry,
        transforms=tuple(experiment.transform),
        seed=settings.seed,
        lesions="lesion" in objective.asks,
        sources=registry.sources(),
    )
    data = TrainLoader(
        blueprint,
        experiment.sampler,
        batch=settings.batch,
        micro_batch=settings.micro_batch,
        rank=dist.rank(),
        world=dist.world(),
        workers=settings.workers,
        worker_start=settings.worker_start,
        prefetch=settings.prefetch,
        device=device,
        cache=experiment.dataset.keys.cache,
        overfit=settings.overfit,
    )
    _one_shape(experiment, store, data)
    network = build_network(experiment, store, train, device)
    _fit_together(experiment, network, data)
    if settings.sync_batchnorm:
        network = ddp.sync_batchnorm(network, device)
    if settings.activation_checkpointing and checkpoint_activations(network) == 0:
        raise UserError(
            f"train.activation_checkpointing: model '{experiment.model.name}' has no repeated blocks that could be "
            f"computed again; leave it out"
        )
    optimizer = build(experiment.optimizer, model=network)
    total = settings.epochs * data.steps_per_epoch
    total = total if settings.max_steps is None else min(total, settings.max_steps)
    schedule = build(experiment.schedule, total_steps=total, steps_per_epoch=data.steps_per_epoch)
    validation = Validation(
        store=store,
        cases=val,
        geometry=experiment.geometry,
        inferer=experiment.inferer,
        metrics=[p for p in experiment.metric if p.keys.validate],
        postprocess=[build(p) for p in experiment.postprocess],
        objective=objective,
        device=device,
        precision=settings.precision,
    )
    validates = bool(val) and settings.overfit is None
    judge = Judge(settings.early_stop)
    if validates:
        judge.check(validation.names())
    hooks = Hooks([(p.name, build(p)) for p in experiment.hook] if dist.rank() == 0 else [])
    if dist.rank() == 0:
        rundir.record(experiment, parts, hashes)
        found = leakage.find(parts, store)
        rundir.write(experiment.run / leakage.FILE, found.document())
        if found.text():
            say(found.text())
    return Trainer(
        run=experiment.run,
        config=experiment.resolved(),
        settings=settings,
        network=network,
        objective=objective,
        optimizer=optimizer,
        schedule=schedule,
        data=data,
        augments=[build(p) for p in experiment.augment] if settings.overfit is None else [],
        evaluate=validation if validates else None,
        judge=judge,
        hooks=hooks,
        device=device,
        total_steps=total,
        resume=resume,
        record={"config": experiment.resolved(), "split": parts, "versions": rundir.versions()},
        say=say,
    )


def build_network(experiment: Experiment, store: Store, cases: Sequence[str], device: torch.device) -> Network:
    """The network with its initial weights, the same on all ranks."""
    seed.seed_init(experiment.train.seed)
    window = build(experiment.window, store=store, cases=cases)
    channels = window.channels(experiment.geometry.images) * experiment.geometry.repeat
    model = build(experiment.model, in_channels=channels, classes=CLASSES)
    network = Network(window, model, experiment.geometry).to(device)
    if experiment.train.channels_last:
        network.use_channels_last()
    return network


def set_backends(settings: TrainSettings) -> None:
    """Tell torch how to choose its algorithms; before anything runs on the GPU."""
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    # Batches of one shape all along: worth trying which convolution is fastest, but the choice may differ each time.
    torch.backends.cudnn.benchmark = not settings.deterministic
    if settings.precision != "fp32":
        torch.set_float32_matmul_precision("high")


def summary(experiment: Experiment, trainer: Trainer, store: Store, parts: Mapping[str, Sequence[str]]) -> str:
    """What is about to run, as text."""
    data, settings = trainer.data, experiment.train
    rows = [("run", str(experiment.run)), ("store", f"{experiment.store} ({len(store.cases)} cases{_origin(store)})")]
    for name in ("train", "val", "test", *(["external"] if parts.get("external") else [])):
        cases = parts.get(name, [])
        slices = [store.slices(c) for c in cases]
        total, tumour = sum(len(s) for s in slices), sum(int((s["tumour_voxels"] > 0).sum()) for s in slices)
        patients = len({store.info(c).patient for c in cases})
        rows.append((name, f"{len(cases)} cases of {patients} patients, {total} slices, {tumour} with tumour"))
    rows.append(("sampler", _drawn(experiment.sampler.name, data.records, data.order(0))))
    parameters = sum(p.numel() for p in trainer.network.parameters())
    rows.append(("model", f"{experiment.model.name}, {parameters / 1e6:.1f} M parameters"))
    rows.append(("loss", " + ".join(f"{p.keys.weight:g} {p.name}" for p in experiment.loss)))
    epochs = trainer.total_steps / data.steps_per_epoch
    rows.append(("steps", f"{trainer.total_steps} ({epochs:.3g} epochs of {data.steps_per_epoch})"))
    split = f"{dist.world()} ranks x {data.accumulate} x {data.micro}" if settings.batch != data.micro else ""
    kind = "threads" if data.worker_start == "thread" else "processes"
    workers = f"data {kind} a rank: {data.workers}" if data.workers else "no data workers"
    rows.append(("batch", f"{settings.batch}{' = ' + split if split else ''}, {workers}"))
    rows.append(("memory", data.memory()))
    layout = ", channels_last" if settings.channels_last else ""
    rows.append(("precision", f"{settings.precision}{layout} on {_device(trainer.device)}"))
    if settings.overfit is not None:
        rows.append(("validation", f"none: the same {settings.overfit} batches again and again (train.overfit)"))
    elif trainer.evaluate is None:
        rows.append(("validation", "none (the split has no val cases); the last checkpoint is the best"))
    else:
        early = settings.early_stop
        patience = "never stops early" if early.patience is None else f"stops after {early.patience} without progress"
        rows.append(
            ("validation", f"every {settings.validate_every} epochs, best {early.mode} {early.metric}, {patience}")
        )
    rows += [("note", f"no training sample has {name}: the class is never trained") for name in _missing(data.records)]
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"{key:<{width}}  {value}" for key, value in rows)


def _origin(store: Store) -> str:
    origins = sorted({store.info(c).origin for c in store.cases} - {""})
    return f", {' + '.join(origins)}" if origins else ""


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def _drawn(name: str, records: Sequence[Record], order: Sequence[int]) -> str:
    kinds = Counter(
        "tumour" if records[i].tumour_voxels else "liver" if records[i].liver_voxels else "empty" for i in order
    )
    shares = ", ".join(f"{100 * kinds[k] / len(order):.0f} % {k}" for k in ("tumour", "liver", "empty"))
    there = sum(r.tumour_voxels > 0 for r in records)
    return f"{name}: {len(order)} samples an epoch ({shares}) of {len(records)}, {there} with tumour"


def _missing(records: Sequence[Record]) -> list[str]:
    """The classes of which no record has a voxel."""
    there = {"liver": any(r.liver_voxels > r.tumour_voxels for r in records)}
    there["tumour"] = any(r.tumour_voxels for r in records)
    return [name for name, found in there.items() if not found]


def _named(plans: Sequence[tuple[Plan, float]]) -> list[tuple[str, float, Any]]:
    seen: Counter[str] = Counter()
    out = []
    for plan, weight in plans:
        seen[plan.name] += 1
        name = plan.name if seen[plan.name] == 1 else f"{plan.name}_{seen[plan.name]}"
        out.append((name, weight, build(plan, classes=CLASSES)))
    return out


def _one_shape(experiment: Experiment, store: Store, data: TrainLoader) -> None:
    if experiment.transform:
        return  # a transform may crop
    # Of each size that the scans have, one sample.
    sizes = {store.info(record.case).shape[1:]: index for index, record in enumerate(data.records)}
    found: dict[tuple[int, ...], str] = {}
    for index in sorted(sizes.values()):
        sample = data.samples.dataset.load(index, np.random.default_rng(0))
        found.setdefault(sample.label.shape, data.records[index].case)
    if len(found) > 1:
        shown = ", ".join(f"{'x'.join(map(str, shape))} ({case})" for shape, case in found.items())
        raise UserError(f"the training samples differ in size: {shown}; set dataset.size, e.g. dataset.size=512")


def _fit_together(experiment: Experiment, network: Network, data: TrainLoader) -> None:
    # Untransformed: a transform of the user's would be called once more than training needs.
    sample = data.samples.dataset.load(0, np.random.default_rng(0))
    given, taken = sample.label.ndim, getattr(network.model, "dimensions", 2)
    if given != taken:
        raise UserError(
            f"model '{experiment.model.name}' takes {taken}-D samples, and dataset '{experiment.dataset.name}' gives "
            f"{given}-D ones; " + ("use dataset: patches" if taken == 3 else "use dataset: slices, or a 3-D model")
        )
    inferer = build(experiment.inferer, network=network, geometry=experiment.geometry)
    runs = getattr(inferer, "dimensions", 2)
    if runs != taken:
        raise UserError(
            f"model '{experiment.model.name}' takes {taken}-D samples, and inferer '{experiment.inferer.name}' runs "
            f"{runs}-D ones; use inferer: {'sliding_window' if taken == 3 else 'slices'}"
        )
