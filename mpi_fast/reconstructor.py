"""Reconstructor: signals in, concentration images out, with their uncertainty.

    cal = Calibration.from_mdf("sm.mdf")
    rec = Reconstructor(cal)
    out = rec(signals)          # out.image, out.std: (frames, ny, nx) in the calibration's concentration unit
    for out in rec.stream(chunks): ...

Per frame: reduce the signals, find noise level and scale, draw posterior samples, and return their mean and deviation.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration, ReducedFrames
from mpi_fast.denoiser import GUIDANCE, STRENGTH, ConditionedDenoiser, Evaluator, Guidance
from mpi_fast.engines import Engine
from mpi_fast.engines.frame import FrameEngine
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.guidance import Likelihood, signal_presence, signal_scale
from mpi_fast.philox import standard_normal
from mpi_fast.samplers import SAMPLERS, Noise, get_sampler
from mpi_fast.schedule import SDES

Array = NDArray[np.float32]
BATCH = 64  # images that the network denoises at once: enough to fill a CPU, few enough to stay in its cache


@dataclass(frozen=True)
class Reconstruction:
    """Images of F frames.

    Attributes
    ----------
    image : (F, ny, nx) float32
        Posterior mean of the concentration, not negative, in the unit of the calibration's delta sample. Zero for
        frames whose signals noise alone explains (`guidance.signal_presence`).
    std : (F, ny, nx) float32
        Standard deviation of the posterior samples: where the image is a guess. Zero for a single sample.
    snr_db : (F,) float32
        Signal-to-noise ratio found, ``20 log10(||signal|| / ||noise||)`` over the whitened rows.
    noise_floor : (F,) float32
        Root-mean-square over the voxels of what the frame's noise alone would leave in a linear estimate.
    elapsed_ms : float
        Wall-clock time of the call per frame.
    """

    image: Array
    std: Array
    snr_db: Array
    noise_floor: Array
    elapsed_ms: float

    def __len__(self) -> int:
        return len(self.image)


class Reconstructor:
    """Reconstructs frames of one scanner.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    model : str or Path
        A bundle, or ``default``.
    samples : int
        Posterior samples per frame, averaged into the image.
    steps : int, optional
        Steps of the sampler; default: the sampler's own (5 for ``dpm``). The start costs one more evaluation.
    device : str
        ``auto`` or ``cpu``.
    seed : int
        Of the samplers' noise. Every frame is sampled from the same noise: the image of a frame does not depend on what
        is reconstructed with it, and a still object gives a still picture.
    sampler : str
        ``dpm``, ``heun``, ``euler-maruyama`` or ``predictor-corrector``.
    sde : str
        ``ve``, ``vp`` or ``sub-vp``; the deterministic samplers run on the noise levels of ``ve`` whatever it is.
    guidance : str
        ``proximal``, ``gradient`` or ``none``: see `denoiser.ConditionedDenoiser`.
    strength : float
        Of the guidance.
    threads : int, optional
        Threads that the network may use; default all.
    engine : Engine, optional
        Evaluates the network, step by step, instead of ONNX Runtime; the bundle then says only what it was trained for.
        Without it, ``dpm`` with proximal guidance of default strength runs as one graph where the bundle has one for
        these steps and samples; that changes the time it takes, not the images.

    Raises
    ------
    InputError
        For options out of range.
    MismatchError
        For a model of another grid than the calibration's.
    ModelError
        For a broken bundle.
    """

    def __init__(
        self,
        calibration: Calibration,
        model: str | Path = "default",
        samples: int = 8,
        steps: int | None = None,
        device: str = "auto",
        seed: int = 0,
        *,
        sampler: str = "dpm",
        sde: str = "ve",
        guidance: Guidance = "proximal",
        strength: float = STRENGTH,
        threads: int | None = None,
        engine: Engine | None = None,
    ) -> None:
        for name, value, known in (
            ("device", device, ("auto", "cpu")),
            ("sampler", sampler, tuple(SAMPLERS)),
            ("sde", sde, tuple(SDES)),
            ("guidance", guidance, GUIDANCE),
        ):
            if value not in known:
                raise InputError(f"{name} '{value}': expected one of {', '.join(known)}")
        if samples < 1 or (steps is not None and steps < 1) or (threads is not None and threads < 1) or seed < 0:
            raise InputError(
                f"samples {samples}, steps {steps}, threads {threads}, seed {seed}: expected positive numbers"
            )
        bundle = Bundle.open(model)
        if bundle.grid != calibration.grid:
            raise MismatchError(
                f"{bundle.path}: a model for {bundle.grid[0]} x {bundle.grid[1]} voxels, but the calibration has "
                f"{calibration.grid[0]} x {calibration.grid[1]}; train one with mpi-fast train --grid"
            )
        self.calibration, self.bundle = calibration, bundle
        self.samples, self.seed = samples, seed
        self.guidance: Guidance = guidance
        self.strength = strength
        self._sampler = get_sampler(sampler)
        self.steps = steps or self._sampler.default_steps
        self._sde = SDES[sde](*bundle.sigma_range)
        self._evaluators: dict[int, Evaluator] = {}
        self._noise: Array | None = None
        self._lock = threading.Lock()  # the engine's buffers serve one call at a time
        self._blas = ThreadpoolController()
        self._engine: Engine | None = engine
        self._frame: FrameEngine | None = None
        graph = None
        if engine is None and (sampler, guidance, strength) == ("dpm", "proximal", STRENGTH):
            graph = bundle.frame_graph(self.steps, samples)
        if graph:
            self._frame = FrameEngine(bundle, graph, calibration, self._draw(0, 1), threads)
        elif engine is None:
            self._engine = OnnxEngine(bundle, threads)
        self._explained = np.square(calibration.basis)

    def __call__(self, signals: NDArray[Any]) -> Reconstruction:
        """Reconstruct frames.

        Parameters
        ----------
        signals : (F, C, V) real volts, (F, C, K) complex spectra, or (F, M) complex selected rows
            Background-corrected, see `Calibration.rows`.

        Raises
        ------
        InputError, MismatchError
            For NaN or Inf, and shapes that do not fit the calibration.
        """
        began = time.perf_counter()
        rows = self.calibration.rows(signals)
        size = max(1, BATCH // self.samples)
        image = np.empty((len(rows), self.calibration.num_voxels), dtype=np.float32)
        std, snr_db, floor = np.empty_like(image), *np.empty((2, len(rows)), dtype=np.float32)
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            # BLAS gets one thread: its products are small here, and its waiting threads would starve the network's.
            with self._lock, self._blas.limit(limits=1, user_api="blas"):
                image[part], std[part], snr_db[part], floor[part] = self._reconstruct(rows[part])
        elapsed = 1e3 * (time.perf_counter() - began) / max(len(rows), 1)
        shape = (-1, *self.calibration.grid)
        return Reconstruction(image.reshape(shape), std.reshape(shape), snr_db, floor, elapsed)

    def stream(self, frames: Iterable[NDArray[Any]]) -> Iterator[Reconstruction]:
        """Reconstruct chunk after chunk of frames, each as `__call__` takes them, in constant memory."""
        for signals in frames:
            yield self(signals)

    def _reconstruct(self, rows: NDArray[np.complex64]) -> tuple[Array, Array, Array, Array]:
        """Image, deviation (F, N), SNR and noise floor (F,) of a batch of rows (F, M)."""
        reduced = self.calibration.reduce(rows)
        if self._frame:
            image, std, floor = self._frame(reduced.y, reduced.noise)
        else:
            image, std, floor = self._step_by_step(reduced)
        return image, std, reduced.snr_db, floor

    def _step_by_step(self, reduced: ReducedFrames) -> tuple[Array, Array, Array]:
        """Image, deviation (F, N) and noise floor (F,), with the sampler's loop outside the engine."""
        assert self._engine is not None
        calibration, frames = self.calibration, len(reduced.y)
        scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
        # A frame of zeros has no scale: its signals stay zero, and so does its image.
        unit = np.where(scale > 0, scale, np.float32(1))
        noise = np.where(scale > 0, reduced.noise / unit, np.float32(1)).astype(np.float32)
        y = (reduced.y / unit[:, None]).astype(np.float32, copy=False)
        likelihood = Likelihood(y, calibration.singular_values, calibration.basis, noise)

        if frames not in self._evaluators:
            self._evaluators[frames] = self._engine.bind(frames, self.samples)
        denoise = ConditionedDenoiser(likelihood, self._evaluators[frames], self.guidance, self.strength)
        sampled = self._sampler(denoise, self._start(denoise, frames), self.steps, self._sde)
        images = sampled.reshape(frames, self.samples, -1)
        presence = signal_presence(reduced.y, reduced.noise)
        mean = np.maximum(images.mean(axis=1), 0.0) * (presence * scale)[:, None]
        # Mirrored samples have, to first order, their true mean: no degree of freedom is lost to it.
        deviation = images.std(axis=1) * scale[:, None]
        return mean, deviation, self._noise_floor(likelihood) * scale

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
        if draw > 0:  # only the first draw is used by every call
            noise = initial_noise(self.seed, self.samples, self.calibration.num_voxels, draw)
            return np.tile(noise, (frames, 1))
        if self._noise is None:
            self._noise = initial_noise(self.seed, self.samples, self.calibration.num_voxels)
        return np.tile(self._noise, (frames, 1))

    def _noise_floor(self, likelihood: Likelihood) -> Array:
        """Root-mean-square over voxels of the condition image's noise, for images of root-mean-square one, (F,)."""
        gain = likelihood.gain(1.0) * likelihood.noise[:, None]
        return np.asarray(np.sqrt(np.square(gain) @ self._explained.mean(axis=0)), dtype=np.float32)


def initial_noise(seed: int, samples: int, voxels: int, draw: int = 0) -> Array:
    """Standard-normal noise (samples, N) of a draw, the second half of the samples mirroring the first.

    Mirrored (antithetic) noise makes the error of the mean smaller at no cost: whatever in an image is odd in the
    noise cancels exactly.
    """
    half = (samples + 1) // 2
    drawn = standard_normal(seed, np.zeros(1, np.int64), half, draw, voxels)[0]
    return np.concatenate([drawn, -drawn])[:samples]
