"""The whole frame as one graph on ONNX Runtime: reduced signals in, image and deviation out, with nothing between."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpi_fast.engines.onnx import BoundSession, open_session
from mpi_fast.errors import ModelError

if TYPE_CHECKING:
    from mpi_fast.bundle import Bundle
    from mpi_fast.calibration import Calibration

Array = NDArray[np.float32]


class FrameEngine:
    """The whole-frame graph of a bundle, with the tensors of one calibration bound to it.

    Parameters
    ----------
    bundle : Bundle
        That holds the graph.
    name : str
        Its file.
    calibration : Calibration
        Of R <= N; its tensors are padded to N here, once.
    initial : (samples, N) float32
        Standard-normal noise that every frame is sampled from.
    threads : int, optional
        Default: all cores that this process may run on.

    Raises
    ------
    MPIFastError
        When ONNX Runtime is not installed.
    ModelError
        When it refuses the graph, or the graph has other inputs.
    """

    def __init__(
        self, bundle: "Bundle", name: str, calibration: "Calibration", initial: Array, threads: int | None = None
    ) -> None:
        rank, voxels = calibration.rank, calibration.num_voxels
        values, basis = np.zeros(voxels, np.float32), np.zeros((voxels, voxels), np.float32)
        values[:rank], basis[:, :rank] = calibration.singular_values, calibration.basis
        self._session = open_session(bundle, name, threads)
        self._rank, self._grid = rank, calibration.grid
        self._constants: dict[str, Array] = {
            "singular_values": values,
            "basis": basis,
            "initial": np.ascontiguousarray(initial),
        }
        shapes = {given.name: tuple(given.shape[1:]) for given in self._session.get_inputs()}
        expected = {"y": (voxels,), "noise": (), **{key: array.shape[1:] for key, array in self._constants.items()}}
        if shapes != expected:
            raise ModelError(f"{bundle.path}/{name}: its inputs are {shapes}, expected {expected}")
        self._bound: dict[int, _Buffers] = {}

    def __call__(self, y: Array, noise: Array) -> tuple[Array, Array, Array]:
        """Reconstruct frames.

        Parameters
        ----------
        y : (F, R) float32
            Reduced signals.
        noise : (F,) float32
            Their noise level.

        Returns
        -------
        image, std, noise_floor : (F, N), (F, N), (F,) float32
            As `reconstructor.Reconstruction` has them; buffers that the next call of as many frames overwrites.
        """
        frames = len(y)
        if frames not in self._bound:
            self._bound[frames] = _Buffers(frames, self._grid, self._session, self._constants)
        buffers = self._bound[frames]
        buffers.y[:, : self._rank], buffers.noise[:] = y, noise
        buffers.run()
        return buffers.image.reshape(frames, -1), buffers.std.reshape(frames, -1), buffers.floor


class _Buffers:
    """Fixed arrays for one number of frames, bound to the session."""

    def __init__(self, frames: int, grid: tuple[int, int], session: object, constants: dict[str, Array]) -> None:
        self.y: Array = np.zeros((frames, grid[0] * grid[1]), np.float32)
        self.noise: Array = np.ones(frames, np.float32)
        self.image: Array = np.zeros((frames, *grid), np.float32)
        self.std: Array = np.zeros((frames, *grid), np.float32)
        self.floor: Array = np.zeros(frames, np.float32)
        inputs = {"y": self.y, "noise": self.noise, **constants}
        outputs = {"image": self.image, "std": self.std, "noise_floor": self.floor}
        self.run = BoundSession(session, inputs, outputs)
