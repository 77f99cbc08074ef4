"""A plain 3-D U-Net for patches."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from registry import register

Triple = tuple[int, int, int]


@register("model", "unet_3d")
class UNet3d(nn.Module):
    """3-D U-Net (Çiçek et al. 2016, arXiv:1606.06650) as nnU-Net builds it (Isensee et al. 2021,
    doi:10.1038/s41592-020-01008-z): two convolutions a stage, instance norm, leaky ReLU, strided convolutions down,
    transposed convolutions up.

    Slices are thicker than pixels are wide: a stride of 1 along z leaves that axis alone, and kernels are 1 wide along
    it in all stages before the one whose stride divides it.

    Args:
        channels: width of each stage, finest first.
        strides: along z, y, x, from each stage to the next coarser one; one fewer than `channels`.
        deep_supervision: logits of so many coarser stages too, in training alone (Lee et al. 2015, arXiv:1409.5185).

    Shape: [B, C, D, H, W] -> logits [B, K, D, H, W], each axis a multiple of the product of its strides; in training
    with deep supervision a list of them, finest first.

    Raises:
        ValueError: for numbers that do not match, or an input that cannot be divided.

    Example: {name: unet_3d, channels: [8, 16, 16], strides: [[1, 2, 2], [2, 2, 2]]}
    """

    dimensions = 3

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        channels: tuple[int, ...] = (32, 64, 128, 256, 320),
        strides: tuple[tuple[int, int, int], ...] = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
        deep_supervision: int = 0,
    ) -> None:
        super().__init__()
        if len(channels) < 2 or min(channels) < 1:
            raise ValueError(f"channels wants two or more positive widths, got {list(channels)}")
        if len(strides) != len(channels) - 1 or any(min(stride) < 1 for stride in strides):
            raise ValueError(
                f"strides wants {len(channels) - 1} triples of positive numbers (z, y, x), one fewer than channels, "
                f"got {[list(stride) for stride in strides]}"
            )
        if not 0 <= deep_supervision < len(strides):
            raise ValueError(
                f"deep_supervision must be from 0 to {len(strides) - 1} (stages between the finest and the coarsest), "
                f"got {deep_supervision}"
            )
        self.divisors: Triple = tuple(math.prod(s[axis] for s in strides) for axis in range(3))  # type: ignore[assignment]
        kernels = _kernels(strides)
        steps: list[Triple] = [(1, 1, 1), *strides]
        widths = [in_channels, *channels]
        self.down = nn.ModuleList(
            _Stage(before, after, kernel, step)
            for (before, after), kernel, step in zip(pairwise(widths), kernels, steps, strict=True)
        )
        self.up = nn.ModuleList(
            _Up(deep, fine, kernel, step)
            for (fine, deep), kernel, step in reversed(
                list(zip(pairwise(channels), kernels[:-1], strides, strict=True))
            )
        )
        # Of the coarser heads each has its gradient only in training: there are none that are never used.
        self.heads = nn.ModuleList(nn.Conv3d(width, classes, 1) for width in channels[: deep_supervision + 1])
        for module in self.modules():
            if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
                nn.init.kaiming_normal_(module.weight, a=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Windowed [B, C, D, H, W] -> logits."""
        if image.ndim != 5:
            raise ValueError(f"unet_3d wants patches [B, C, D, H, W], got {list(image.shape)}; use dataset: patches")
        if any(n % d for n, d in zip(image.shape[2:], self.divisors, strict=True)):
            raise ValueError(
                f"unet_3d divides patches by {list(self.divisors)} along z, y, x, and {list(image.shape[2:])} is no "
                f"multiple of that; change the patch of dataset and inferer, or model.strides"
            )
        skips = []
        for stage in self.down:
            image = stage(image)
            skips.append(image)
        x, scales = skips.pop(), []
        for up in self.up:
            x = up(x, skips.pop())
            scales.append(x)
        scales.reverse()
        if not self.training or len(self.heads) == 1:
            return self.heads[0](scales[0])
        return [head(scale) for head, scale in zip(self.heads, scales, strict=False)]


class _Stage(nn.Sequential):
    def __init__(self, before: int, after: int, kernel: Triple, stride: Triple) -> None:
        super().__init__(_convolution(before, after, kernel, stride), _convolution(after, after, kernel, (1, 1, 1)))


class _Up(nn.Module):
    def __init__(self, deep: int, fine: int, kernel: Triple, stride: Triple) -> None:
        super().__init__()
        self.grow = nn.ConvTranspose3d(deep, fine, stride, stride)
        self.stage = _Stage(2 * fine, fine, kernel, (1, 1, 1))

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.stage(torch.cat([self.grow(x), skip], dim=1))


def _convolution(before: int, after: int, kernel: Triple, stride: Triple) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Sequential(
        nn.Conv3d(before, after, kernel, stride, padding, bias=False),
        nn.InstanceNorm3d(after, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
    )


def _kernels(strides: tuple[tuple[int, int, int], ...]) -> list[Triple]:
    """Of each stage: 3 along the axes that its own stride or an earlier one divides, else 1."""
    kernels: list[Triple] = []
    for stage in range(len(strides) + 1):
        near = strides[: stage + 1]
        kernels.append(tuple(3 if any(s[axis] > 1 for s in near) else 1 for axis in range(3)))  # type: ignore[arg-type]
    return kernels
