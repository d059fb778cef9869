"""Half precision, by casting inside the torch module: what the module says is what every runtime computes.

TensorRT's networks are strongly typed: no flag makes float16 of float32, and an operation on both is an error. In half
precision are the convolutions, all but the last of each block, which give the images their digits. Scale and noise, the
combination with the signals, whose singular values span many orders of magnitude, and the sizes of errors stay float32,
and so do inputs and outputs.

Features at full resolution are some hundreds at most, and float16, too. At half resolution they grow to 10^5, more than
float16 holds: there they stay float32, and only convolutions are float16, of a 64th of their input.
"""

import copy

import torch
from torch import Tensor, nn

from mpi_fast.export.frame import Frame
from mpi_fast.training.network import Corrector, HalfResolution, ResidualBlock

SCALE = 2.0**-6  # a power of two: it rounds nothing


class ToHalf(nn.Module):
    """A cast to float16."""

    def forward(self, x: Tensor) -> Tensor:
        """The same numbers, rounded."""
        return x.to(torch.float16)


class Scaled(nn.Module):
    """A convolution in float16 between float32 tensors whose numbers float16 cannot hold."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        assert convolution.bias is not None
        convolution.bias.data *= SCALE
        self.convolution = convolution.half()

    def forward(self, x: Tensor) -> Tensor:
        """What the convolution makes of it."""
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
