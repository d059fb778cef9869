"""The network as an ONNX graph on ONNX Runtime, from reduced signals to image and uncertainty, on any grid.

The convolutions of a plane are too small to be shared by threads. So each plane is computed by one thread, whose speed
does not depend on the load of other cores, and the frames of a batch are distributed over as many threads as there are
cores. Small batches are divided equally among the threads, and large ones into parts of a fixed size. The slices of a
volume already form a batch, which all threads share.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.blas import single_blas_thread
from mpi_fast.bundle import PLANE, VOLUME, Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.onnx import BoundSession, session
from mpi_fast.grids import is_plane
from mpi_fast.likelihood import Likelihood, signal_scale
from mpi_fast.limits import EVALUATIONS
from mpi_fast.machine import cores
from mpi_fast.philox import standard_normal
from mpi_fast.pipelines import Array, Frames, Sampling, in_batches
from mpi_fast.refinement import own_precision
from mpi_fast.samplers import get_sampler
from mpi_fast.schedule import SDES
from mpi_fast.uncertainty import LEVELS

VOXELS = 16 * 361  # voxels of a part: larger parts are not faster, and leave threads idle at the end of a batch
# Reduced signals of a frame and their noise, with signal beyond doubt (`likelihood.CERTAIN`).
PRESENT, PRESENT_NOISE = np.full(1, 10.0, np.float32), np.ones(1, np.float32)


class PosteriorGraph:
    """The graph of a bundle, with the tensors of one calibration bound to it, as a `Pipeline`.

    Parameters
    ----------
    calibration : Calibration
        Calibration of a plane or a volume.
    bundle : Bundle
        Bundle of the network.
    evaluations : int
        Evaluations of the network for each frame, see `refinement`.
    threads : int, optional
        Threads to compute with; by default as many as cores that this process may use.
    gpu : int, optional
        CUDA device to run on instead of the CPU.

    Raises
    ------
    MPIFastError
        If ONNX Runtime is not installed.
    ModelError
        If ONNX Runtime refuses the graph, or the graph has other inputs.
    """

    def __init__(
        self,
        calibration: Calibration,
        bundle: Bundle,
        evaluations: int = EVALUATIONS,
        threads: int | None = None,
        gpu: int | None = None,
    ) -> None:
        times = "1 evaluation" if evaluations == 1 else f"{evaluations} evaluations"
        self.name = f"ONNX Runtime on {'the CPU' if gpu is None else f'cuda:{gpu}'}, {times} a frame"
        self._evaluations = evaluations
        threads, planar = cores() if threads is None else threads, is_plane(calibration.grid)
        self._session = _opened(bundle, planar, 1 if planar else threads, gpu)
        self._threads = threads if planar and gpu is None else 1  # threads that compute parts of a batch
        self._pool = ThreadPoolExecutor(threads) if self._threads > 1 else None
        self._calibration = calibration
        self._batch = max(1, VOXELS // calibration.num_voxels)
        self._grid = (1,) * (3 - len(calibration.grid)) + calibration.grid
        basis = np.ascontiguousarray(calibration.basis.reshape(*self._grid, calibration.rank))
        self._scanner = {"singular_values": np.ascontiguousarray(calibration.singular_values), "basis": basis}
        self._sigma_range = bundle.sigma_range
        self._energy = np.square(calibration.basis).mean(axis=0)
        self._buffers = _OfThread()

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        # BLAS gets one thread, because its waiting threads would slow down those of the graph.
        with single_blas_thread():
            size = max(1, min(self._batch, -(-len(rows) // self._threads)))
            return in_batches(self._reconstruct, rows, size, self._calibration.num_voxels, self._pool)

    def _reconstruct(self, rows: NDArray[np.complex64]) -> Frames:
        calibration, frames = self._calibration, len(rows)
        reduced = calibration.reduce(rows)
        bound = self._buffers.by_frames
        if frames not in bound:
            bound[frames] = _Buffers(frames, self._grid, self._session, self._scanner)
        buffers = bound[frames]
        scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
        buffers.y[:], buffers.noise[:] = reduced.y, reduced.noise
        buffers.noisy[:], buffers.precision[:] = 0, 0
        buffers.run()
        for _ in range(self._evaluations - 1):
            buffers.noisy[:] = buffers.image
            buffers.precision[:] = own_precision(buffers.std.reshape(frames, -1), scale)
            buffers.run()

        noise = np.where(scale > 0, reduced.noise / np.where(scale > 0, scale, 1), 1).astype(np.float32)
        likelihood = Likelihood(reduced.y, calibration.singular_values, calibration.basis, noise)
        floor = scale * likelihood.noise_floor(self._energy)
        image, std = buffers.image.reshape(frames, -1), buffers.std.reshape(frames, -1)
        return Frames(image, std, reduced.snr_db, floor, buffers.quantiles)

    def samples(self, rows: NDArray[np.complex64], sampling: Sampling) -> Array:
        """Draw samples of the posterior distribution, (F, samples, N): images that explain the signals.

        The noise is the same for every frame. Samplers start at ``D + sigma_max n``, because even at sigma_max the
        image in this state affects the samples.
        """
        sampler, sde = get_sampler(sampling.sampler), SDES[sampling.sde](*self._sigma_range)
        voxels = self._calibration.num_voxels
        images = np.zeros((len(rows), sampling.samples, voxels), np.float32)
        with single_blas_thread():
            reduced = self._calibration.reduce(rows)
        scales = signal_scale(reduced.y, self._calibration.singular_values, reduced.noise)
        buffers = _Buffers(sampling.samples, self._grid, self._session, self._scanner)
        for index in np.flatnonzero(scales > 0):
            denoise = Denoiser(buffers, reduced.y[index], reduced.noise[index], scales[index])

            def noise(draw: int, denoise: Denoiser = denoise) -> Array:
                drawn = standard_normal(sampling.seed, sampling.samples, draw, voxels)
                return np.asarray(drawn if draw else drawn + denoise(0 * drawn, np.inf) / np.float32(sde.sigma_max))

            images[index] = sampler(denoise, noise, sde, sampling.steps) * scales[index]
        return images


class Denoiser:
    """D(x_t; sigma_t | y) of one frame's signals, for images in units of its scale; see `samplers.Denoiser`."""

    def __init__(self, buffers: "_Buffers", y: Array, noise: np.float32, scale: np.float32) -> None:
        self._buffers, self._scale = buffers, scale
        buffers.y[:], buffers.noise[:] = y, noise

    def __call__(self, x: NDArray[np.floating[Any]], sigma: float) -> Array:
        """Denoised images (S, N) of noisy ones; for infinite sigma, the estimate from the signals alone."""
        self._buffers.noisy[:] = self._scale * x.reshape(self._buffers.noisy.shape)
        self._buffers.precision[:] = sigma**-2
        self._buffers.run()
        return np.asarray(self._buffers.image.reshape(len(x), -1) / self._scale)


class Prior:
    """D(x_t; sigma_t), independent of a scanner: the bundle's network as an ordinary denoiser of images.

    Its signals are those of a scanner whose basis is zero in every voxel, so they contain no information on the image.

    Parameters
    ----------
    bundle : Bundle
        Bundle of the network.
    grid : (ny, nx) or (nz, ny, nx)
        Grid of the images, whose root-mean-square is about one.
    threads : int, optional
        Threads of one evaluation; by default as many as cores that this process may use.

    Raises
    ------
    MPIFastError, ModelError
        The same errors as `PosteriorGraph`.
    """

    def __init__(self, bundle: Bundle, grid: tuple[int, ...], threads: int | None = None) -> None:
        self._session = _opened(bundle, is_plane(grid), cores() if threads is None else threads)
        self._grid = (1,) * (3 - len(grid)) + grid

    def of_frames(self, frames: int) -> Denoiser:
        """A denoiser of this number of images at once, (frames, N)."""
        nothing = {"singular_values": np.ones(1, np.float32), "basis": np.zeros((*self._grid, 1), np.float32)}
        scale = signal_scale(PRESENT[None], nothing["singular_values"], PRESENT_NOISE)[0]
        buffers = _Buffers(frames, self._grid, self._session, nothing)
        return Denoiser(buffers, PRESENT, PRESENT_NOISE[0], scale)


def _opened(bundle: Bundle, planar: bool, threads: int, gpu: int | None = None) -> Any:
    """The session of the graph for planes or volumes."""
    name = PLANE if planar else VOLUME
    return session(bundle.read(name), f"{bundle.path}/{name}", threads, gpu)


class _OfThread(threading.local):
    """Buffers of the current thread, by the number of frames."""

    def __init__(self) -> None:
        self.by_frames: dict[int, _Buffers] = {}


class _Buffers:
    """Arrays for a fixed number of frames, bound to the session."""

    def __init__(self, frames: int, grid: tuple[int, ...], session: object, scanner: dict[str, Array]) -> None:
        self.y: Array = np.zeros((frames, len(scanner["singular_values"])), np.float32)
        self.noise: Array = np.ones(frames, np.float32)
        self.image: Array = np.zeros((frames, *grid), np.float32)
        self.std: Array = np.zeros((frames, *grid), np.float32)
        self.quantiles: Array = np.ones((frames, len(LEVELS)), np.float32)
        self.noisy, self.precision = np.zeros_like(self.image), np.zeros_like(self.noise)
        inputs = {"y": self.y, "noise": self.noise, "noisy": self.noisy, "precision": self.precision, **scanner}
        self.run = BoundSession(session, inputs, {"image": self.image, "std": self.std, "quantiles": self.quantiles})
