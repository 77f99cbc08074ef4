"""The script of the turns, on a training that is none: steps are counted, nothing is computed."""

from types import SimpleNamespace

import pytest
import torch

from core.bench.turns import BARE, LOOP, QUIET, Turns
from core.errors import UserError
from core.settings import TrainSettings
from core.train.hooks import Hooks


class Listener:
    def __init__(self):
        self.heard = []

    def on_step_end(self, state, metrics):
        self.heard.append((state, bool(metrics)))


class Recorder(Turns):
    """Writes down at which steps each turn begins and ends."""

    def _start(self):
        self.begun, self.bare_before = self.trainer.step, self.bare.count
        return super()._start()

    def _end(self, name, before):
        self.turns.append((name, self.begun, self.trainer.step, self.bare.count - self.bare_before))
        return super()._end(name, before)


class Bare:
    count = 0

    def step(self):
        self.count += 1

    def state_bytes(self):
        return 0


def training(listener, *, steps_per_epoch=7, workers=1, log_every=2):
    data = SimpleNamespace(
        workers=workers, accumulate=1, epoch=lambda epoch, start: iter(range(start, steps_per_epoch))
    )
    return SimpleNamespace(
        hooks=Hooks([("listener", listener)]),
        data=data,
        meter=SimpleNamespace(read=lambda: {"loss": 1.0}),
        settings=TrainSettings(prefetch=2, log_every=log_every),
        device=torch.device("cpu"),
        steps_per_epoch=steps_per_epoch,
        step=0,
        total_steps=10**6,
        stop=SimpleNamespace(asked=False),
        writer=SimpleNamespace(wait=lambda: None),
    )


def run(trainer, stop_at=10**6):
    """What the trainer's loop does with its hooks."""
    trainer.hooks.emit("fit_start", "state")
    while trainer.step < trainer.total_steps and not trainer.stop.asked:
        epoch, start = divmod(trainer.step, trainer.steps_per_epoch)
        for _ in trainer.data.epoch(epoch, start):
            trainer.step += 1
            trainer.stop.asked = trainer.step >= stop_at
            log = trainer.step % trainer.settings.log_every == 0
            trainer.hooks.emit("step_end", trainer.step, trainer.meter.read() if log else {})
            if trainer.step >= trainer.total_steps:
                break


def make(trainer, **more):
    Recorder.turns = []
    given = {"sides": (LOOP, QUIET, BARE), "steps": 3, "blocks": 4, "tick": lambda name: None, **more}
    return Recorder(trainer, Bare(), **given)


def test_each_turn_has_its_steps_and_none_goes_over_the_end_of_an_epoch():
    listener, ticks, after = Listener(), [], []
    trainer = training(listener)
    turns = make(trainer, tick=ticks.append, after=lambda: after.append(trainer.step))
    run(trainer)
    assert turns.done
    assert trainer.step == trainer.total_steps == after[0]
    assert ticks == [LOOP, QUIET, BARE, BARE, QUIET, LOOP] * 2 + [LOOP, QUIET, BARE]
    assert [name for name, *_ in turns.turns] == ticks
    for name, begun, ended, bare in turns.turns:
        assert ended - begun == (0 if name == BARE else 3)
        assert bare == (3 if name == BARE else 0)
        if name != BARE:
            assert begun // 7 == (ended - 1) // 7, "a checkpoint lies in between"
    assert {name: len(spread.values) for name, spread in turns.spreads().items()} == {LOOP: 4, QUIET: 4, BARE: 4}


def test_hooks_hear_all_steps_but_the_quiet_ones():
    listener = Listener()
    trainer = training(listener, log_every=5)
    turns = make(trainer, sides=(QUIET,), blocks=2)
    run(trainer)
    quiet = {step for _, begun, ended, _ in turns.turns for step in range(begun + 1, ended + 1)}
    heard = [step for step, _ in listener.heard]
    assert len(quiet) == 9
    assert not quiet & set(heard)
    assert [logged for _, logged in listener.heard[-3:]] == [True] * 3, "the steps that show what a log costs"
    assert trainer.settings.log_every == 5
    assert (turns.logged.count, turns.reads.count >= 3) == (len([1 for _, log in listener.heard if log]), True)


def test_a_training_that_was_interrupted_is_not_done():
    trainer = training(Listener())
    turns = make(trainer)
    run(trainer, stop_at=20)
    assert not turns.done


def test_a_block_that_is_longer_than_an_epoch_is_refused():
    with pytest.raises(UserError, match="--steps 7: a block has to fit into an epoch, which has 7 steps"):
        make(training(Listener()), steps=7)


@pytest.mark.parametrize("steps", [1, 5, 6])
def test_the_longest_blocks_and_the_shortest_find_room(steps):
    trainer = training(Listener())
    turns = make(trainer, sides=(LOOP, BARE), steps=steps)
    run(trainer)
    assert turns.done
    for name, begun, ended, _ in turns.turns:
        assert name == BARE or begun // 7 == (ended - 1) // 7
