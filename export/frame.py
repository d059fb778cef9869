"""A frame as one torch module for export: from reduced signals to image and uncertainty.

The network works on images of root-mean-square about one. Here its input is scaled accordingly, and its output is
scaled back; in units of the noise, float32 suffices. The same graph serves every calibration of any rank, planes of any
grid, and volumes. With a noisy image as an additional input it is the denoiser for samplers.
"""

import torch
from torch import Tensor, nn

from mpi_fast.likelihood import CERTAIN, DETECTION, EMPTY, SIGNAL_PER_IMAGE
from mpi_fast.training.combination import Signals
from mpi_fast.training.network import PosteriorNetwork


class Frame(nn.Module):
    """The image of each frame, with its uncertainty."""

    def __init__(self, network: PosteriorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        y: Tensor,
        noise: Tensor,
        singular_values: Tensor,
        basis: Tensor,
        noisy: Tensor | None = None,
        precision: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruct frames.

        Parameters
        ----------
        y : (F, R) float32
            Reduced signals (`Calibration.reduce`).
        noise : (F,) float32
            Their noise level; zero for a frame of zeros.
        singular_values : (R,) float32
            S of the calibration.
        basis : (nz, ny, nx, R) float32
            V of the calibration, ``nz = 1`` for planes.
        noisy : (F, nz, ny, nx) float32, optional
            A noisy image ``x_t = x + sigma_t n`` of each frame; zero if there is none.
        precision : (F,) float32, optional
            Its precision ``1 / sigma_t^2``, in units of `likelihood.signal_scale`; zero if there is none.

        Returns
        -------
        image, std : (F, nz, ny, nx) float32
            The image is not negative, and zero for frames that noise alone explains.
        quantiles : (F, 2) float32
            Quantiles of the errors in units of std, see `uncertainty`.
        """
        nz, ny, nx, rank = basis.shape
        scale, presence = scale_and_presence(y, noise[:, None], singular_values)
        unit, level = unit_and_level(scale, noise[:, None])
        signals = Signals.of((y / unit)[None], level[:, 0][None], singular_values[None], basis.reshape(1, -1, rank))
        given = [] if noisy is None or precision is None else [(noisy.flatten(1) / unit)[None], precision[None]]
        found = self.network(signals, (nz, ny, nx), *given)
        image = torch.clamp(found.image[0], min=0.0) * (presence * scale)
        std = torch.exp(found.log_error[0]) * scale
        return image.reshape(-1, nz, ny, nx), std.reshape(-1, nz, ny, nx), torch.exp(found.log_quantiles[0])


def scale_and_presence(y: Tensor, noise: Tensor, singular_values: Tensor) -> tuple[Tensor, Tensor]:
    """`likelihood.signal_scale` and `likelihood.signal_presence`, (F, 1), of y (F, R) and noise (F, 1).

    In units of the noise float32 suffices.
    """
    spread = torch.sqrt(2.0 * (singular_values > 0).to(y.dtype).sum())  # spread of the energy of noise
    relative = y / torch.where(noise > 0, noise, 1.0)
    excess = torch.square(relative).sum(dim=1, keepdim=True) / spread - 0.5 * spread
    power = torch.square(singular_values).sum()
    scale = noise * torch.sqrt(torch.clamp(excess, min=DETECTION) * (spread / power)) / SIGNAL_PER_IMAGE
    return scale, torch.clamp((excess - EMPTY) / (CERTAIN - EMPTY), 0.0, 1.0)


def unit_and_level(scale: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The divisor of signals, and their noise after the division, (F, 1), from scale and noise (F, 1).

    A frame of zeros has no scale: its signals stay zero, and so does its image.
    """
    visible = scale > 0
    unit = torch.where(visible, scale, 1.0)
    return unit, torch.where(visible, noise / unit, 1.0)
