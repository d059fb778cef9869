"""Half precision, by casting inside the torch module: what the module says is what every runtime computes.

TensorRT's networks are strongly typed: no flag makes float16 of float32, and an operation on both is an error.
"""

import copy
from typing import TypeVar

import torch
from torch import nn

from mpi_fast.training.network import Denoiser

Module = TypeVar("Module", bound=nn.Module)


def half(module: Module, dtype: torch.dtype = torch.float16) -> Module:
    """A copy with its convolutions in half precision.

    The denoiser's last one, the noise level and the edges stay float32.
    """
    halved = copy.deepcopy(module)
    last = [part.head for part in halved.modules() if isinstance(part, Denoiser)]
    for part in halved.modules():
        if isinstance(part, nn.Conv2d) and part not in last:
            part.to(dtype)
    return halved
