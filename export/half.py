"""Half precision, by casting inside the torch module: what the exported graph says is what every runtime computes.

TensorRT's networks are strongly typed: no flag makes float16 of float32, and an operation on both is an error.
"""

import copy

from torch import nn

from mpi_fast.training.network import Denoiser


def half(denoiser: Denoiser) -> Denoiser:
    """A copy with its convolutions in float16, but for the last; that, the noise level and the edges stay float32."""
    halved = copy.deepcopy(denoiser)
    for module in (halved.stem, *halved.body.modules()):
        if isinstance(module, nn.Conv2d):
            module.half()
    return halved
