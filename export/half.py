"""Half precision by casts inside the torch module, so that every runtime computes exactly what the module defines.

TensorRT's networks are strongly typed: no flag converts float32 to float16, and an operation on both is an error. The
convolutions use half precision, except the last one of each block, which determines the digits of the images. Scale and
noise, the combination with the signals, whose singular values span many orders of magnitude, and the expected errors
stay float32, and so do inputs and outputs.

Features at full resolution are at most some hundreds, and also float16. At half resolution they grow to 10^5, more than
float16 can represent. There they stay float32, and only the convolutions are float16, applied to a 64th of their input.
"""

import copy

import torch
from torch import Tensor, nn

from mpi_fast.export.frame import Frame
from mpi_fast.training.network import Corrector, HalfResolution, ResidualBlock

SCALE = 2.0**-6  # a power of two, so that scaling does not round


class ToHalf(nn.Module):
    """A cast to float16."""

    def forward(self, x: Tensor) -> Tensor:
        """The input rounded to float16."""
        return x.to(torch.float16)


class Scaled(nn.Module):
    """A convolution in float16 between float32 tensors whose values exceed float16."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None
        convolution.bias.data *= SCALE
        self.convolution = convolution.half()

    def forward(self, x: Tensor) -> Tensor:
        """The result of the convolution."""
        out: Tensor = self.convolution((SCALE * x).to(torch.float16)).to(torch.float32) / SCALE
        return out


def half(frame: Frame) -> Frame:
    """A copy of a frame's graph with its convolutions in half precision."""
    halved = copy.deepcopy(frame)
    for module in halved.modules():
        if isinstance(module, Corrector):
            module.inject = nn.Sequential(ToHalf(), module.inject.half())  # type: ignore[assignment]
            for stage in module.stages:
                if isinstance(stage, ResidualBlock):
                    stage.half()
                elif isinstance(stage, HalfResolution):
                    stage.down = Scaled(stage.down)  # type: ignore[assignment]
                    stage.block.first = Scaled(stage.block.first)  # type: ignore[assignment]
                    stage.block.second = Scaled(stage.block.second)  # type: ignore[assignment]
                    stage.up = nn.Sequential(Scaled(stage.up), ToHalf())  # type: ignore[assignment]
    return halved
