import copy
import time

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import save_file

from core.train.objective import Objective
from core.train.recompute import checkpoint_activations
from core.values import IGNORE
from plugins.model.unet import UNet

SMALL = {"encoder": "resnet18", "decoder_channels": (16, 8, 8, 8, 8)}
FIX = (
    "give a local file with the encoder's state dict, model.weights=path/to/encoder.pth, "
    "or start from random weights, model.weights=null"
)


def encoder(name="resnet18", seed=0):
    torch.manual_seed(seed)
    return smp.encoders.get_encoder(name, weights=None)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "encoder.pth"
    torch.save(encoder().state_dict(), path)
    return path


def message(**arguments):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the whole text is compared)
        UNet(3, 3, **{"weights": None, **arguments})
    return str(caught.value)


# what is built


@pytest.mark.parametrize("name", ["resnet18", "efficientnet-b0", "mit_b0", "tu-resnet18", "tu-convnext_atto"])
@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_takes_encoders_of_smp_and_timm(name, in_channels):
    net = UNet(in_channels, 3, encoder=name, weights=None, decoder_channels=(16, 8, 8, 8, 8)).eval()
    with torch.no_grad():
        assert net(torch.rand(1, in_channels, 64, 96)).shape == (1, 3, 64, 96)


def test_every_argument_arrives():
    net = UNet(
        2,
        4,
        encoder="resnet18",
        weights=None,
        depth=4,
        decoder_channels=(32, 32, 16, 16),
        attention="scse",
        dropout=0.1,
    )
    names = [type(m).__name__ for m in net.modules()]
    assert "SCSEModule" in names
    assert "Dropout2d" in names
    assert len(net.net.decoder.blocks) == 4
    assert net(torch.rand(2, 2, 32, 48)).shape == (2, 4, 32, 48)


# deep supervision


def deep(scales, **arguments):
    torch.manual_seed(0)
    given = {"encoder": "resnet18", "decoder_channels": (32, 24, 16, 12, 8), **arguments}
    return UNet(1, 3, weights=None, deep_supervision=scales, **given)


@pytest.mark.parametrize("scales", [0, 1, 3, 4])
def test_in_training_coarser_logits_come_after_the_finest_each_half_the_size(scales):
    out = deep(scales).train()(torch.rand(2, 1, 64, 96))
    shapes = [tuple(logits.shape) for logits in (out if scales else [out])]
    assert shapes == [(2, 3, 64 >> i, 96 >> i) for i in range(scales + 1)]


@pytest.mark.parametrize(
    ("encoder", "depth", "widths"),
    [("mit_b0", 5, (32, 24, 16, 12, 8)), ("tu-convnext_atto", 5, (32, 24, 16, 12, 8)), ("resnet18", 3, (24, 12, 8))],
)
def test_any_encoder_and_depth_can_have_them(encoder, depth, widths):
    net = deep(depth - 1, encoder=encoder, depth=depth, decoder_channels=widths).train()
    out = net(torch.rand(2, 1, 64, 96))
    assert [tuple(logits.shape[2:]) for logits in out] == [(64 >> i, 96 >> i) for i in range(depth)]


def test_evaluated_it_is_the_same_network_without_them():
    with_heads, without, image = deep(3), deep(0), torch.rand(2, 1, 64, 64)
    state = with_heads.state_dict()
    extra = [key for key in state if key not in without.state_dict()]
    assert extra == [f"heads.{i}.{part}" for i in range(3) for part in ("weight", "bias")]
    assert [tuple(state[key].shape[:2]) for key in extra[::2]] == [(3, 12), (3, 16), (3, 24)]
    assert all(torch.equal(state[key], value) for key, value in without.state_dict().items())
    with torch.no_grad():
        assert torch.equal(with_heads.train()(image)[0], without.train()(image))
        logits = with_heads.eval()(image)
        assert isinstance(logits, torch.Tensor)
        assert torch.equal(logits, without.eval()(image))
        program = torch.export.export(with_heads, (image,))
        assert torch.allclose(program.module()(image), logits, atol=1e-5)
    with_heads.train()
    assert len(with_heads(image)) == 4


def test_every_head_is_trained_through_the_objective():
    net = deep(3).train()
    objective = Objective([("ce", 1.0, torch.nn.CrossEntropyLoss(ignore_index=IGNORE))])
    target = torch.randint(0, 3, (2, 64, 64), dtype=torch.uint8)
    target[:, :16] = IGNORE
    loss, _ = objective(net(torch.rand(2, 1, 64, 64)), target)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.heads.parameters())
    assert all(p.grad is not None for p in net.parameters())


def test_coarser_logits_of_a_copy_are_its_own_and_nothing_is_kept_between_calls():
    net, image = deep(2).train(), torch.rand(2, 1, 64, 64)
    net(image)
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.net.decoder.parameters():
            parameter.zero_()
    assert all(logits.std() > 0 for logits in twin(image))
    assert all(not torch.equal(a, b) for a, b in zip(net(image), twin(image), strict=True))
    assert not [block for block in net.net.decoder.blocks if "output" in vars(block)]
    with torch.no_grad():
        net.eval()(image)
    assert not [block for block in net.net.decoder.blocks if "output" in vars(block)]


def test_checkpointing_gives_the_same_coarser_logits_and_gradients():
    plain, image = deep(3, dropout=0.2).train(), torch.rand(2, 1, 64, 64)
    other = copy.deepcopy(plain)
    assert checkpoint_activations(other) > 0
    for net in (plain, other):
        torch.manual_seed(1)
        sum(logits.square().mean() for logits in net(image)).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), other.parameters(), strict=True))


# what is refused


def test_unknown_encoders_get_the_nearest_name():
    assert message(encoder="resnet43").startswith("unknown encoder 'resnet43', did you mean 'resnet34'?\n  smp has: ")
    assert message(encoder="tu-convnext_tinny") == (
        "timm has no model 'convnext_tinny', did you mean 'tu-convnext_tiny'? (encoder 'tu-convnext_tinny')"
    )


def test_values_that_contradict_each_other_are_refused():
    assert message(depth=2) == "depth must be 3, 4 or 5, got 2"
    assert message(depth=4) == (
        "decoder_channels wants 4 positive widths, one a stage (depth), got [256, 128, 64, 32, 16]"
    )
    assert message(attention="scse", decoder_channels=(32, 16, 16, 16, 8)) == (
        "attention: scse wants decoder_channels of 16 or more, got [32, 16, 16, 16, 8]"
    )
    assert message(dropout=1.0) == "dropout must be from 0 to below 1, got 1.0"
    for scales in (-1, 5):
        assert message(deep_supervision=scales) == f"deep_supervision must be from 0 to 4 (depth - 1), got {scales}"


# weights


@pytest.mark.parametrize("in_channels", [1, 2, 3, 5])
def test_local_file_is_fitted_to_the_channels_as_smp_does(file, in_channels):
    want = encoder(seed=0)
    want.set_in_channels(in_channels, pretrained=True)
    net = UNet(in_channels, 3, **SMALL, weights=file)
    got = net.net.encoder.state_dict()
    assert all(torch.equal(got[key], value) for key, value in want.state_dict().items())


def test_one_channel_equals_three_copies_of_the_slice(file):
    one, three = (UNet(n, 3, **SMALL, weights=file).net.encoder.eval() for n in (1, 3))
    x = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(one(x)[-1], three(x.repeat(1, 3, 1, 1))[-1], atol=1e-4)


def test_safetensors_a_whole_unet_and_a_classifier_in_the_file_are_fine(tmp_path):
    state = encoder().state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(
        {"state_dict": {f"encoder.{k}": v for k, v in state.items()} | {"head.x": torch.ones(1)}}, tmp_path / "b.pth"
    )
    torch.save(state | {"fc.weight": torch.ones(10, 512), "fc.bias": torch.ones(10)}, tmp_path / "c.pth")
    for name in ("a.safetensors", "b.pth", "c.pth"):
        got = UNet(3, 3, **SMALL, weights=tmp_path / name).net.encoder.state_dict()
        assert all(torch.equal(got[key], value) for key, value in state.items()), name


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_timms_own_file_is_converted_by_timm(tmp_path, name):
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    arguments = {"decoder_channels": (16, 8, 8, 8, 8), "encoder": f"tu-{name}"}
    net = UNet(1, 3, **arguments, weights=tmp_path / "timm.pth")
    loaded = [p for p in net.net.encoder.parameters() if p.ndim > 1]
    theirs = [p for p in model.parameters() if p.ndim > 1][: len(loaded)]
    assert torch.allclose(loaded[0], theirs[0].sum(1, keepdim=True))
    assert all(torch.equal(a, b) for a, b in zip(loaded[1:], theirs[1:], strict=True))


def test_file_of_another_encoder_names_what_differs(file):
    assert message(encoder="resnet34", weights=file) == (
        f"{file} does not fit encoder 'resnet34': it lacks layer1.2.conv1.weight; it lacks layer1.2.bn1.weight; "
        "it lacks layer1.2.bn1.bias; it lacks layer1.2.bn1.running_mean; it lacks layer1.2.bn1.running_var; and 75 more"
    )


def test_timms_file_of_another_encoder_is_refused_although_timm_takes_it(tmp_path):
    import timm

    path = tmp_path / "timm.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    assert message(encoder="tu-resnet34", weights=path).startswith(
        f"{path} does not fit encoder 'tu-resnet34': it lacks layer1.2.conv1.weight; "
    )


def test_key_of_another_shape_or_unknown_is_named(file):
    state = torch.load(file)
    state["layer1.0.conv1.weight"] = torch.ones(3, 3)
    state["stranger"] = torch.ones(1)
    torch.save(state, file)
    assert message(encoder="resnet18", weights=file) == (
        f"{file} does not fit encoder 'resnet18': layer1.0.conv1.weight has shape [3, 3], want [64, 64, 3, 3]; "
        "it has an unknown stranger"
    )


def test_files_that_are_no_weights_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pth")
    assert message(weights=tmp_path / "none.pth") == f"no such file: {tmp_path / 'none.pth'} (weights); {FIX}"
    assert message(weights=tmp_path / "text.pth") == (
        f"{tmp_path / 'text.pth'} cannot be read as weights (UnpicklingError); "
        "want a state dict saved by torch.save or safetensors"
    )
    assert message(weights=tmp_path / "list.pth") == f"{tmp_path / 'list.pth'} holds no state dict (names -> tensors)"


@pytest.mark.parametrize("name", ["resnet34", "tu-resnet18"])
def test_imagenet_weights_offline_name_the_fix_without_retrying(name, monkeypatch, tmp_path):
    from huggingface_hub import constants

    # A hub that refuses connections, and an empty cache: what a machine without network has, on any machine.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    text = message(encoder=name, weights="imagenet")
    first, second = text.split("\n")
    assert first.startswith(f"the ImageNet weights of encoder '{name}' could not be loaded (")
    assert second == f"  {FIX}"
    assert sum(slept) == 0
    assert constants.HF_HUB_OFFLINE is False


def test_encoders_without_imagenet_weights_say_so():
    assert message(encoder="tu-convnext_atto_rms", weights="imagenet") == (
        f"timm offers no pretrained weights for 'tu-convnext_atto_rms'; {FIX}"
    )
    assert message(encoder="dpn92", weights="imagenet") == f"smp offers no ImageNet weights for encoder 'dpn92'; {FIX}"
    assert message(encoder="tu-resnet34.nowhere", weights="imagenet").startswith(
        "timm has no weights 'nowhere' of 'resnet34'; it has: resnet34.a1_in1k, "
    )
