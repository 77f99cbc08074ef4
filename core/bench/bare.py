"""The bare loop: forward, backward and step on one batch that lies on the device, as one would write it by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from core.contracts import Batch
from core.settings import TrainSettings
from core.train import precision
from core.train.objective import Objective


class BareLoop:
    """Trains the network again and again on the same micro-batches; no loader, hook, log, average or look at a value.

    Args:
        network: the one that the full loop trains, so that compilation, memory layout and checkpointing are its own.
        optimizer: one of its own, built as the full loop's.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        batches: list[Batch],
        settings: TrainSettings,
        device: torch.device,
    ) -> None:
        self.network, self.objective, self.optimizer, self.batches = network, objective, optimizer, batches
        self.precision, self.clip_norm, self.device = settings.precision, settings.clip_norm, device
        self.scaler = precision.scaler(device, settings.precision)
        self.parameters = [p for p in network.parameters() if p.requires_grad]

    def step(self) -> None:
        """One update."""
        self.optimizer.zero_grad(set_to_none=True)
        for batch in self.batches:
            self.scaler.scale(self._loss(batch) / len(self.batches)).backward()
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def flops(self) -> float:
        """Floating-point operations of forward and backward for one image, counted by torch; compiled code hides them.

        Matrix products and convolutions only; a multiplication with its addition is two.
        """
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            self._loss(self.batches[0]).backward()
        self.optimizer.zero_grad(set_to_none=True)
        return counter.get_total_flops() / len(self.batches[0].indices)

    def state_bytes(self) -> int:
        """Memory of its own: the optimizer's state and the batch, which the full loop does not have."""
        state: Any = self.optimizer.state.values()
        tensors = [t for entry in state for t in entry.values() if isinstance(t, torch.Tensor)]
        tensors += [t for b in self.batches for t in (b.image, b.label, b.lesion) if t is not None]
        return sum(t.nbytes for t in tensors if t.device.type == self.device.type)

    def _loss(self, batch: Batch) -> torch.Tensor:
        with precision.autocast(self.device, self.precision):
            logits = self.network(batch.image)
        loss, _ = self.objective(logits, batch.label, {"lesion": batch.lesion})
        return loss


PEAK_TFLOPS = (
    # Dense bf16 with fp32 sums, from the makers' data sheets; the first name that fits counts.
    ("H200", 989.0),
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("L40S", 362.0),
)


def peak_tflops(device: torch.device) -> float | None:
    """The device's peak in TFLOP/s, where it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAK_TFLOPS if known in name), None)
