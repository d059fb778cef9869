"""Posterior samples on a device: each evaluation of the network is a CUDA graph, followed by a launch of update.cu."""

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

UPDATE_THREADS = 128  # threads of a block, as in update.cu


class PosteriorSampler:
    """Draws samples of the posterior distributions of frames, in batches of a fixed size.

    The evaluation of the network is captured once. It reads noisy images and their precision from buffers, so the same
    graph serves every step of every solver. The host only enqueues work, and waits once at the end.

    Parameters
    ----------
    device, calibration, weights
        See `PosteriorLoop`.
    images : int
        Number of images in a batch.

    Attributes
    ----------
    evaluation : Recorded
        The captured evaluation.
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
        """Draw samples.

        Parameters
        ----------
        rows : (B, M) complex64
            Selected rows of the frame of each image; B is at most the size of a batch.
        first : int
            Number of the first image: image ``i`` gets the noise of sample ``(first + i) % samples``.
        samples, seed : int
            Number of samples for each frame, and the seed of the noise.
        chain : sequence of Evaluation
            Evaluations of the sampler, from `solvers.posterior_chain`.

        Returns
        -------
        (B, N) float32
            Images in the unit of the calibration, in a buffer that the next call overwrites.
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
        """Enqueue the preparation of the signals, and set the noisy images to zero, with precision zero."""
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
        Device that runs the kernel.
    change : Update
        Coefficients of the update.
    arrays : tuple
        Statistics (5, B); denoised images D, x and saved images, each (B, N); precision (B,); all float32. The last
        three are outputs.
    precision : float
        Precision of the new x.
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
