import copy

import pytest
import torch
from torch import nn

from core.bench.bare import BareLoop, peak_tflops
from core.contracts import Batch
from core.settings import TrainSettings
from core.train.objective import Objective

CPU = torch.device("cpu")


def batches(count, size=2):
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(count, size, 3, 8, 8, generator=rng)
    labels = torch.randint(0, 3, (count, size, 8, 8), generator=rng, dtype=torch.uint8)
    return [Batch(image, label, None, [0] * size, [0] * size) for image, label in zip(images, labels, strict=True)]


def objective():
    return Objective([("ce", 1.0, lambda logits, target: nn.functional.cross_entropy(logits, target))])


def test_one_step_is_the_step_that_one_would_write_by_hand():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1)
    other, data = copy.deepcopy(network), batches(2)
    settings = TrainSettings(precision="fp32", clip_norm=0.1)
    BareLoop(network, objective(), torch.optim.SGD(network.parameters(), 0.5), data, settings, CPU).step()
    optimizer = torch.optim.SGD(other.parameters(), 0.5)
    for batch in data:
        (nn.functional.cross_entropy(other(batch.image), batch.label.long()) / 2).backward()
    assert nn.utils.clip_grad_norm_(other.parameters(), 0.1) > 0.1
    optimizer.step()
    assert torch.equal(network.weight, other.weight)
    assert torch.equal(network.bias, other.bias)


def test_operations_of_forward_and_backward_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 1))
    optimizer = torch.optim.SGD(network.parameters(), 0.5)
    loop = BareLoop(network, objective(), optimizer, batches(1, size=4), TrainSettings(precision="fp32"), CPU)
    first, second = 2 * 8 * 8 * 3 * 5 * 9, 2 * 8 * 8 * 5 * 3
    # Backward: weights and inputs cost the forward pass again each; nobody asks for the gradient of the image.
    assert loop.flops() == 2 * first + 3 * second
    assert network[0].weight.grad is None


def test_its_own_memory_is_the_optimizers_state_and_the_batch():
    network = nn.Conv2d(3, 3, 1, bias=False)
    optimizer = torch.optim.SGD(network.parameters(), 0.5, momentum=0.9)
    loop = BareLoop(network, objective(), optimizer, batches(1), TrainSettings(precision="fp32"), CPU)
    images = 2 * 3 * 64 * 4 + 2 * 64
    assert loop.state_bytes() == images
    loop.step()
    assert loop.state_bytes() == images + 9 * 4


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA GeForce GT 710", None),
    ],
)
def test_the_peak_of_known_devices(monkeypatch, name, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_tflops(torch.device("cuda", 0)) == peak
    assert peak_tflops(CPU) is None
