"""DERnet: an end-to-end network for MPI (Peng et al. 2023), made to serve any scanner.

Taken from the paper: signals become an image in one pass. A *feature-mapping* subnetwork learns the map from signals to
images, in place of the data-consistency term of an optimisation; a convolutional *post-processing* subnetwork turns
these features into the image. It is trained for one scanner, on pairs of signals and images.

Our choice: one network serves every system matrix of its grid, like ours, so the mapping from M signals to N
voxels cannot be a matrix of weights. Signals are reduced (``y = S V^T x + sigma xi``), and the network learns C filter
factors f for each component, as a function of its singular value relative to noise and the strength of its signal:

    features    V diag(f_c / S) y        and their resolution, diag(V diag(f_c) V^T),     c = 1 ... C
    f_c         sigmoid(2 ln(S / sigma) + b_c + MLP_c(ln(S / sigma), ln(1 + |y| / sigma)))

It starts as C Tikhonov filters of different strengths (MLP = 0). The post-processing is a U-Net instead of
the paper's layers. It corrects the first feature in units of its deviation, because a plain sum of both learns more
slowly.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpi_fast.training.layers import UNet, zeroed
from mpi_fast.training.mixed import mixed

LEVEL_RANGE = (-8.0, 12.0)  # range of ln(S / sigma); components beyond it are only noise, or free of noise
STRONGEST = 4.0  # range of the initial filter strengths, in units of ln(sigma^2)


@dataclass(frozen=True)
class DernetConfig:
    """Widths and depths.

    Attributes
    ----------
    filters, hidden : int
        C, and the width of the network that makes the filter factors.
    width, inner, blocks : int
        Channels at full and at half resolution, and number of blocks, of the post-processing `UNet`.
    """

    filters: int = 8
    hidden: int = 32
    width: int = 32
    inner: int = 64
    blocks: int = 3

    def to_dict(self) -> dict[str, int]:
        """Plain numbers, as a checkpoint stores them."""
        return asdict(self)


class Dernet(nn.Module):
    """Network from signals to images, for G scanners with K frames each."""

    strengths: Tensor

    def __init__(self, config: DernetConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.grid = config, grid
        spread = torch.linspace(-STRONGEST, STRONGEST, config.filters - 1 + config.filters % 2)
        ordered = spread[spread.abs().argsort()]  # the first filter is the posterior mean under a white prior
        self.register_buffer("strengths", torch.cat([ordered, ordered[:1]])[: config.filters])
        self.mapping = nn.Sequential(
            nn.Linear(2, config.hidden),
            nn.SiLU(),
            nn.Linear(config.hidden, config.hidden),
            nn.SiLU(),
            zeroed(nn.Linear(config.hidden, config.filters)),
        )
        self.stem = nn.Conv2d(2 * config.filters, config.width, 3, padding=1)
        self.body = UNet(config.width, config.inner, config.blocks)
        self.head = zeroed(nn.Conv2d(config.width, 1, 3, padding=1))

    def forward(self, y: Tensor, noise: Tensor, singular_values: Tensor, basis: Tensor) -> Tensor:
        """Reconstruct.

        Parameters
        ----------
        y, noise : (G, K, R), (G, K) float32
            Reduced signals and their noise level, for images of root-mean-square about one.
        singular_values, basis : (G, R), (G, N, R) float32
            S and V, padded with zeros to a common rank.

        Returns
        -------
        (G, K, N) float32
        """
        features, explained = self._features(y, noise, singular_values, basis)
        groups, frames, filters, voxels = features.shape
        estimate, deviation = features[:, :, 0], (1 - explained[:, :, 0]).clamp_min(1e-6).sqrt()
        maps = torch.cat([features, explained], dim=2).reshape(groups * frames, 2 * filters, *self.grid)
        with mixed(maps.device, self.training):
            x = self.body(self.stem(maps))
        correction: Tensor = self.head(functional.silu(x.float()))
        return estimate + deviation * correction.reshape(groups, frames, voxels)

    def _features(self, y: Tensor, noise: Tensor, singular_values: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
        """Feature images, and the share of each voxel that they resolve, (G, K, C, N) both."""
        s = singular_values[:, None, :]
        level = torch.log(s / noise[..., None] + 1e-9).clamp(*LEVEL_RANGE)
        strength = torch.log1p(y.abs() / noise[..., None])
        learned = self.mapping(torch.stack([level, strength], dim=-1) / 4)
        factor = torch.sigmoid(2 * level[..., None] + self.strengths + learned)  # (G, K, R, C)
        filtered = factor * (y / s.clamp_min(1e-9))[..., None]
        v = basis[:, None]
        features, explained = v @ filtered, v.square() @ factor
        return features.transpose(2, 3), explained.transpose(2, 3)
