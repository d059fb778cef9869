"""A whole frame as one torch module, for export: signals in, image and deviation out, the solver's steps unrolled.

It repeats, operation for operation, what `reconstructor.Reconstructor` does by default: DPM-Solver++(2M) with proximal
guidance, then consensus. The NumPy code stays the reference: `parity` compares the two, and writes no bundle if they
differ.

Everything that depends on the noise level of a step is a number when the graph is made (`training.unrolled`).
"""

import itertools
import math

import onnx
import torch
from torch import Tensor, nn

from mpi_fast.consensus import LEVEL
from mpi_fast.denoiser import STRENGTH
from mpi_fast.export.onnx import Graph, checked, to_onnx
from mpi_fast.guidance import CERTAIN, DETECTION, EMPTY, SIGNAL_PER_IMAGE, tweedie
from mpi_fast.schedule import karras_sigmas
from mpi_fast.training.checkpoint import Checkpoint
from mpi_fast.training.network import IMAGE_CHANNELS
from mpi_fast.training.unrolled import Unrolled

OUTPUTS = ("image", "std", "noise_floor")
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
        self._y, self._variance, self._values = y[:, None], noise * noise, singular_values
        self._basis, self._transposed = basis, basis.T
        self.squared = basis.T * basis.T

    def gain(self, spread: float) -> Tensor:
        """``S r^2 / (S^2 r^2 + sigma^2)``, (F, R)."""
        signal = spread * self._values
        return spread * signal / (signal * signal + self._variance)

    def combine(self, mean: Tensor, gain: Tensor) -> Tensor:
        """Mean of N(mean, r^2 I), (F, samples, N), given the signals."""
        residual = (self._y - (mean @ self._basis) * self._values) * gain[:, None]
        return mean + residual @ self._transposed

    def deviation(self, spread: float, gain: Tensor) -> Tensor:
        """Its standard deviation per voxel, (F, N)."""
        explained = (self._values * gain) @ self.squared
        return spread * torch.sqrt(torch.clamp(1.0 - explained, min=1e-6))


class FrameGraph(nn.Module):
    """The general form: one graph for every calibration of a grid.

    Parameters
    ----------
    checkpoint : Checkpoint
        The network.
    steps, samples, consensus : int
        Of the sampler, and of `consensus.agree`; fixed in the graph.
    """

    ordinary_features: Tensor

    def __init__(self, checkpoint: Checkpoint, steps: int, samples: int, consensus: int) -> None:
        super().__init__()
        self.grid = checkpoint.grid
        self.samples, self.voxels = samples, math.prod(checkpoint.grid)
        self.sigmas = [float(sigma) for sigma in karras_sigmas(steps, *checkpoint.sigma_range)[:-1]]
        self.network, self.consensus = Unrolled(checkpoint.network, self.sigmas, samples), consensus
        self.ordinary = Unrolled(checkpoint.network, [LEVEL], samples=1)
        nothing = torch.cat([torch.zeros(1, 1, *self.grid), torch.ones(1, 1, *self.grid)], dim=1)  # mean, deviation
        with torch.no_grad():
            self.register_buffer("ordinary_features", self.network.encode(nothing))

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
            As `reconstructor.Reconstruction` has them.
        """
        noise = noise[:, None]
        scale, presence = self._scale(y, noise, singular_values)
        visible = scale > 0  # a frame of zeros has no scale: its signals stay zero, and so does its image
        unit = torch.where(visible, scale, 1.0)
        level = torch.where(visible, noise / unit, 1.0)
        signals = Signals(y / unit, level, singular_values, basis)
        images = self._sample(signals, initial)

        average = images.mean(dim=1, keepdim=True)
        deviation = torch.sqrt(torch.square(images - average).mean(dim=1))
        agreed = self._agree(signals, average).reshape(-1, self.voxels)
        image = torch.clamp(agreed, min=0.0) * (presence * scale)
        floor = torch.sqrt(torch.square(signals.gain(1.0) * level) @ signals.squared.mean(dim=1, keepdim=True)) * scale
        return image.reshape(-1, *self.grid), (deviation * scale).reshape(-1, *self.grid), floor.reshape(-1)

    @staticmethod
    def _scale(y: Tensor, noise: Tensor, singular_values: Tensor) -> tuple[Tensor, Tensor]:
        """`guidance.signal_scale` and `guidance.signal_presence`, (F, 1); in units of the noise, float32 suffices."""
        spread = torch.sqrt(2.0 * (singular_values > 0).to(y.dtype).sum())  # of the noise's own energy
        relative = y / torch.where(noise > 0, noise, 1.0)
        excess = torch.square(relative).sum(dim=1, keepdim=True) / spread - 0.5 * spread
        power = torch.square(singular_values).sum()
        scale = noise * torch.sqrt(torch.clamp(excess, min=DETECTION) * (spread / power)) / SIGNAL_PER_IMAGE
        return scale, torch.clamp((excess - EMPTY) / (CERTAIN - EMPTY), 0.0, 1.0)

    def _sample(self, signals: Signals, initial: Tensor) -> Tensor:
        """DPM-Solver++(2M), (F, samples, N): see `samplers.dpm_solver_2m`, whose names these are."""
        features = self._encode(signals)
        x = (self.sigmas[0] * initial)[None]  # of one frame: the first evaluation makes the others
        x = x + self._denoise(signals, x, self.sigmas[0], features)  # see `Reconstructor._start`
        previous, h_previous = torch.zeros_like(x), math.inf
        for sigma, sigma_next in itertools.pairwise(self.sigmas):
            denoised = self._denoise(signals, x, sigma, features)
            h = math.log(sigma / sigma_next)
            extrapolation, gain = h / (2.0 * h_previous), -math.expm1(-h)
            x = (sigma_next / sigma) * x + (gain * (1.0 + extrapolation)) * denoised
            if extrapolation > 0:
                x = x - (gain * extrapolation) * previous
            previous, h_previous = denoised, h
        return self._denoise(signals, x, self.sigmas[-1], features)

    def _encode(self, signals: Signals) -> Tensor:
        """Features of the frames, (F, width, ny, nx)."""
        gain = signals.gain(1.0)
        estimate = signals.combine(torch.zeros(1, 1, self.voxels, device=signals.squared.device), gain)
        condition = torch.cat([estimate, signals.deviation(1.0, gain)[:, None]], dim=1)
        return self.network.encode(condition.reshape(-1, 2, *self.grid))

    def _agree(self, signals: Signals, x: Tensor) -> Tensor:
        """See `consensus.agree`; (F, 1, N)."""
        agreed, gain = x, signals.gain(LEVEL)
        shrink, spread = tweedie(LEVEL)
        deviation = torch.full((1, 1, self.voxels), spread, device=x.device)
        for _ in range(self.consensus):
            denoised = self._evaluate(self.ordinary, 0, shrink * x, deviation, x, LEVEL, self.ordinary_features)
            agreed = signals.combine(2.0 * denoised - x, gain)
            x = x + agreed - denoised
        return agreed

    def _denoise(self, signals: Signals, x: Tensor, sigma: float, features: Tensor) -> Tensor:
        """D(x; sigma | y), (F, samples, N), with the signals before and after the network."""
        shrink, spread = tweedie(sigma)
        gain = signals.gain(spread)
        estimate, deviation = signals.combine(shrink * x, gain), signals.deviation(spread, gain)[:, None]
        number = self.sigmas.index(sigma)
        denoised = self._evaluate(self.network, number, estimate, deviation, x, sigma, features)
        return signals.combine(denoised, signals.gain(STRENGTH * spread))

    def _evaluate(
        self,
        network: Unrolled,
        number: int,
        estimate: Tensor,
        deviation: Tensor,
        x: Tensor,
        sigma: float,
        features: Tensor,
    ) -> Tensor:
        """The network's evaluation of this number, (F, samples of the network, N)."""
        c_in = 1.0 / math.sqrt(1.0 + sigma * sigma)
        planes = [estimate, (0.5 * torch.log(deviation)).expand_as(estimate), (c_in * x).expand_as(estimate)]
        image = torch.stack(planes, dim=2).reshape(-1, IMAGE_CHANNELS, *self.grid)
        correction: Tensor = network(image, features, network.modulations(number))
        return estimate + deviation * correction.reshape(-1, network.samples, self.voxels)


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
