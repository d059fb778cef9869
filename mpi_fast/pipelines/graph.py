"""The whole frame as one graph on ONNX Runtime: reduced signals in, image and deviation out, with nothing between."""

import math

import numpy as np
from numpy.typing import NDArray

from mpi_fast.blas import single_blas_thread
from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.onnx import BoundSession, open_session
from mpi_fast.errors import ModelError
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Array, Frames, Sampling, in_batches

IMAGES = 64  # that the network denoises at once: enough to fill a CPU, few enough to stay in its cache


class WholeFrame:
    """The whole-frame graph of a bundle, with the tensors of one calibration bound to it.

    Parameters
    ----------
    calibration : Calibration
        Of R <= N; its tensors are padded to N here, once.
    sampling : Sampling
        That the graph was made for.
    bundle : Bundle
        That holds the graph.
    name : str
        Its file.
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
        self,
        calibration: Calibration,
        sampling: Sampling,
        bundle: Bundle,
        name: str,
        threads: int | None = None,
        gpu: int | None = None,
    ) -> None:
        self.name = f"ONNX Runtime on {'the CPU' if gpu is None else f'cuda:{gpu}'}, the whole frame as one graph"
        self._batch = max(1, IMAGES // sampling.samples)
        voxels = calibration.num_voxels
        self._session = open_session(bundle, name, threads, gpu)
        self._calibration, self._rank = calibration, calibration.rank
        self._constants = constants(calibration, mirrored_normal(sampling.seed, sampling.samples, voxels))
        shapes = {given.name: tuple(given.shape[1:]) for given in self._session.get_inputs()}
        expected = {"y": (voxels,), "noise": (), **{key: array.shape[1:] for key, array in self._constants.items()}}
        if shapes != expected:
            raise ModelError(f"{bundle.path}/{name}: its inputs are {shapes}, expected {expected}")
        self._bound: dict[int, _Buffers] = {}

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        return in_batches(self._reconstruct, rows, self._batch, self._calibration.num_voxels)

    def _reconstruct(self, rows: NDArray[np.complex64]) -> Frames:
        # BLAS gets one thread: its waiting threads would starve the graph's.
        with single_blas_thread():
            reduced = self._calibration.reduce(rows)
        frames = len(rows)
        if frames not in self._bound:
            self._bound[frames] = _Buffers(frames, self._calibration.grid, self._session, self._constants)
        buffers = self._bound[frames]
        buffers.y[:, : self._rank], buffers.noise[:] = reduced.y, reduced.noise
        buffers.run()
        return Frames(buffers.image.reshape(frames, -1), buffers.std.reshape(frames, -1), reduced.snr_db, buffers.floor)


def constants(calibration: Calibration, initial: Array) -> dict[str, Array]:
    """Inputs of the whole-frame graph that no frame changes: S (N,) and V (N, N), padded with zeros, and the noise."""
    rank, voxels = calibration.rank, calibration.num_voxels
    values, basis = np.zeros(voxels, np.float32), np.zeros((voxels, voxels), np.float32)
    values[:rank], basis[:, :rank] = calibration.singular_values, calibration.basis
    return {"singular_values": values, "basis": basis, "initial": np.ascontiguousarray(initial)}


class _Buffers:
    """Fixed arrays for one number of frames, bound to the session."""

    def __init__(self, frames: int, grid: tuple[int, ...], session: object, constants: dict[str, Array]) -> None:
        self.y: Array = np.zeros((frames, math.prod(grid)), np.float32)
        self.noise: Array = np.ones(frames, np.float32)
        self.image: Array = np.zeros((frames, *grid), np.float32)
        self.std: Array = np.zeros((frames, *grid), np.float32)
        self.floor: Array = np.zeros(frames, np.float32)
        inputs = {"y": self.y, "noise": self.noise, **constants}
        outputs = {"image": self.image, "std": self.std, "noise_floor": self.floor}
        self.run = BoundSession(session, inputs, outputs)
