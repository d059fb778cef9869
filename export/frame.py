"""A whole frame as one torch module, for export: signals in, image and deviation out, the solver's steps unrolled.

It repeats, operation for operation, what `reconstructor.Reconstructor` does by default: DPM-Solver++(2M) with proximal
guidance, then consensus. The NumPy code stays the reference: `parity` compares the two, and writes no bundle if they
differ.

Everything that depends on the noise level of a sampler's step is a number when the graph is made
(`training.unrolled`); the levels of consensus follow the frame's own noise.
"""

import itertools
import math
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn

from mpi_fast.consensus import DAMPING, DOUBTFUL, HIGHEST, LEAST, LEVEL, LOWEST, NOISY, SHARE, WIDENING, falling
from mpi_fast.denoiser import STRENGTH
from mpi_fast.export.onnx import Graph, checked, to_onnx
from mpi_fast.export.posterior import scale_and_presence
from mpi_fast.export.shared import Shared
from mpi_fast.guidance import (
    CONDITION_CHANNELS,
    WIDTHS,
    Likelihood,
)
from mpi_fast.schedule import karras_sigmas
from mpi_fast.symmetry import symmetries
from mpi_fast.training.checkpoint import Checkpoint
from mpi_fast.training.network import IMAGE_CHANNELS, Modulation
from mpi_fast.training.unrolled import Unrolled

OUTPUTS = ("image", "std", "noise_floor")
FRAMES = {0: "frames"}
AXES = {
    **dict.fromkeys(("x", "denoised", "level", "spread", "kept", "features"), FRAMES),
    "y": {0: "frames", 1: "rank"},
    "noise": {0: "frames"},
    "singular_values": {0: "rank"},
    "basis": {1: "rank"},
}
Images = tuple[Tensor, Tensor, Tensor]


class Signals:
    """`guidance.Likelihood` for tensors.

    Parameters
    ----------
    y : (F, R)
        Reduced signals, for images of root-mean-square one.
    noise : (F, 1)
        Noise standard deviation of each frame, positive.
    singular_values, basis : (R,), (N, R)
        Of the calibration; columns of zeros with a singular value of zero say nothing and change nothing.
    """

    def __init__(self, y: Tensor, noise: Tensor, singular_values: Tensor, basis: Tensor) -> None:
        self.tensors = y, noise, singular_values, basis
        self._y, self._variance, self._values = y[:, None], noise * noise, singular_values
        self._basis, self._transposed = basis, basis.T
        self.squared = basis.T * basis.T

    def gain(self, spread: float | Tensor) -> Tensor:
        """``S r^2 / (S^2 r^2 + sigma^2)``, (F, R)."""
        signal = spread * self._values
        return spread * signal / (signal * signal + self._variance)

    def combine(self, mean: Tensor, gain: Tensor) -> Tensor:
        """Mean of N(mean, r^2 I), (F, samples, N), given the signals."""
        residual = (self._y - (mean @ self._basis) * self._values) * gain[:, None]
        return mean + residual @ self._transposed

    def deviation(self, spread: float | Tensor, gain: Tensor) -> Tensor:
        """Its standard deviation per voxel, (F, N)."""
        explained = (self._values * gain) @ self.squared
        return spread * torch.sqrt(torch.clamp(1.0 - explained, min=1e-6))

    def condition(self, widths: Tensor) -> Tensor:
        """What the signals alone say under white priors of widths (W, 1): means, then deviations, (F, 2 W, N)."""
        signal = widths * self._values
        gains = widths * signal / (signal * signal + self._variance[:, None])
        means, explained = (gains * self._y) @ self._transposed, (self._values * gains) @ self.squared
        return torch.cat([means, widths * torch.sqrt(torch.clamp(1.0 - explained, min=1e-6))], dim=1)


class Guided(nn.Module):
    """D(x; sigma | y): see `denoiser.ConditionedDenoiser`.

    Parameters
    ----------
    network : Unrolled
        For the samples of a frame.
    grid : (ny, nx)
        Image size.
    """

    def __init__(self, network: Unrolled, grid: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.grid = network, grid

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        modulations: Sequence[Modulation],
        features: Tensor,
        y: Tensor,
        noise: Tensor,
        singular_values: Tensor,
        basis: Tensor,
    ) -> Tensor:
        """Images (F, samples, N) at noise level sigma (), with its modulations; the others as in `Signals`."""
        signals = Signals(y, noise, singular_values, basis)
        shrink = 1.0 / (1.0 + sigma * sigma)  # guidance.tweedie
        spread = sigma * torch.sqrt(shrink)
        gain = signals.gain(spread)
        estimate, deviation = signals.combine(shrink * x, gain), signals.deviation(spread, gain)[:, None]
        visible = (0.5 * torch.log(deviation)).expand(-1, self.network.samples, -1)
        planes = estimate, visible, torch.sqrt(shrink) * x
        denoised = estimate + deviation * correct(self.network, self.grid, planes, features, modulations)
        return signals.combine(denoised, signals.gain(STRENGTH * spread))


class Ordinary(nn.Module):
    """D(x; sigma) of images of which no signals are known.

    Parameters
    ----------
    network : Unrolled
        For one image of each frame.
    grid : (ny, nx)
        Image size.
    """

    features: Tensor

    def __init__(self, network: Unrolled, grid: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.grid = network, grid
        nothing = torch.from_numpy(Likelihood.of_nothing(1, math.prod(grid)).condition())
        with torch.no_grad():
            self.register_buffer("features", network.encode(nothing.reshape(1, CONDITION_CHANNELS, *grid)))

    def forward(self, x: Tensor, level: Tensor, modulations: Sequence[Modulation]) -> Tensor:
        """Images (F, 1, N), each at its noise level (F, 1), with the modulations of these."""
        sigma = level[:, None]
        shrink = 1.0 / (1.0 + sigma * sigma)  # guidance.tweedie
        spread = sigma * torch.sqrt(shrink)
        estimate = shrink * x
        visible = (0.5 * torch.log(spread)).expand(-1, -1, x.shape[2])
        planes = estimate, visible, torch.sqrt(shrink) * x
        return estimate + spread * correct(self.network, self.grid, planes, self.features, modulations)


class Agreement(nn.Module):
    """What a step towards consensus makes of x and D: see `consensus.agree`, whose names these are."""

    def __init__(self, ratio: float) -> None:
        super().__init__()
        self.ratio = ratio

    def forward(
        self,
        x: Tensor,
        denoised: Tensor,
        spread: Tensor,
        kept: Tensor,
        y: Tensor,
        noise: Tensor,
        singular_values: Tensor,
        basis: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The next x, and what is agreed on, (F, 1, N); spread and kept (F, 1), the others as in `Signals`."""
        signals = Signals(y, noise, singular_values, basis)
        multiplier = kept[:, None] * (x - denoised)
        agreed = signals.combine(denoised - multiplier, signals.gain(spread))
        return agreed + self.ratio * multiplier, agreed


def correct(
    network: Unrolled,
    grid: tuple[int, int],
    planes: tuple[Tensor, Tensor, Tensor],
    features: Tensor,
    modulations: Sequence[Modulation],
) -> Tensor:
    """The network's correction, from the planes of its input: (F, samples, N) each, as it is."""
    image = torch.stack(planes, dim=2).reshape(-1, IMAGE_CHANNELS, *grid)
    correction: Tensor = network(image, features, modulations)
    return correction.reshape(-1, network.samples, math.prod(grid))


class FrameGraph(nn.Module):
    """The general form: one graph for every calibration of a grid.

    Parameters
    ----------
    checkpoint : Checkpoint
        The network.
    steps, samples, consensus : int
        Of the sampler, and of `consensus.agree`; fixed in the graph.
    """

    levels: Tensor
    widths: Tensor
    factors: Tensor
    place_of: Tensor
    voxel_at: Tensor

    def __init__(self, checkpoint: Checkpoint, steps: int, samples: int, consensus: int) -> None:
        super().__init__()
        self.grid, self.samples, self.consensus = checkpoint.grid, samples, consensus
        self.voxels = math.prod(checkpoint.grid)
        self.sigmas = [float(sigma) for sigma in karras_sigmas(steps, *checkpoint.sigma_range)[:-1]]
        self.register_buffer("levels", torch.tensor(self.sigmas))
        self.register_buffer("widths", torch.tensor(WIDTHS)[:, None])
        self.network = Unrolled(checkpoint.network, self.sigmas, samples)
        alone = Unrolled(checkpoint.network, [], samples=1)
        self.network.body = alone.body = Shared("network", self.network.body, {"x": {0: "images"}})
        self.guided = Shared("guided", Guided(self.network, self.grid), AXES)
        self.ordinary = Shared("ordinary", Ordinary(alone, self.grid), AXES)
        factors, ratio = falling(consensus)
        self.register_buffer("factors", torch.from_numpy(factors))
        self.register_buffer("place_of", torch.from_numpy(symmetries(self.grid).copy()))  # each voxel, when shown
        self.register_buffer("voxel_at", self.place_of.argsort(dim=1))  # each place
        self.agreement = Shared("agreement", Agreement(ratio), AXES, count=2)

    def forward(self, y: Tensor, noise: Tensor, singular_values: Tensor, basis: Tensor, initial: Tensor) -> Images:
        """Reconstruct frames.

        Parameters
        ----------
        y : (F, R) float32
            Reduced signals (`Calibration.reduce`), padded with zeros to R.
        noise : (F,) float32
            Their noise level; zero for a frame of zeros.
        singular_values, basis : (R,), (N, R) float32
            S and V of the calibration, padded with zeros to R.
        initial : (samples, N) float32
            Standard-normal noise, the same for every frame.

        Returns
        -------
        image, std, floor : (F, ny, nx), (F, ny, nx), (F,) float32
            As `reconstruction.Reconstruction` has them.
        """
        noise = noise[:, None]
        scale, presence = scale_and_presence(y, noise, singular_values)
        visible = scale > 0  # a frame of zeros has no scale: its signals stay zero, and so does its image
        unit = torch.where(visible, scale, 1.0)
        level = torch.where(visible, noise / unit, 1.0)
        signals = Signals(y / unit, level, singular_values, basis)
        images = self._sample(signals, initial)

        settled, deviation = self._settle(signals, images)
        image = torch.clamp(settled, min=0.0) * (presence * scale)
        floor = torch.sqrt(torch.square(signals.gain(1.0) * level) @ signals.squared.mean(dim=1, keepdim=True)) * scale
        return image.reshape(-1, *self.grid), (deviation * scale).reshape(-1, *self.grid), floor.reshape(-1)

    def _sample(self, signals: Signals, initial: Tensor) -> Tensor:
        """DPM-Solver++(2M), (F, samples, N): see `samplers.dpm_solver_2m`, whose names these are."""
        features = self._encode(signals)
        x = (self.sigmas[0] * initial).expand(features.shape[0], *initial.shape)
        x = x + self._denoise(signals, x, 0, features)  # see `Reconstructor._start`
        previous, h_previous = torch.zeros_like(x), math.inf
        for number, (sigma, sigma_next) in enumerate(itertools.pairwise(self.sigmas)):
            denoised = self._denoise(signals, x, number, features)
            h = math.log(sigma / sigma_next)
            extrapolation, gain = h / (2.0 * h_previous), -math.expm1(-h)
            x = (sigma_next / sigma) * x + (gain * (1.0 + extrapolation)) * denoised
            if extrapolation > 0:
                x = x - (gain * extrapolation) * previous
            previous, h_previous = denoised, h
        return self._denoise(signals, x, len(self.sigmas) - 1, features)

    def _encode(self, signals: Signals) -> Tensor:
        """Features of the frames, (F, width, ny, nx)."""
        condition = signals.condition(self.widths)
        return self.network.encode(condition.reshape(-1, CONDITION_CHANNELS, *self.grid))

    def _denoise(self, signals: Signals, x: Tensor, number: int, features: Tensor) -> Tensor:
        """D(x; sigmas[number] | y)."""
        modulations = self.network.modulations(number)
        denoised: Tensor = self.guided(x, self.levels[number], modulations, features, *signals.tensors)
        return denoised

    def _settle(self, signals: Signals, images: Tensor) -> tuple[Tensor, Tensor]:
        """The image, not yet cut at zero, and its deviation, (F, N): see `consensus.settle`."""
        mean = images.mean(dim=1, keepdim=True)
        if not self.consensus:
            return mean[:, 0], _spread_about(mean, images)
        _, noise, singular_values, _ = signals.tensors
        ratio = noise * torch.sqrt(self.voxels / torch.square(singular_values).sum())
        level = torch.clamp(LEVEL * torch.sqrt(ratio), LOWEST, HIGHEST)  # consensus.level_of
        share = SHARE * torch.clamp(level - DOUBTFUL, min=0.0)  # consensus.share_of
        agreed = self._agree(signals, mean, level)
        middle = agreed + share[:, None] * (mean - agreed)
        apart, settled = _spread_about(middle, images), middle[:, 0]
        return settled, (LEAST + level) * torch.sqrt(apart * (apart + torch.clamp(settled, min=0.0)))

    def _agree(self, signals: Signals, x: Tensor, level: Tensor) -> Tensor:
        """See `consensus.agree`; x and the result (F, 1, N), level (F, 1)."""
        widening = 1.0 + WIDENING * torch.clamp(level - DOUBTFUL, min=0.0)  # consensus.widening_of
        kept = 1.0 - DAMPING * torch.clamp(level - NOISY, min=0.0)  # consensus.kept_of
        sigmas = level * self.factors
        modulations = [
            [part.reshape(-1, self.consensus, *part.shape[1:]) for part in pair]
            for pair in self.network.denoiser.modulations(sigmas.flatten())
        ]
        agreed = x
        for number in range(self.consensus):
            sigma = sigmas[:, number : number + 1]
            these = [(gain[:, number], shift[:, number]) for gain, shift in modulations]
            symmetry = number % len(self.place_of)
            shown = x.index_select(2, self.voxel_at[symmetry])
            denoised = self.ordinary(shown, sigma, these).index_select(2, self.place_of[symmetry])
            x, agreed = self.agreement(x, denoised, widening * sigma, kept, *signals.tensors)
        return agreed


def _spread_about(image: Tensor, samples: Tensor) -> Tensor:
    """`consensus.spread_about`: of samples (F, S, N) from an image (F, 1, N), (F, N)."""
    return torch.sqrt(torch.square(samples - image).mean(dim=1))


def frame_inputs(checkpoint: Checkpoint, samples: int, frames: int, rank: int) -> dict[str, Tensor]:
    """Inputs of the graph, for examples."""
    voxels = math.prod(checkpoint.grid)
    return {
        "y": torch.ones(frames, rank),
        "noise": torch.ones(frames),
        "singular_values": torch.ones(rank),
        "basis": torch.ones(voxels, rank),
        "initial": torch.zeros(samples, voxels),
    }


def frame_onnx(checkpoint: Checkpoint, steps: int, samples: int, consensus: int) -> Graph:
    """The general graph, its axes of frames and of R free; `fixed_rank` makes it what a bundle holds."""
    inputs = frame_inputs(checkpoint, samples, frames=2, rank=2)
    axes = {"y": {0: "frames", 1: "rank"}, "noise": {0: "frames"}, "singular_values": {0: "rank"}, "basis": {1: "rank"}}
    return to_onnx(FrameGraph(checkpoint, steps, samples, consensus), inputs, OUTPUTS, axes)


def fixed_rank(graph: Graph, rank: int) -> Graph:
    """The same graph for signals padded to R = rank, which leaves no axis free but that of frames."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.value_info[:]
    for value in model.graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == "rank":
                axis.dim_value = rank
    return Graph(checked(onnx.shape_inference.infer_shapes(model, strict_mode=True)), graph.nodes_before)
