"""The sampler's loop in NumPy: the reference for the other pipelines, and the one for any sampler and engine."""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.blas import single_blas_thread
from mpi_fast.calibration import Calibration
from mpi_fast.consensus import agree, level_of, settle, share_of, spread_about, width_of
from mpi_fast.denoiser import ConditionedDenoiser, Evaluator
from mpi_fast.engines import Engine
from mpi_fast.guidance import Likelihood, signal_presence, signal_scale
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Array, Frames, Sampling, in_batches
from mpi_fast.samplers import Noise, get_sampler
from mpi_fast.schedule import SDES

IMAGES = 64  # that the network denoises at once: enough to fill a CPU, few enough to stay in its cache


class StepLoop:
    """Reduce the signals, find noise level and scale, draw posterior samples, let them agree on an image.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    sampling : Sampling
        How to sample.
    sigma_range : (float, float)
        Noise levels that the network was trained for.
    engine : Engine
        The network.
    """

    def __init__(
        self, calibration: Calibration, sampling: Sampling, sigma_range: tuple[float, float], engine: Engine
    ) -> None:
        self.name = f"{engine.name}, step by step"
        self._batch = max(1, IMAGES // sampling.samples)
        self._calibration, self._sampling, self._engine = calibration, sampling, engine
        self._sampler = get_sampler(sampling.sampler)
        self._sde = SDES[sampling.sde](*sigma_range)
        self._evaluators: dict[int, Evaluator] = {}
        self._denoisers: dict[int, ConditionedDenoiser] = {}
        self._initial = mirrored_normal(sampling.seed, sampling.samples, calibration.num_voxels)
        self._explained = np.square(calibration.basis).mean(axis=0)

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        # BLAS gets one thread: its products are small here, and its waiting threads would starve the network's.
        with single_blas_thread():
            return in_batches(self._reconstruct, rows, self._batch, self._calibration.num_voxels)

    def _reconstruct(self, rows: NDArray[np.complex64]) -> Frames:
        calibration = self._calibration
        reduced = calibration.reduce(rows)
        scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
        # A frame of zeros has no scale: its signals stay zero, and so does its image.
        unit = np.where(scale > 0, scale, np.float32(1))
        noise = np.where(scale > 0, reduced.noise / unit, np.float32(1)).astype(np.float32)
        y = (reduced.y / unit[:, None]).astype(np.float32, copy=False)
        likelihood = Likelihood(y, calibration.singular_values, calibration.basis, noise)

        images = self.sample(likelihood)
        settled = images.mean(axis=1)
        if self._sampling.consensus:
            agreed = agree(self._ordinary(len(rows)), likelihood, settled, self._sampling.consensus, calibration.grid)
            level = level_of(likelihood)
            settled, deviation = settle(images, agreed, share_of(level), width_of(level))
        else:
            deviation = spread_about(settled, images)
        presence = signal_presence(reduced.y, reduced.noise)
        image = np.maximum(settled, 0.0) * (presence * scale)[:, None]
        return Frames(
            image, deviation * scale[:, None], reduced.snr_db, likelihood.noise_floor(self._explained) * scale
        )

    def sample(self, likelihood: Likelihood) -> Array:
        """Posterior samples (F, samples, N), for images of root-mean-square about one."""
        frames = len(likelihood.y)
        if frames not in self._evaluators:
            self._evaluators[frames] = self._engine.bind(frames, self._sampling.samples)
        denoise = ConditionedDenoiser(
            likelihood, self._evaluators[frames], self._sampling.guidance, self._sampling.strength
        )
        sampled = self._sampler(denoise, self._start(denoise, frames), self._sampling.steps, self._sde)
        return np.asarray(sampled.reshape(frames, self._sampling.samples, -1), dtype=np.float32)

    def _ordinary(self, frames: int) -> ConditionedDenoiser:
        """The network as a denoiser of images of which no signals are known."""
        if frames not in self._denoisers:
            nothing = Likelihood.of_nothing(frames, self._calibration.num_voxels)
            self._denoisers[frames] = ConditionedDenoiser(nothing, self._engine.bind(frames, 1), "none")
        return self._denoisers[frames]

    def _start(self, denoise: ConditionedDenoiser, frames: int) -> Noise:
        """The sampler's noise, the first draw of which makes it start from the image, too.

        A noisy image is ``x + sigma n``, and even at the largest sigma what is left of x steers the samples: started
        from noise alone they end up too faint. So the first evaluation is spent on the posterior mean, in place of x.
        """
        sigma = self._sde.sigma_max
        noise = self._draw(0, frames)
        first = noise + denoise(np.float32(sigma) * noise, sigma) / np.float32(sigma)
        return lambda draw: self._draw(draw, frames) if draw else first

    def _draw(self, draw: int, frames: int) -> Array:
        """Noise (frames * samples, N), the same for every frame."""
        if draw == 0:
            return np.tile(self._initial, (frames, 1))
        noise = mirrored_normal(self._sampling.seed, self._sampling.samples, self._calibration.num_voxels, draw)
        return np.tile(noise, (frames, 1))
