"""BatchNorm over all ranks: converted as it should be, refused where it cannot be."""

import pytest
import torch
from torch import nn

from core.errors import UserError
from core.train import ddp

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture
def two_ranks(monkeypatch):
    monkeypatch.setattr(ddp.dist, "world", lambda: 2)


def test_one_process_keeps_its_network():
    network = nn.Sequential(nn.BatchNorm2d(3))
    assert ddp.sync_batchnorm(network, CPU) is network
    assert type(network[0]) is nn.BatchNorm2d


@pytest.mark.usefixtures("two_ranks")
def test_it_is_refused_on_the_cpu():
    with pytest.raises(UserError, match=r"^train\.sync_batchnorm works on GPUs only; leave it out$"):
        ddp.sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)), CPU)


@pytest.mark.usefixtures("two_ranks")
def test_norms_with_an_activation_keep_it_and_weights_keep_their_names():
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    network = smp.Unet("tu-efficientnet_b0", encoder_weights=None, classes=3).eval()
    before, image = network.state_dict(), torch.rand(1, 3, 64, 64)
    wanted = network(image)
    converted = ddp.sync_batchnorm(network, GPU)
    assert not any(type(m) is nn.BatchNorm2d for m in converted.modules())
    assert any(isinstance(m, nn.SyncBatchNorm) for m in converted.modules())
    after = converted.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert after.keys() == before.keys()
    torch.testing.assert_close(converted.eval()(image), wanted)


@pytest.mark.usefixtures("two_ranks")
def test_a_norm_of_another_class_is_named():
    class Scaled(nn.BatchNorm2d):
        pass

    with pytest.raises(UserError, match=r"^train\.sync_batchnorm: '0' is a Scaled, which cannot be converted"):
        ddp.sync_batchnorm(nn.Sequential(Scaled(3)), GPU)
