"""U-Net with a pretrained encoder, from segmentation_models_pytorch."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from registry import register, suggest


@register("model", "unet")
class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) with any encoder of smp, or of timm as ``tu-<timm name>``.

    The window's output in [0, 1] goes in as it is: ImageNet's mean and standard deviation are not applied (the
    pretrained encoders saw images in [0, 1] less (.485, .456, .406), over (.229, .224, .225); BatchNorm adapts).
    With ImageNet weights and one channel the first convolution's weights are summed over RGB, which equals three
    copies of the slice at a third of the reading; with other than 1 or 3 channels they are repeated and scaled.

    Args:
        encoder: e.g. ``resnet34``, ``efficientnet-b3``, ``tu-convnext_tiny``.
        weights: "imagenet" downloads (once) what smp or timm offer; a path is a local file with the encoder's
            state dict (torch or safetensors); null starts from random weights.
        decoder_channels: width of each decoder stage, deepest first; one a stage of `depth`.
        depth: encoder stages, 3 to 5; the input is divided by ``2**depth``.
        attention: "scse" adds squeeze-and-excitation to the decoder (Roy et al. 2018, arXiv:1803.02579); it wants 16
            channels or more in each stage.
        dropout: share of the decoder's last channels dropped in training, from 0 to below 1.
        deep_supervision: logits of so many coarser decoder stages too, in training alone (Lee et al. 2015,
            arXiv:1409.5185), each at half the resolution of the one before, up to ``depth - 1``; nnU-Net has all but
            the coarsest, ``depth - 2``.

    Shape: [B, C, H, W] -> logits [B, K, H, W], H and W multiples of ``2**depth``; in training with deep supervision a
    list of them, finest first.

    Raises:
        ValueError: for an unknown encoder, numbers that do not match the depth, or weights that cannot be loaded.

    Example: {name: unet, encoder: resnet18, weights: null, decoder_channels: [64, 32, 16, 8, 8]}
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        encoder: str = "resnet34",
        weights: Literal["imagenet"] | Path | None = "imagenet",
        decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16),
        depth: int = 5,
        attention: Literal["scse"] | None = None,
        dropout: float = 0.0,
        deep_supervision: int = 0,
    ) -> None:
        super().__init__()
        if not 3 <= depth <= 5:
            raise ValueError(f"depth must be 3, 4 or 5, got {depth}")
        if len(decoder_channels) != depth or min(decoder_channels) < 1:
            raise ValueError(
                f"decoder_channels wants {depth} positive widths, one a stage (depth), got {list(decoder_channels)}"
            )
        if attention == "scse" and min(decoder_channels) < 16:
            raise ValueError(f"attention: scse wants decoder_channels of 16 or more, got {list(decoder_channels)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be from 0 to below 1, got {dropout}")
        if not 0 <= deep_supervision < depth:
            raise ValueError(f"deep_supervision must be from 0 to {depth - 1} (depth - 1), got {deep_supervision}")
        _check_encoder(encoder)
        import segmentation_models_pytorch as smp

        def build(pretrained: str | bool | None, **timm: Any) -> Any:
            # Every argument by name: smp takes any keyword and ignores what it does not know.
            return smp.Unet(
                encoder_name=encoder,
                encoder_depth=depth,
                encoder_weights=pretrained,
                decoder_channels=tuple(decoder_channels),
                decoder_attention_type=attention,
                in_channels=in_channels,
                classes=classes,
                **timm,
            )

        if weights is None:
            self.net = build(None)
        elif weights == "imagenet":
            self.net = _download(encoder, build)
        else:
            self.net = _from_file(encoder, Path(weights), build)
        if dropout:
            self.net.segmentation_head = nn.Sequential(nn.Dropout2d(dropout), self.net.segmentation_head)
        self.supervised = range(depth - 2, depth - 2 - deep_supervision, -1)
        self.heads = nn.ModuleList(nn.Conv2d(decoder_channels[i], classes, 1) for i in self.supervised)
        for i in self.supervised:
            self.net.decoder.blocks[i].register_forward_hook(_keep_output)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """[B, C, H, W] -> logits [B, K, H, W], or a list of them."""
        logits = self.net(image)
        if not self.heads or not self.net.decoder.training:
            return logits
        outputs = [vars(self.net.decoder.blocks[i]).pop("output") for i in self.supervised]
        return [logits, *(head(output) for head, output in zip(self.heads, outputs, strict=True))]


def _keep_output(block: nn.Module, _: Any, output: torch.Tensor) -> None:
    # On the block itself, not in a closure: a copy of the model must not write into the original.
    if block.training:
        block.output = output


def _check_encoder(name: str) -> None:
    from segmentation_models_pytorch.encoders import get_encoder_names

    known = [n for n in get_encoder_names() if not n.startswith("timm-")]
    if name in get_encoder_names():
        return
    if name.startswith("tu-"):
        import timm

        architecture, _, tag = name[3:].partition(".")
        if timm.is_model(architecture):
            tagged = timm.list_pretrained(f"{architecture}.*")
            if tag and name[3:] not in tagged:
                raise ValueError(
                    f"timm has no weights '{tag}' of '{architecture}'; it has: {', '.join(tagged) or 'none'}"
                )
            return
        known = [f"tu-{n}" for n in timm.list_models()]
        raise ValueError(f"timm has no model '{name[3:]}'{suggest(name, known)} (encoder '{name}')")
    raise ValueError(
        f"unknown encoder '{name}'{suggest(name, known)}\n"
        f"  smp has: {', '.join(known)}\n  and every model of timm, as tu-<timm name>"
    )


def _download(encoder: str, build: Any) -> Any:
    if encoder.startswith("tu-"):
        import timm

        if not timm.models.is_model_pretrained(encoder[3:]):
            raise ValueError(f"timm offers no pretrained weights for '{encoder}'; {_FIX}")
    else:
        from segmentation_models_pytorch.encoders import encoders

        offered = encoders[encoder]["pretrained_settings"]
        if "imagenet" not in offered:
            raise ValueError(f"smp offers no ImageNet weights for encoder '{encoder}'; {_FIX}")
    try:
        with _no_vain_retries():
            return build(True if encoder.startswith("tu-") else "imagenet")
    except Exception as error:
        # Whatever went wrong between here and the server (name, proxy, certificate, cache folder, broken file), the
        # user's way out is the same; only faults of the encoder itself are left alone.
        if not _is_download_error(error):
            raise
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise ValueError(
            f"the ImageNet weights of encoder '{encoder}' could not be loaded ({type(error).__name__}: {reason})\n"
            f"  {_FIX}"
        ) from error


_FIX = (
    "give a local file with the encoder's state dict, model.weights=path/to/encoder.pth, "
    "or start from random weights, model.weights=null"
)


def _is_download_error(error: BaseException) -> bool:
    modules = {type(e).__module__.split(".")[0] for e in _chain(error)}
    return isinstance(error, OSError) or bool(modules & {"huggingface_hub", "httpx", "httpx2", "requests", "urllib3"})


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _no_vain_retries() -> Iterator[None]:
    """Ask the hub once whether it answers; if it does not, use the cache alone instead of retrying for a minute."""
    from huggingface_hub import constants, get_session

    before = constants.HF_HUB_OFFLINE
    if not before:
        try:
            get_session().head(constants.ENDPOINT, timeout=5)
        except Exception:
            constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _from_file(encoder: str, path: Path, build: Any) -> Any:
    state = _read(path)
    if encoder.startswith("tu-") and not any(k.startswith("model.") for k in state):
        return _from_timm_file(encoder, path, build)
    net = build(None)
    own = net.encoder.state_dict()
    fitted, wrong = {}, []
    for key, value in own.items():
        given = state.get(key)
        if given is None:
            if not key.endswith("num_batches_tracked"):
                wrong.append(f"it lacks {key}")
            continue
        given = _adapt(given, value)
        if given.shape != value.shape:
            wrong.append(f"{key} has shape {list(given.shape)}, want {list(value.shape)}")
        fitted[key] = given
    classifier = ("fc.", "classifier.", "last_linear.", "head.", "_fc.")
    wrong += [f"it has an unknown {k}" for k in state if k not in own and not k.startswith(classifier)]
    _refuse(path, encoder, wrong)
    nn.Module.load_state_dict(net.encoder, fitted, strict=False)
    return net


def _from_timm_file(encoder: str, path: Path, build: Any) -> Any:
    """A file with timm's own names: timm converts them, drops the classifier and adapts the first convolution."""
    import timm

    logger, heard = logging.getLogger("timm.models._builder"), _Heard()
    level, propagate = logger.level, logger.propagate
    # timm loads such a file leniently and only logs what did not fit; an encoder left random must be an error here.
    logger.addHandler(heard)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        net = build(True, pretrained_cfg_overlay={"file": str(path)})
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit encoder '{encoder}': {error}") from error
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)
        logger.propagate = propagate
    config = timm.models.get_pretrained_cfg(encoder[3:])
    names = (config.classifier if config else None) or ()
    classifier = tuple(f"{n}." for n in ([names] if isinstance(names, str) else names))
    wrong = [f"it lacks {k}" for k in heard.keys("Missing keys")]
    wrong += [f"it has an unknown {k}" for k in heard.keys("Unexpected keys")]
    _refuse(path, encoder, [w for w in wrong if not w.split()[-1].startswith(classifier)])
    return net


class _Heard(logging.Handler):
    """Keeps what timm logs."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.texts.append(record.getMessage())

    def keys(self, begin: str) -> list[str]:
        """The keys in brackets of the messages that begin so."""
        texts = [t for t in self.texts if t.startswith(begin)]
        return [k for t in texts for k in t[t.index("(") + 1 : t.index(")")].split(", ")]


def _refuse(path: Path, encoder: str, wrong: list[str]) -> None:
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"{path} does not fit encoder '{encoder}': {'; '.join(wrong[:5])}{more}")


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise ValueError(f"no such file: {path} (weights); {_FIX}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}); want a state dict saved by torch.save or "
            "safetensors"
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError(f"{path} holds no state dict (names -> tensors)")
    inside = {k[len("encoder.") :]: v for k, v in state.items() if k.startswith("encoder.")}
    return inside or dict(state)


def _adapt(given: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Fit a first convolution to another number of channels, as smp does: one gets the sum, more get scaled copies."""
    n, want = given.shape[1] if given.ndim == 4 else 0, own.shape[1] if own.ndim == 4 else 0
    others_equal = given.ndim == own.ndim == 4 and given.shape[0] == own.shape[0] and given.shape[2:] == own.shape[2:]
    if not others_equal or n == want or n not in (1, 3):
        return given
    if want == 1:
        return given.sum(1, keepdim=True)
    return given[:, [i % n for i in range(want)]] * (n / want)
