"""The network for noise levels that are known beforehand: what depends on them alone is computed once, and kept.

Of the noise-level embedding nothing is left, but for the levels of consensus, which are known with the frame; and the
features of the encoder enter the first convolution once per frame, not once per step and sample. Whole-frame graphs and
captured CUDA graphs are made of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpi_fast.training.network import IMAGE_CHANNELS, Modulation, ScoreNetwork


class Unrolled(nn.Module):
    """Encoder and denoiser of a network; evaluation number k is at noise level ``sigmas[k]``.

    Parameters
    ----------
    network : ScoreNetwork
        In float32, or with its convolutions in half precision (`half`).
    sigmas : sequence of float
        Noise levels.
    samples : int
        Of each frame.
    """

    image_weight: Tensor
    features_weight: Tensor

    def __init__(self, network: ScoreNetwork, sigmas: Sequence[float], samples: int) -> None:
        super().__init__()
        self.samples = samples
        self.encoder, self.denoiser = network.encoder, network.denoiser
        self.body: nn.Module = network.denoiser.body
        stem = self.denoiser.stem
        self.register_buffer("image_weight", stem.weight[:, :IMAGE_CHANNELS].detach().clone())
        self.register_buffer("features_weight", stem.weight[:, IMAGE_CHANNELS:].detach().clone())
        with torch.no_grad():
            for number, sigma in enumerate(sigmas):
                level = torch.tensor([sigma], device=stem.weight.device)
                for block, pair in enumerate(self.denoiser.modulations(level)):
                    for name, value in zip(("gain", "shift"), pair, strict=True):
                        self.register_buffer(_buffer(name, number, block), value.clone())

    def encode(self, condition: Tensor) -> Tensor:
        """What the first convolution makes of the features that the encoder finds, (F, width, ny, nx)."""
        features = self.encoder(condition).to(self.features_weight.dtype)
        return functional.conv2d(features, self.features_weight, self.denoiser.stem.bias, padding=1)

    def forward(self, planes: Tensor, features: Tensor, modulations: Sequence[Modulation]) -> Tensor:
        """Correction of the estimate in units of its deviation.

        Parameters
        ----------
        planes : (F * samples, 3, ny, nx) float32
            Estimate, half the logarithm of its deviation, c_in x_t.
        features : (F, width, ny, nx)
            Of `encode`.
        modulations : sequence
            Of the evaluation, by `modulations`.

        Returns
        -------
        (F * samples, 1, ny, nx) float32
        """
        stem = functional.conv2d(planes.to(self.image_weight.dtype), self.image_weight, None, padding=1)
        stem = stem.reshape(-1, self.samples, *stem.shape[1:]) + features[:, None]
        hidden = self.body(stem.reshape(-1, *stem.shape[2:]), modulations)
        correction: Tensor = self.denoiser.head(functional.silu(hidden.float()))
        return correction

    def modulations(self, number: int) -> list[Modulation]:
        """What noise level ``sigmas[number]`` does to the residual blocks."""
        blocks = len(self.denoiser.body.middle) + 2
        return [
            (self.get_buffer(_buffer("gain", number, block)), self.get_buffer(_buffer("shift", number, block)))
            for block in range(blocks)
        ]


def _buffer(name: str, number: int, block: int) -> str:
    return f"{name}_{number}_{block}"
