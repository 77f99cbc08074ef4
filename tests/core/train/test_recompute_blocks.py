"""Which parts of a network count as its blocks."""

import pytest
import segmentation_models_pytorch as smp
from torch import nn

from core.train.recompute import checkpoint_activations


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)


def named(net):
    checkpoint_activations(net)
    return [name for name, module in net.named_modules() if "forward" in vars(module)]


def unet(encoder):
    return smp.Unet(encoder, encoder_weights=None)


def test_a_residual_unet_has_its_residual_and_decoder_blocks():
    found = named(unet("resnet34"))
    assert len(found) == 3 + 4 + 6 + 3 + 5
    assert found[0] == "encoder.layer1.0"
    assert found[-1] == "decoder.blocks.4"


@pytest.mark.parametrize(
    ("encoder", "count"),
    [
        ("efficientnet-b0", 21),
        ("mit_b0", 13),
        ("densenet121", 12),
        ("mobilenet_v2", 24),
        ("vgg16_bn", 7),
        ("tu-convnext_atto", 17),
        ("tu-efficientnet_b0", 21),
        ("tu-regnety_002", 16),
    ],
)
def test_other_families_of_encoders_have_blocks_too(encoder, count):
    assert len(named(unet(encoder))) == count


def test_what_has_no_blocks_says_so():
    flat = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
    assert checkpoint_activations(flat) == 0
    assert checkpoint_activations(nn.Conv2d(1, 3, 1)) == 0


def conv(width=4):
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())


class Nested(nn.Module):
    """Down, everything below, up: as networks are that are written recursively."""

    def __init__(self, depth):
        super().__init__()
        below = [Nested(depth - 1)] if depth else []
        self.path = nn.Sequential(conv(), *below, conv())

    def forward(self, x):
        return x + self.path(x)


def test_stages_are_looked_into_and_a_child_with_most_of_the_network_too():
    stages = nn.Sequential(nn.Sequential(Block(), Block()), nn.Sequential(Block(), Block()))
    assert named(stages) == ["0.0", "0.1", "1.0", "1.1"]
    assert named(Nested(2)) == ["path.0", "path.1.path.0", "path.1.path.1", "path.1.path.2", "path.2"]


def test_a_child_without_weights_or_without_children_is_no_block():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(4)

    assert named(nn.Sequential(nn.Conv2d(4, 4, 1), Norm(), nn.Sequential(nn.ReLU(), nn.Dropout()), conv(), conv())) == [
        "3",
        "4",
    ]
