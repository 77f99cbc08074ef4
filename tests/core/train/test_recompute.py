import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import CheckpointError

from core.train import recompute
from core.train.recompute import checkpoint_activations

ROOT = Path(__file__).resolve().parents[3]


class Block(nn.Module):
    """Spectral norm, BatchNorm and dropout: all that a second forward pass could get wrong."""

    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = spectral_norm(nn.Conv2d(width, width, 3, padding=1)), nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.3)

    def forward(self, x, *, scale, skip=None):
        x = x + scale * torch.relu(self.drop(self.norm(self.conv(x))))
        return x if skip is None else x + skip


class Net(nn.Module):
    def __init__(self, width=8, blocks=4):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 3, 1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))

    def forward(self, x):
        x = first = self.stem(x)
        for block in self.blocks:
            x = block(x, scale=0.5, skip=first)
        return self.head(x)


def pair(make):
    """The same network twice, the second with checkpointing."""
    torch.manual_seed(0)
    plain = make().train()
    other = copy.deepcopy(plain)
    assert checkpoint_activations(other) > 0
    return plain, other


def train(net, steps=3, size=32, micro=2, precision=None):
    """A few steps with two micro-batches each; returns all losses and the last gradients."""
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), []
    for step in range(steps):
        optimizer.zero_grad()
        torch.manual_seed(step)
        for _ in range(micro):
            image = torch.randn(2, 1, size, size)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = net(image).float().square().mean()
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
    return losses, {name: p.grad for name, p in net.named_parameters()}


def kept(net, size=32):
    """Bytes that autograd holds on to after a forward pass, weights left out."""
    own, found = {p.untyped_storage().data_ptr() for p in net.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = net(torch.randn(2, 1, size, size))
    assert out.requires_grad
    return sum(found.values())


UNET = {"encoder_weights": None, "in_channels": 1, "classes": 3, "decoder_channels": (32, 16, 16, 8, 8)}


# the same arithmetic


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("make", [Net, lambda: smp.Unet("resnet34", **UNET)], ids=["small", "resnet34"])
def test_losses_gradients_weights_and_statistics_are_those_of_the_plain_network_to_the_bit(make, precision):
    plain, other = pair(make)
    (losses, gradients), (other_losses, other_gradients) = (train(n, precision=precision) for n in (plain, other))
    assert losses == other_losses
    assert gradients.keys() == other_gradients.keys()
    assert all(torch.equal(gradients[name], other_gradients[name]) for name in gradients)
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), other.state_dict().values(), strict=True))
    counted = [v.item() for k, v in other.state_dict().items() if k.endswith("num_batches_tracked")]
    assert set(counted) == {3 * 2}


def test_the_generator_goes_on_as_without_it():
    draws = []
    for net in pair(Net):
        train(net)
        draws.append(torch.rand(4))
    assert torch.equal(*draws)


def test_buffers_are_the_same_objects_afterwards():
    _, net = pair(Net)
    before = {name: id(buffer) for name, buffer in net.named_buffers()}
    train(net)
    assert {name: id(buffer) for name, buffer in net.named_buffers()} == before


def test_a_block_that_is_used_twice_is_computed_again_from_where_each_use_began():
    class Twice(Net):
        def forward(self, x):
            x = self.stem(x)
            for block in [*self.blocks, *self.blocks]:
                x = block(x, scale=0.5)
            return self.head(x)

    plain, other = pair(Twice)
    assert train(plain)[0] == train(other)[0]
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_list_that_grows_after_the_call_is_seen_as_it_was():
    class Dense(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(width, 4, 3, padding=1), nn.BatchNorm2d(4)

        def forward(self, features):
            return self.norm(self.conv(torch.cat(features, 1)))

    class DenseNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Dense(4 * i + 1) for i in range(4))

        def forward(self, x):
            features = [x]
            for layer in self.layers:
                features.append(layer(features))
            return torch.cat(features, 1)

    plain, other = pair(DenseNet)
    assert train(plain)[0] == train(other)[0]


def test_an_input_that_is_changed_in_place_later_is_an_error_and_not_another_gradient():
    class Changes(Net):
        def forward(self, x):
            x, skip = self.stem(x), self.stem(x)
            y = self.blocks[0](x, scale=0.5, skip=skip)
            skip.mul_(2)
            return self.head(y)

    _, net = pair(Changes)
    with pytest.raises((RuntimeError, CheckpointError), match="modified by an inplace operation"):
        train(net)


def test_parts_in_evaluation_mode_stay_frozen():
    plain, other = pair(Net)
    for net in (plain, other):
        net.blocks.eval()
    before = {name: buffer.clone() for name, buffer in other.named_buffers()}
    assert train(plain)[0] == train(other)[0]
    assert all(torch.equal(buffer, before[name]) for name, buffer in other.named_buffers())


# less memory


def test_autograd_keeps_less():
    plain, other = (kept(net) for net in pair(lambda: Net(blocks=12)))
    assert other < 0.4 * plain
    plain, other = (kept(net, size=64) for net in pair(lambda: smp.Unet("resnet34", **UNET)))
    assert other < 0.5 * plain


def test_nothing_is_different_without_gradients(monkeypatch):
    plain, other = (net.eval() for net in pair(Net))
    monkeypatch.delattr(recompute, "checkpoint")
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(plain(image), other(image))


# the network stays what it is


def test_names_structure_copies_and_pickles_stay():
    plain, net = pair(lambda: smp.Unet("resnet18", **UNET))
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in net.modules()] == [type(m) for m in plain.modules()]
    assert str(net) == str(plain)
    twins = [copy.deepcopy(net), pickle.loads(pickle.dumps(net))]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(torch.nan)  # a copy whose blocks still led to the original would give this
    losses, bytes_kept = train(plain)[0], kept(plain)
    for twin in twins:
        assert train(twin)[0] == losses
        assert kept(twin) < 0.8 * bytes_kept


def test_twice_is_once():
    plain, net = pair(Net)
    assert checkpoint_activations(net) == 4
    assert train(net)[0] == train(plain)[0]


def test_a_forward_that_something_else_has_replaced_is_left_alone():
    net = Net()
    net.blocks[1].forward = lambda x, scale, skip: x
    assert checkpoint_activations(net) == 3
    assert train(net)[0]


# with torch.compile, with several ranks


@pytest.mark.slow
@pytest.mark.parametrize("breaks", [False, True], ids=["whole", "with_graph_breaks"])
def test_compiled_it_gives_what_the_compiled_network_gives_and_counts_a_batch_once(breaks, monkeypatch):
    torch.compiler.reset()
    if breaks:
        forward = Block.forward

        def broken(self, x, **given):
            torch._dynamo.graph_break()
            return forward(self, x, **given)

        monkeypatch.setattr(Block, "forward", broken)
    plain, other = pair(lambda: Net(blocks=2).requires_grad_(True))
    for net in (plain, other):
        for block in net.blocks:  # compiled and eager dropout draw differently
            block.drop.p = 0.0
        net.compile()
    losses, others = train(plain)[0], train(other)[0]
    assert others == pytest.approx(losses, rel=1e-4)
    for (name, a), b in zip(plain.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4), name
    assert {block.norm.num_batches_tracked.item() for block in other.blocks} == {6}
    torch.compiler.reset()


RANKS = """
import gc, sys
sys.path[:0] = {paths!r}
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from test_recompute import Net, pair

dist.init_process_group("gloo")
found = []
for net in pair(Net):
    ddp = DistributedDataParallel(net)
    for step in range(3):
        ddp.zero_grad()
        torch.manual_seed(10 * step + dist.get_rank())
        with ddp.no_sync():
            ddp(torch.randn(2, 1, 16, 16)).square().mean().backward()
        ddp(torch.randn(2, 1, 16, 16)).square().mean().backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    found.append([*net.state_dict().values(), *(p.grad for p in net.parameters())])
    del ddp
gc.collect()
assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
everyone = [None, None]
dist.all_gather_object(everyone, [p.detach() for p in net.parameters()])
assert all(torch.equal(a, b) for a, b in zip(*everyone, strict=True))
sys.stdout.write(f"equal on rank {{dist.get_rank()}}\\n")  # in one piece: both ranks write into one pipe
sys.stdout.flush()
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_on_two_ranks_with_accumulation_it_gives_what_plain_ddp_gives(tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS.format(paths=[str(ROOT), str(Path(__file__).parent)]))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(launcher, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(line for line in done.stdout.splitlines() if line.startswith("equal")) == [
        "equal on rank 0",
        "equal on rank 1",
    ]
