"""The posterior network as one graph on ONNX Runtime: reduced signals in, image and uncertainty out, on any grid."""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.blas import single_blas_thread
from mpi_fast.bundle import PLANE, VOLUME, Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.onnx import BoundSession, session
from mpi_fast.guidance import Likelihood, signal_scale
from mpi_fast.pipelines import Array, Frames, in_batches

VOXELS = 64 * 361  # of a batch: enough to fill a CPU, few enough to stay in its cache


class PosteriorGraph:
    """The graph of a bundle, with the tensors of one calibration bound to it.

    Parameters
    ----------
    calibration : Calibration
        Of a plane or a volume.
    bundle : Bundle
        Of a posterior network.
    threads : int, optional
        Default: all cores that this process may run on.
    gpu : int, optional
        CUDA device to run on instead of the CPU.

    Raises
    ------
    MPIFastError
        When ONNX Runtime is not installed.
    ModelError
        When it refuses the graph, or the graph has other inputs.
    """

    def __init__(
        self, calibration: Calibration, bundle: Bundle, threads: int | None = None, gpu: int | None = None
    ) -> None:
        self.name = f"ONNX Runtime on {'the CPU' if gpu is None else f'cuda:{gpu}'}, one evaluation"
        name = PLANE if len(calibration.grid) == 2 else VOLUME
        self._session = session(bundle.read(name), f"{bundle.path}/{name}", threads, gpu)
        self._calibration = calibration
        self._batch = max(1, VOXELS // calibration.num_voxels)
        self._grid = (1,) * (3 - len(calibration.grid)) + calibration.grid
        basis = np.ascontiguousarray(calibration.basis.reshape(*self._grid, calibration.rank))
        self._scanner = {"singular_values": np.ascontiguousarray(calibration.singular_values), "basis": basis}
        self._energy = np.square(calibration.basis).mean(axis=0)
        self._bound: dict[int, _Buffers] = {}

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        return in_batches(self._reconstruct, rows, self._batch, self._calibration.num_voxels)

    def _reconstruct(self, rows: NDArray[np.complex64]) -> Frames:
        calibration, frames = self._calibration, len(rows)
        # BLAS gets one thread: its waiting threads would starve the graph's.
        with single_blas_thread():
            reduced = calibration.reduce(rows)
        if frames not in self._bound:
            self._bound[frames] = _Buffers(frames, self._grid, self._session, self._scanner)
        buffers = self._bound[frames]
        buffers.y[:], buffers.noise[:] = reduced.y, reduced.noise
        buffers.run()

        scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
        noise = np.where(scale > 0, reduced.noise / np.where(scale > 0, scale, 1), 1).astype(np.float32)
        likelihood = Likelihood(reduced.y, calibration.singular_values, calibration.basis, noise)
        floor = scale * likelihood.noise_floor(self._energy)
        return Frames(buffers.image.reshape(frames, -1), buffers.std.reshape(frames, -1), reduced.snr_db, floor)


class _Buffers:
    """Fixed arrays for one number of frames, bound to the session."""

    def __init__(self, frames: int, grid: tuple[int, ...], session: object, scanner: dict[str, Array]) -> None:
        self.y: Array = np.zeros((frames, len(scanner["singular_values"])), np.float32)
        self.noise: Array = np.ones(frames, np.float32)
        self.image: Array = np.zeros((frames, *grid), np.float32)
        self.std: Array = np.zeros((frames, *grid), np.float32)
        inputs = {"y": self.y, "noise": self.noise, **scanner}
        self.run = BoundSession(session, inputs, {"image": self.image, "std": self.std})
