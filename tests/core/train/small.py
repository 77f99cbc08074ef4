"""Components for the trainings of these tests: a small network, and all that can go wrong on purpose."""

import io
import os
import resource
import signal
import time
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from registry import register


@register("model", "small")
class Small(nn.Module):
    """Three convolutions, BatchNorm, dropout. Example: {name: small}"""

    def __init__(self, in_channels: int, classes: int, *, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, image):
        return self.net(image)


@register("model", "blocks")
class Blocks(nn.Module):
    """Three blocks of convolution, BatchNorm and dropout. Example: {name: blocks}"""

    def __init__(self, in_channels: int, classes: int, *, width: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(in_channels, width, 1), nn.Conv2d(width, classes, 1)
        parts = [
            [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(dropout)]
            for _ in range(3)
        ]
        self.blocks = nn.Sequential(*(Block(*part) for part in parts))

    def forward(self, image):
        return self.last(self.blocks(self.first(image)))


class Block(nn.Sequential):
    pass


@register("hook", "signal_at")
class SignalAt:
    """Sends this process a signal after a step or as a validation begins, but not once torchrun has restarted it.

    Example: {name: signal_at, step: 3}
    """

    def __init__(
        self, *, step: int, number: int = int(signal.SIGKILL), group: bool = False, event: str = "step_end"
    ) -> None:
        self.at, self.number, self.group, self.event = step, number, group, event

    def on_step_end(self, state, metrics):
        self.send("step_end", state)

    def on_eval_start(self, state):
        self.send("eval_start", state)

    def send(self, event, state):
        if event != self.event:
            return
        if state.step == self.at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            (os.killpg if self.group else os.kill)(os.getpid(), self.number)


@register("hook", "kill_at")
class KillAt:
    """SIGKILL in the second epoch's validation, or halfway through the checkpoint's file before or after it.

    Example: {name: kill_at, doing: saving_after}
    """

    def __init__(self, *, doing: Literal["validating", "saving_before", "saving_after"]) -> None:
        self.doing = doing

    def on_epoch_end(self, state):
        if state.epoch == 2 and self.doing == "saving_before":
            self.write_half()

    def on_eval_start(self, state):
        if state.epoch == 2 and self.doing == "validating":
            self.evaluate_one()

    def on_eval_end(self, state, metrics, rows):
        if state.epoch == 2 and self.doing == "saving_after":
            self.write_half()

    def write_half(self):
        save = torch.save

        def half(state, file):
            whole = io.BytesIO()
            save(state, whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = half

    def evaluate_one(self):
        from core.train import validate

        evaluate = validate.evaluate_case

        def one(*args, **options):
            evaluate(*args, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        validate.evaluate_case = one


@register("hook", "small_disk")
class SmallDisk:
    """From a step on no file can grow beyond so many bytes. Example: {name: small_disk, step: 5, bytes: 10000}"""

    def __init__(self, *, step: int, bytes: int) -> None:
        self.step, self.bytes = step, bytes

    def on_step_end(self, state, metrics):
        if state.step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.bytes, self.bytes))


@register("hook", "list_saved")
class ListSaved:
    """Writes which checkpoints there are after each was saved. Example: {name: list_saved}"""

    def on_saved(self, state, path):
        names = sorted(p.name for p in path.parent.iterdir() if p.name.startswith("step_"))
        with open(state.run / "saved.txt", "a") as file:
            file.write(" ".join(names) + "\n")


@register("transform", "die_at")
class DieAt:
    """SIGKILL at one call on one rank, if torchrun will start it again. Example: {name: die_at, rank: 1, call: 9}"""

    def __init__(self, *, rank: int, call: int) -> None:
        names = ("RANK", "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_MAX_RESTARTS")
        mine, done, planned = (int(os.environ[name]) for name in names)
        self.mine, self.call, self.calls = mine == rank and done < planned, call, 0

    def __call__(self, sample, rng):
        self.calls += 1
        if self.mine and self.calls == self.call:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample


@register("transform", "write_draws")
class WriteDraws:
    """Writes which sample was loaded and what its generator draws. Example: {name: write_draws, folder: draws}"""

    def __init__(self, *, folder: Path) -> None:
        self.folder = Path(folder)

    def __call__(self, sample, rng):
        self.folder.mkdir(exist_ok=True)
        with open(self.folder / f"{os.environ.get('RANK', '0')}_{os.getpid()}.txt", "a") as file:
            file.write(f"{sample.index} {rng.integers(1 << 30)}\n")
        return sample


@register("transform", "sleep_at")
class SleepAt:
    """Sleeps for an hour at one call on one rank. Example: {name: sleep_at, rank: 1, call: 9}"""

    def __init__(self, *, rank: int, call: int) -> None:
        self.mine, self.call, self.calls = int(os.environ.get("RANK", 0)) == rank, call, 0

    def __call__(self, sample, rng):
        self.calls += 1
        if self.mine and self.calls == self.call:
            time.sleep(3600)
        return sample


@register("augment", "write_seeds")
class WriteSeeds:
    """Writes the seeds that it gets. Example: {name: write_seeds, folder: seeds}"""

    def __init__(self, *, folder: Path) -> None:
        self.folder = Path(folder)

    def __call__(self, batch, seeds):
        self.folder.mkdir(exist_ok=True)
        with open(self.folder / f"{os.environ.get('RANK', '0')}.txt", "a") as file:
            file.write("".join(f"{p} {s}\n" for p, s in zip(batch.positions, seeds.tolist(), strict=True)))
        return batch


@register("model", "half_used")
class HalfUsed(nn.Module):
    """A convolution, and one that is never run. Example: {name: half_used}"""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(in_channels, classes, 1), nn.Conv2d(1, 1, 1)

    def forward(self, image):
        return self.used(image)


@register("loss", "nan_at")
class NanAt(nn.Module):
    """Cross-entropy that is NaN on one rank from one call on. Example: {name: nan_at, rank: 1, call: 3}"""

    def __init__(self, classes: int, *, rank: int, call: int) -> None:
        super().__init__()
        self.rank, self.call, self.calls = rank, call, 0

    def forward(self, logits, target):
        self.calls += 1
        loss = nn.functional.cross_entropy(logits, target, ignore_index=255)
        mine = int(os.environ.get("RANK", 0)) == self.rank
        return loss * float("nan") if mine and self.training and self.calls >= self.call else loss


@register("sampler", "follower")
class Follower:
    """Draws by the losses that it was given. Example: {name: follower}"""

    def __init__(self, records) -> None:
        self.losses = torch.ones(len(records), dtype=torch.float64)

    def order(self, seed, epoch):
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        return torch.multinomial(self.losses, len(self.losses), replacement=True, generator=generator).tolist()

    def observe(self, indices, losses):
        for index, loss in zip(indices, losses, strict=True):
            self.losses[index] = 0.5 * self.losses[index] + 0.5 * loss

    def state_dict(self):
        return {"losses": self.losses}

    def load_state_dict(self, state):
        self.losses = state["losses"].clone()
