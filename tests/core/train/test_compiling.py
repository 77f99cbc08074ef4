import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from core.train.compiling import compile_network, eager, fall_back, reason

ROOT = Path(__file__).resolve().parents[3]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 3, 1))

    def forward(self, x):
        return self.net(x)


class Tells(nn.Module):
    """Gives 1 where it is compiled and 0 where it is not."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * (torch.zeros_like(x) + float(torch.compiler.is_compiling()))


@torch.library.custom_op("hepar_tests::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


twice.register_autograd(lambda ctx, gradient: gradient * 2)


class Unknown(nn.Module):
    """Runs, but torch.compile cannot know what its operator gives."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)

    def forward(self, x):
        return twice(self.conv(x))


@pytest.fixture(autouse=True)
def _anew():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def step(net, seed=0):
    """One training step; the loss."""
    torch.manual_seed(seed)
    net.zero_grad()
    loss = net(torch.randn(2, 1, 16, 16)).square().mean()
    loss.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter -= 0.1 * parameter.grad
    return loss.item()


@pytest.mark.slow
def test_the_compiled_network_trains_as_the_eager_one_under_the_same_names():
    torch.manual_seed(0)
    plain = Net().train()
    net = copy.deepcopy(plain)
    compile_network(net)
    assert list(net.state_dict()) == list(plain.state_dict())
    losses = [(step(plain, seed), step(net, seed)) for seed in range(4)]
    assert [b for _, b in losses] == pytest.approx([a for a, _ in losses], rel=1e-4)
    for a, b in zip(plain.state_dict().values(), net.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_where_it_is_compiled_and_where_not():
    net, image = Tells(), torch.zeros(1)
    assert net(image).item() == 0
    compile_network(net)
    assert net(image).item() == 1
    assert copy.deepcopy(net)(image).item() == 0
    with eager(net):
        assert net(image).item() == 0
        with eager(net):
            assert net(image).item() == 0
        assert net(image).item() == 0
    assert net(image).item() == 1
    with pytest.raises(KeyError), eager(net):
        raise KeyError
    assert net(image).item() == 1
    fall_back(net)
    assert net(image).item() == 0
    with eager(net):
        assert net(image).item() == 0
    assert net(image).item() == 0


@pytest.mark.slow
def test_whole_volumes_of_any_shape_compile_nothing_while_eager():
    net = Tells()
    compile_network(net)
    net(torch.zeros(2))
    torch._dynamo.utils.counters.clear()
    with eager(net):
        for size in range(3, 8):
            net(torch.zeros(size))
    assert not torch._dynamo.utils.counters["stats"]
    assert net(torch.zeros(2)).tolist() == [1, 1]


def test_what_the_compiler_cannot_do_is_said_in_one_line_and_works_without_it():
    net = Unknown()
    compile_network(net)
    with pytest.raises(Exception) as error:  # noqa: PT011  (any class: see `reason`)
        step(net)
    why = reason(error.value)
    assert "\n" not in why
    assert len(why) < 350
    assert "twice" in why
    fall_back(net)
    assert step(net) > 0


def test_a_reason_is_one_line_whatever_the_error_says():
    assert reason(ValueError("a\n  b\n\nlong story")) == "ValueError: a b"
    assert reason(ValueError()) == "ValueError"
    assert reason(RuntimeError("x" * 400)) == f"RuntimeError: {'x' * 300} ..."


NO_COMPILER = """
import sys
sys.path[:0] = {paths!r}
from test_compiling import Net, step
from core.train.compiling import compile_network, fall_back, reason
net = Net().train()
compile_network(net)
try:
    step(net)
except Exception as error:
    print(reason(error))
    fall_back(net)
    assert step(net) > 0
"""

RANKS = """
import gc, sys
sys.path[:0] = {paths!r}
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from test_compiling import Net, Tells
from core.train.compiling import compile_network, eager

dist.init_process_group("gloo")
losses = []
for order in ("eager", "compile, DDP", "DDP, compile"):
    torch.compiler.reset()
    torch.manual_seed(0)
    net, tells = Net().train(), Tells()
    if order == "compile, DDP":
        compile_network(net)
        compile_network(tells)
    ddp, tell = DistributedDataParallel(net), DistributedDataParallel(tells)
    if order == "DDP, compile":
        compile_network(net)
        compile_network(tells)
    assert tell(torch.zeros(1)).item() == (order != "eager"), order
    with eager(tells):
        assert tells(torch.zeros(1)).item() == 0
    for step in range(2):
        ddp.zero_grad()
        torch.manual_seed(10 * step + dist.get_rank())
        with ddp.no_sync():
            ddp(torch.randn(2, 1, 16, 16)).square().mean().backward()
        loss = ddp(torch.randn(2, 1, 16, 16)).square().mean()
        loss.backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    losses.append(loss.item())
    everyone = [None, None]
    dist.all_gather_object(everyone, [p.detach() for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*everyone, strict=True)), order
    del ddp, tell
gc.collect()
assert max(losses) - min(losses) < 1e-4 * max(losses), losses
sys.stdout.write(f"equal on rank {{dist.get_rank()}}\\n")  # in one piece: both ranks write into one pipe
sys.stdout.flush()
dist.barrier()
dist.destroy_process_group()
"""


def run(tmp_path, script, *launcher, **environment):
    path = tmp_path / "script.py"
    path.write_text(script.format(paths=[str(ROOT), str(Path(__file__).parent)]))
    return subprocess.run(
        [sys.executable, *launcher, str(path)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )


@pytest.mark.slow
def test_without_a_compiler_on_the_machine_the_reason_says_so(tmp_path):
    # A cache of its own: what was compiled before would be taken without asking the compiler.
    done = run(tmp_path, NO_COMPILER, CXX="/nonexistent", TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("InvalidCxxCompiler: No working C++ compiler found")
    assert "/nonexistent" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.slow
def test_two_ranks_train_compiled_in_either_order_of_compile_and_ddp(tmp_path):
    done = run(tmp_path, RANKS, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("equal")) == [
        "equal on rank 0",
        "equal on rank 1",
    ]
