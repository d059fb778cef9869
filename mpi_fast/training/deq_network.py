"""DEQ-MPI: a deep equilibrium model with learned consistency (Güngör et al., IEEE Trans. Med. Imaging 2024).

Taken from the paper: the image is the fixed point of ADMM on ``x = z0, A x = z2`` whose two proximal operators are
networks: a residual dense network (4 blocks of 4 layers) in place of the image prior, ending in a ReLU, and a small
one-dimensional convolutional network with the signals y and the iterate ``s = A x - d2`` as inputs, in place of the
projection of s to the ball of radius epsilon around y; its output, too, is within epsilon of y. Signals are reduced by
an SVD. The fixed point is found by Anderson acceleration with at most 25 iterations.

Our choice: one network for every scanner and noise level, while the paper trains one for each. Signals are therefore in
units of their noise, with ln(S / sigma) of the component as a second input. The image network gets the measurement
quality of each voxel as a second channel. The step of the image is the exact one of `likelihood`, with a learned
spread. epsilon is the norm of noise alone, ``sigma sqrt(R)``. The networks have 16 channels instead of 12.

Gradients: up to `DEPTH` Anderson iterations are computed without gradients, then `STEPS_WITH_GRADIENT` plain iterations
with gradients, through which the loss is differentiated (Geng et al., "On training implicit models", NeurIPS 2021, the
unrolled phantom gradient; with one step it is the Jacobian-free back-propagation that the authors use for their 3D
model). How many iterations go before is drawn for each batch: so the image is good wherever the iteration stands, and
good images stay. This replaces the paper's separate pre-training of both networks.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpi_fast.methods.anderson import fixed_point
from mpi_fast.training.data import Frames
from mpi_fast.training.layers import zeroed
from mpi_fast.training.mixed import mixed

STEPS_WITH_GRADIENT = 2
DEPTH = 12


@dataclass(frozen=True)
class DeqConfig:
    """Widths and depths.

    Attributes
    ----------
    features, growth, blocks, layers : int
        Residual dense network: channels, channels that each layer adds, number of blocks, layers of each block.
    consistency : int
        Channels of the consistency network.
    """

    features: int = 16
    growth: int = 16
    blocks: int = 4
    layers: int = 4
    consistency: int = 8

    def to_dict(self) -> dict[str, int]:
        """Plain numbers, as a checkpoint stores them."""
        return asdict(self)


class DenseBlock(nn.Module):
    """Layers with all earlier layers as inputs, fused and added to the block's input."""

    def __init__(self, features: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(features + i * growth, growth, 3, padding=1) for i in range(layers))
        self.fuse = nn.Conv2d(features + layers * growth, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, features, ny, nx) -> the same shape."""
        seen = x
        for layer in self.layers:
            seen = torch.cat([seen, functional.relu(layer(seen))], dim=1)
        out: Tensor = x + self.fuse(seen)
        return out


class ImageNetwork(nn.Module):
    """Residual dense network; the identity on non-negative images at the start of training."""

    def __init__(self, config: DeqConfig) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, config.features, 3, padding=1)
        self.second = nn.Conv2d(config.features, config.features, 3, padding=1)
        blocks = (DenseBlock(config.features, config.growth, config.layers) for _ in range(config.blocks))
        self.blocks = nn.ModuleList(blocks)
        self.fuse = nn.Conv2d(config.blocks * config.features, config.features, 1)
        self.third = nn.Conv2d(config.features, config.features, 3, padding=1)
        self.head = zeroed(nn.Conv2d(config.features, 1, 3, padding=1))

    def forward(self, image: Tensor, deviation: Tensor) -> Tensor:
        """Images and their deviations (B, 1, ny, nx) -> images, not negative."""
        with mixed(image.device, self.training):
            shallow = self.first(torch.cat([image, 0.5 * torch.log(deviation)], dim=1))
            x, seen = self.second(shallow), []
            for block in self.blocks:
                x = block(x)
                seen.append(x)
            x = self.third(self.fuse(torch.cat(seen, dim=1))) + shallow
        denoised: Tensor = functional.relu(image + self.head(x.float()))
        return denoised


class ConsistencyNetwork(nn.Module):
    """Estimate of the signals, given y and the iterate; the projection to the ball at the start of training."""

    def __init__(self, config: DeqConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, config.consistency, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(config.consistency, config.consistency, 3, padding=1),
            nn.ReLU(),
            zeroed(nn.Conv1d(config.consistency, 1, 3, padding=1)),
        )

    def forward(self, residual: Tensor, y: Tensor, level: Tensor) -> Tensor:
        """``(z2 - y) / sigma`` from ``(s - y) / sigma``, ``y / sigma`` and ``ln(S / sigma)``, (B, R) each."""
        present = level > math.log(1e-6)
        radius = present.sum(dim=1, keepdim=True).float().sqrt()
        near = _clip_norm(residual, radius)
        seen = torch.stack([near, torch.asinh(y), 0.25 * level], dim=1)
        return _clip_norm((near + self.layers(seen)[:, 0]) * present, radius)


def _clip_norm(vector: Tensor, radius: Tensor) -> Tensor:
    """Vectors (B, R), shortened to at most the radius (B, 1)."""
    length = torch.linalg.vector_norm(vector, dim=1, keepdim=True).clamp_min(1e-9)
    shortened: Tensor = vector * (radius / length).clamp_max(1.0)
    return shortened


class Equilibrium(nn.Module):
    """One iteration of ADMM, for G scanners with K frames each. Its state is x, d0 and d2 / sigma, side by side."""

    def __init__(self, config: DeqConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.grid = config, grid
        self.prior = ImageNetwork(config)
        self.consistency = ConsistencyNetwork(config)
        self.spread = nn.Parameter(torch.tensor([math.log(0.5), 1.0]))

    def forward(self, state: Tensor, y: Tensor, noise: Tensor, singular_values: Tensor, basis: Tensor) -> Tensor:
        """Iterate once.

        Parameters
        ----------
        state : (G, K, 2 N + R) float32
        y, noise : (G, K, R), (G, K) float32
            Reduced signals and their noise level, for images of root-mean-square about one.
        singular_values, basis : (G, R), (G, N, R) float32
            S and V, padded with zeros where ranks differ.
        """
        groups, frames, rank = y.shape
        voxels = basis.shape[1]
        x, d0, d2 = torch.split(state, [voxels, voxels, rank], dim=2)
        ratio = singular_values[:, None, :] / noise[..., None]  # S / sigma
        level = torch.log(ratio + 1e-7).clamp_max(12.0)
        scaled = y / noise[..., None]
        explained = (ratio.square() / (ratio.square() + 1)) @ basis.square().transpose(1, 2)
        deviation = (1 - explained).clamp_min(1e-6).sqrt()

        shape = groups * frames, 1, *self.grid
        z0 = self.prior((x - d0).reshape(shape), deviation.reshape(shape)).reshape(groups, frames, voxels)
        s = ratio * (x @ basis) - d2
        flat = groups * frames, rank
        near = self.consistency((s - scaled).reshape(flat), scaled.reshape(flat), level.reshape(flat))
        z2 = scaled + near.reshape(groups, frames, rank)

        spread = torch.exp(self.spread[0] + self.spread[1] * torch.log(deviation).mean(dim=2, keepdim=True))
        certainty = spread.square() * ratio.square() + 1
        target = z0 + d0
        missing = z2 + d2 - ratio * (target @ basis)
        x = target + (spread.square() * ratio * missing / certainty) @ basis.transpose(1, 2)
        # Of what was missing 1 / certainty is left: written so, it is no small difference of large numbers.
        return torch.cat([x, d0 + z0 - x, missing / certainty], dim=2)

    def start(self, frames: Frames) -> Tensor:
        """The posterior mean under a white prior, and no multipliers."""
        ratio = frames.singular_values[:, None, :] / frames.noise[..., None]
        scaled = frames.y / frames.noise[..., None]
        x = (ratio / (ratio.square() + 1) * scaled) @ frames.basis.transpose(1, 2)
        return torch.cat([x, torch.zeros_like(x), torch.zeros_like(scaled)], dim=2)

    def images(self, frames: Frames, depth: int) -> Tensor:
        """Images (G, K, N) after ``depth`` Anderson iterations without gradient and some plain ones with."""
        state = self.start(frames)
        given = frames.y, frames.noise, frames.singular_values, frames.basis
        if depth > 0:
            state = self._solve(state, given, depth)
        for _ in range(STEPS_WITH_GRADIENT):
            state = self(state, *given)
        return state[..., : frames.basis.shape[1]]

    @torch.no_grad()
    def _solve(self, start: Tensor, given: tuple[Tensor, ...], iterations: int) -> Tensor:
        def step(flat: Any) -> Any:
            return self(torch.from_numpy(flat).to(start).reshape(start.shape), *given).flatten(0, 1).cpu().numpy()

        found, _, _ = fixed_point(step, start.flatten(0, 1).cpu().numpy(), iterations)
        return torch.from_numpy(found).to(start).reshape(start.shape)
