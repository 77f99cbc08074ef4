"""A network for several ranks."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from core import dist
from core.contracts import Batch
from core.errors import UserError
from core.infer.network import Network
from core.train.objective import Objective
from core.train.precision import autocast


def sync_batchnorm(network: Network, device: torch.device) -> Network:
    """The network with BatchNorm over the micro-batch of all ranks; as it is on one process.

    Raises:
        UserError: on the CPU, for which torch has none.
    """
    if dist.world() == 1:
        return network
    if device.type != "cuda":
        raise UserError("train.sync_batchnorm works on GPUs only; leave it out")
    # Here: it doubles the time that every process takes to start.
    from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm

    plain = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and type(module) not in plain:
            raise UserError(
                f"train.sync_batchnorm: '{name}' is a {type(module).__name__}, which cannot be converted without "
                f"losing what it adds to BatchNorm; leave it out"
            )
    # timm's converter: torch's drops the activation of timm's BatchNormAct2d and says nothing.
    converted: Network = convert_sync_batchnorm(network)
    return converted


def wrap(
    network: nn.Module, objective: Objective, batch: Batch, device: torch.device, precision: str
) -> DistributedDataParallel:
    """The network under DDP, its unused parameters frozen.

    Some encoders carry layers that a segmentation model never runs; DDP would wait for their gradients for ever. One
    trial pass over `batch` finds them; everything it changed is restored.
    """
    before = {k: v.clone() for k, v in network.state_dict().items()}
    losses = copy.deepcopy(objective.state_dict())
    with autocast(device, precision):
        logits = network(batch.image)
    objective(logits, batch.label, {"lesion": batch.lesion})[0].backward()
    for parameter in network.parameters():
        if parameter.grad is None:
            parameter.requires_grad_(False)
        parameter.grad = None
    network.load_state_dict(before)
    objective.load_state_dict(losses)
    ids = [device.index] if device.type == "cuda" else None
    with warnings.catch_warnings():
        # torch 2.14 gives this argument a new name, which 2.6 does not know.
        warnings.simplefilter("ignore", FutureWarning)
        # Buffers are broadcast where they are read: before evaluating.
        return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
