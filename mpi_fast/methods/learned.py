"""Learned methods at run time: one ONNX file each, which says itself what it is and where it comes from.

Its metadata hold ``kind``, ``method``, ``grid`` and ``provenance`` (JSON). It is evaluated by ONNX Runtime on the CPU.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import MismatchError, ModelError, MPIFastError

Array = NDArray[np.float32]
KIND = "mpi-fast method"
BATCH = 64  # frames at once: enough to fill a CPU, few enough to stay in its cache


class LearnedModel:
    """A network of `training.recipes` as an ONNX Runtime session.

    Parameters
    ----------
    method : str
        What the file must hold.
    model : str or Path
        The file, or ``default`` for the one that comes with the package.
    calibration : Calibration
        Whose grid the file must be for.
    threads : int, optional
        Threads that one evaluation may use; default all.

    Attributes
    ----------
    provenance : dict
        Who trained it, on what, for how long.

    Raises
    ------
    MPIFastError
        When ONNX Runtime is not installed.
    ModelError
        For a file that is missing, broken, or of another method.
    MismatchError
        For a model of another grid than the calibration's.
    """

    def __init__(self, method: str, model: str | Path, calibration: Calibration, threads: int | None = None) -> None:
        path = Path(str(files("mpi_fast") / "models" / f"{method}.onnx")) if model == "default" else Path(model)
        if not path.is_file():
            raise ModelError(
                f"{path}: no such file; expected a model of '{method}': mpi-fast train --method {method}, "
                "then python -m mpi_fast.export.learned"
            )
        self._session = _session(path, threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        if metadata.get("kind") != KIND or metadata.get("method") != method:
            raise ModelError(f"{path}: holds '{metadata.get('method', 'something else')}', expected '{method}'")
        try:
            ny, nx = (int(n) for n in json.loads(metadata["grid"]))
            self.provenance = dict(json.loads(metadata["provenance"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{path}: incomplete metadata ({type(error).__name__}: {error})") from error
        if (ny, nx) != calibration.grid:
            raise MismatchError(
                f"{path}: a model for {ny} x {nx} voxels, but the calibration has "
                f"{calibration.grid[0]} x {calibration.grid[1]}; train one with mpi-fast train --method {method} --grid"
            )

    def __call__(self, **inputs: NDArray[Any]) -> Array:
        """The model's outputs (F, ...) for named float32 inputs, side by side."""
        contiguous = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in inputs.items()}
        return np.concatenate(self._session.run(None, contiguous), axis=1)


def parts(frames: int) -> list[slice]:
    """Frames in batches of `BATCH`."""
    return [slice(start, start + BATCH) for start in range(0, frames, BATCH)]


def _session(path: Path, threads: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MPIFastError("ONNX Runtime is not installed: pip install 'mpi-fast[cpu]'") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no common base class of their own
        raise ModelError(f"{path}: ONNX Runtime refuses it: {error}") from error
