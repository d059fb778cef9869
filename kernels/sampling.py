"""Posterior samples on a device: evaluations of the network as one CUDA graph, and a launch between them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.kernels.capture import Recorded
from mpi_fast.kernels.launch import Array, Device, Kernel, expect
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.prepare import STATISTICS
from mpi_fast.kernels.solvers import Evaluation, Update
from mpi_fast.kernels.weights import Weights

UPDATE_THREADS = 128  # of a block, as in update.cu


class PosteriorSampler:
    """Images drawn from the posterior distributions of frames, so many at once; each has its frame's signals.

    The evaluation is recorded once; the noisy images and their precision are buffers that it reads, so every step of
    every solver replays it. The host only enqueues, and waits at the end.

    Parameters
    ----------
    device, calibration, weights
        See `PosteriorLoop`.
    images : int
        At once.

    Attributes
    ----------
    evaluation : Recorded
        Whether it is one graph.
    """

    def __init__(self, device: Device, calibration: Calibration, weights: Weights, images: int) -> None:
        self._device = device
        self._loop = loop = PosteriorLoop(device, calibration, weights, images, guided=True)
        self._saved = device.empty(loop.image.shape, np.float32)
        self._given = device.pinned(loop.signals.shape, np.complex64)
        self._drawn = device.pinned(loop.image.shape, np.float32)
        self._start(0, 1, 0)
        self.evaluation = Recorded(device, lambda: loop.evaluate(True))

    def __call__(
        self, rows: NDArray[np.complex64], first: int, samples: int, seed: int, chain: Sequence[Evaluation]
    ) -> NDArray[np.float32]:
        """Draw them.

        Parameters
        ----------
        rows : (B, M) complex64
            Selected rows of the frame of each image, B at most as many as there are at once.
        first : int
            Number of the first image: image ``i`` gets the noise of sample ``(first + i) % samples``.
        samples, seed : int
            Of each frame; of the noise.
        chain : sequence
            Of `solvers.posterior_chain`.

        Returns
        -------
        (B, N) float32
            In the unit of the calibration; a buffer that the next call overwrites.
        """
        self._given[: len(rows)], self._given[len(rows) :] = rows, 0
        with self._device.span(f"{len(rows)} samples"):
            self._enqueue(first, samples, seed, chain)
        self._device.wait()
        return self._drawn[: len(rows)]

    def _enqueue(self, first: int, samples: int, seed: int, chain: Sequence[Evaluation]) -> None:
        self._start(first, samples, seed)
        for index, (_, change) in enumerate(chain):
            self.evaluation()
            following = chain[index + 1][0] if index + 1 < len(chain) else np.inf
            self._update(change, following, first, samples, seed)
        assert self._loop.noisy is not None
        self._device.fetch(self._loop.noisy, self._drawn)

    def _start(self, first: int, samples: int, seed: int) -> None:
        """What the signals say, and no noisy images."""
        self._device.copy(self._given, self._loop.signals)
        self._loop.begin()
        self._update(Update(), np.inf, first, samples, seed)

    def _update(self, change: Update, sigma: float, first: int, samples: int, seed: int) -> None:
        loop = self._loop
        update(
            self._device,
            change,
            (loop.statistics, loop.image, loop.noisy, self._saved, loop.precision),
            sigma**-2,
            first,
            samples,
            seed,
        )


def update(
    device: Device,
    change: Update,
    arrays: tuple[Array, Array, Array, Array, Array],
    precision: float,
    first: int,
    samples: int,
    seed: int,
) -> None:
    """Enqueue update.cu.

    Parameters
    ----------
    device : Device
    change : Update
        Its coefficients.
    arrays : tuple
        Statistics (5, B); images (B, N) D, x and saved; precision (B,); all float32. The last three are written.
    precision : float
        Of the next x.
    first, samples, seed : int
        See `PosteriorSampler.__call__`.

    Raises
    ------
    InputError
        For shapes and types that do not fit.
    """
    statistics, denoised, x, saved, precisions = arrays
    images, voxels = x.shape
    expect(
        "update",
        {
            "statistics": (statistics, (len(STATISTICS), images), np.float32),
            "denoised": (denoised, (images, voxels), np.float32),
            "x": (x, (images, voxels), np.float32),
            "saved": (saved, (images, voxels), np.float32),
            "precision": (precisions, (images,), np.float32),
        },
    )
    coefficients = (change.x, change.denoised, change.saved, change.noise)
    kept = (change.save_x, change.save_denoised, change.save_saved)
    whole = np.uint64(seed), np.uint32(first % samples), np.uint32(samples), np.uint32(change.draw), np.int32(voxels)
    numbers = *whole, *map(np.float32, (*coefficients, *kept, precision))
    grid = -(-voxels // (4 * UPDATE_THREADS)), images
    device.launch(Kernel("update"), grid, UPDATE_THREADS, 0, (*arrays, *numbers))
