"""The full training loop against the bare loop, variant by variant."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import registry
from core.bench import train_tables
from core.bench.bare import BareLoop, peak_tflops
from core.bench.report import Report
from core.bench.stage import prepared, scratch, variant
from core.bench.timing import Spread, progress, spread, timed
from core.bench.train_tables import Measured
from core.bench.turns import BARE, EAGER, LOOP, QUIET, Turns
from core.bench.variants import VARIANTS
from core.build import build
from core.errors import UserError
from core.experiment import Experiment
from core.train import state
from core.train.assemble import assemble, set_backends
from core.train.compiling import eager
from core.train.evaluating import evaluating
from core.train.trainer import Trainer


def bench_train(
    path: Path,
    overrides: Sequence[str],
    device: torch.device,
    *,
    only: Sequence[str],
    steps: int,
    blocks: int,
    peak: float | None,
) -> Report:
    """The full loop of `Trainer.fit` against the bare loop on one resident batch.

    Args:
        path: of the experiment.
        overrides: of the command line.
        device: where to train.
        only: names of VARIANTS.
        steps: of a block.
        blocks: how often each side is timed.
        peak: the device's bf16 peak in TFLOP/s; None: as known.

    Raises:
        UserError: if a block does not fit into an epoch.
    """
    experiment = variant(path, overrides)
    prepared(experiment)
    set_backends(experiment.train)
    augment, note = _augment(experiment)
    absent = {
        "transforms": None if experiment.transform else "the experiment has no transforms",
        "augment": note if not augment else None,
        "both": note if not augment else None,
    }
    chosen = [name for name in only if absent.get(name) is None]
    if not chosen:
        raise UserError(f"--only {','.join(only)}: {absent[only[0]]}, so there is nothing to measure")
    # The first that is like the experiment itself is looked at in detail.
    detailed = "transforms" if "transforms" in chosen else chosen[0]
    measured: dict[str, Measured] = {}
    refused: dict[str, str] = {}
    with scratch() as folder:
        for name in chosen:
            title, more = VARIANTS[name]
            wanted = variant(path, overrides, *(text.replace("{augment}", augment) for text in more))
            wanted = dataclasses.replace(wanted, run=folder / name)
            try:
                measured[title] = _measure(wanted, device, name, steps, blocks, detailed=name == detailed)
            except UserError as error:
                if name == detailed:
                    raise
                refused[title] = str(error)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    tables = train_tables.tables(measured, refused, VARIANTS[detailed][0], peak or peak_tflops(device))
    left_out = {why: VARIANTS[name][0] for name, why in absent.items() if why is not None and name in only}
    tables[0].notes += [f"Not measured: {title}; {why}." for why, title in left_out.items()]
    if augment and note and any("{augment}" in "".join(VARIANTS[name][1]) for name in chosen):
        tables[0].notes.append(note)
    one = next(iter(measured.values()))
    return Report("train", _settings(experiment, one, device, steps, blocks), tables)


def _measure(
    experiment: Experiment, device: torch.device, name: str, steps: int, blocks: int, *, detailed: bool
) -> Measured:
    endless = {"epochs": 10**6, "max_steps": None, "max_minutes": None, "save_minutes": None}
    experiment = dataclasses.replace(experiment, train=dataclasses.replace(experiment.train, **endless))  # type: ignore[arg-type]
    experiment.run.mkdir()
    said: list[str] = []
    # The hooks write as they do in any training, but not among the tables.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer = assemble(experiment, device, say=said.append)
        validation, trainer.evaluate = trainer.evaluate, None
        optimizer = build(experiment.optimizer, model=trainer.network)
        batches = trainer.data.first()
        bare = BareLoop(trainer.network, trainer.objective, optimizer, batches, experiment.train, device)
        trainer.network.train()
        with eager(trainer.network):
            flops = bare.flops()
        sides = (LOOP, *((QUIET,) if detailed else ()), BARE, *((EAGER,) if experiment.train.compile else ()))
        between: dict[str, Spread] = {}

        def after() -> None:
            if detailed:
                between.update(_checkpoints(trainer))
                if validation is not None:
                    between["validation"] = spread([_validate(trainer, validation)])

        with progress(f"train, {name}", len(sides) * (blocks + 1)) as bar:

            def tick(side: str) -> None:
                bar.set_postfix_str(side)
                bar.update()

            turns = Turns(trainer, bare, sides=sides, steps=steps, blocks=blocks, tick=tick, after=after)
            trainer.fit()
    if not turns.done:
        raise KeyboardInterrupt
    return Measured(
        seconds=turns.spreads(),
        between=between,
        steps=steps,
        images=steps * experiment.train.batch,
        flops=flops,
        wait=turns.waited / turns.looped,
        hooks=turns.plain.mean,
        hooks_logged=turns.logged.mean,
        reading=turns.reads.mean,
        peaks=turns.peak_bytes,
        log_every=experiment.train.log_every,
        validate_every=experiment.train.validate_every,
        steps_per_epoch=trainer.steps_per_epoch,
        parameters=sum(p.numel() for p in trainer.network.parameters()),
        micro=trainer.data.micro,
        said=said,
    )


def _augment(experiment: Experiment) -> tuple[str, str]:
    """The experiment's augmentation as YAML, or that of the same names as its transforms; and what is to say of it."""
    if experiment.augment:
        return json.dumps([plan.plain() for plan in experiment.augment]), ""
    known = registry.names("augment")
    nodes = []
    for plan in experiment.transform:
        if plan.name in known:
            takes = {argument.name for argument in registry.get("augment", plan.name).arguments}
            nodes.append({"name": plan.name, **({"p": plan.args["p"]} if "p" in takes & plan.args.keys() else {})})
    if not nodes:
        return "", "the experiment has no augmentation, nor transforms of the same names"
    names = ", ".join(str(node["name"]) for node in nodes)
    return json.dumps(nodes), f"Augmentation on the device: {names}, in place of the transforms of these names."


def _checkpoints(trainer: Trainer) -> dict[str, Spread]:
    stalls, writes = [], []
    for _ in range(3):
        trainer.writer.wait()
        stalls.append(timed(lambda: trainer.writer.put(state.collect(trainer), best=False), trainer.device))
        before = time.perf_counter()
        trainer.writer.wait()
        writes.append(time.perf_counter() - before)
    return {"stall": spread(stalls), "write": spread(writes)}


def _validate(trainer: Trainer, validation: Any) -> float:
    network = trainer.ema.network if trainer.ema is not None else trainer.network
    with evaluating(network, trainer.objective):
        return timed(lambda: validation(network, lambda: False), trainer.device)


def _settings(
    experiment: Experiment, one: Measured, device: torch.device, steps: int, blocks: int
) -> dict[str, object]:
    settings = experiment.train
    return {
        "experiment": experiment.file,
        "size": experiment.geometry.size or "the scan's own",
        "batch": settings.batch,
        "micro_batch": one.micro,
        "model": experiment.model.name,
        "parameters": f"{one.parameters / 1e6:.1f} M",
        "precision": settings.precision,
        "channels_last": settings.channels_last,
        "ema": settings.ema,
        "clip_norm": settings.clip_norm,
        "loss": [plan.name for plan in experiment.loss],
        "transforms": [plan.name for plan in experiment.transform] or None,
        "hooks": [plan.name for plan in experiment.hook] or None,
        "device": str(device),
        "workers": f"{settings.workers} {settings.worker_start}",
        "steps a block": steps,
        "blocks": blocks,
    }
