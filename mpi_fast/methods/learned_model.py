"""Learned methods at run time: one ONNX file each, with metadata about its kind and origin.

The metadata contain ``kind``, ``method``, ``grid`` and ``provenance`` (JSON). It is evaluated by ONNX Runtime on the
CPU.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.engines.onnx import session
from mpi_fast.errors import MismatchError, ModelError
from mpi_fast.grids import shown
from mpi_fast.reading import read_regular

Array = NDArray[np.float32]
KIND = "mpi-fast method"
LARGEST_FILE = 2 * 2**30  # bytes


def packaged(method: str) -> Path:
    """Path of a method's file in the package, whether it exists or not."""
    return Path(str(files("mpi_fast") / "models" / f"{method}.onnx"))


def model_file(method: str, model: str | Path = "default") -> Path:
    """The file of a method; ``default`` is that of the package.

    Raises
    ------
    ModelError
        If there is no such file.
    """
    path = packaged(method) if model == "default" else Path(model)
    if not path.is_file():
        raise ModelError(
            f"{path}: no such file; to make it: mpi-fast train --method {method} --minutes 84 -o {method}.pt && "
            f"python -m mpi_fast.export.learned {method}.pt -o {path}"
        )
    return path


def model_grid(method: str, model: str | Path = "default") -> tuple[int, int]:
    """The grid (ny, nx) that the file of a method is for.

    Raises
    ------
    MPIFastError, ModelError
        As `LearnedModel`.
    """
    return _opened(method, model, threads=1)[1]


def _opened(method: str, model: str | Path, threads: int | None) -> tuple[Any, tuple[int, int], dict[str, Any]]:
    """Open a method's file; returns its session, its grid, and its provenance."""
    path = model_file(method, model)
    opened = session(read_regular(path, LARGEST_FILE, "an ONNX file", ModelError), str(path), threads)
    metadata = opened.get_modelmeta().custom_metadata_map
    if metadata.get("kind") != KIND or metadata.get("method") != method:
        raise ModelError(f"{path}: holds '{metadata.get('method', 'something else')}', expected '{method}'")
    try:
        ny, nx = (int(n) for n in json.loads(metadata["grid"]))
        return opened, (ny, nx), dict(json.loads(metadata["provenance"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: incomplete metadata ({type(error).__name__}: {error})") from error


class LearnedModel:
    """A network of `training.recipes` as an ONNX Runtime session.

    Parameters
    ----------
    method : str
        Method that the file must contain.
    model : str or Path
        File, see `model_file`.
    calibration : Calibration
        Calibration whose grid the file must be for.
    threads : int, optional
        Threads of one evaluation; by default all.

    Attributes
    ----------
    provenance : dict
        Record of the training.

    Raises
    ------
    MPIFastError
        If ONNX Runtime is not installed.
    ModelError
        For a file that is missing, broken, or of another method.
    MismatchError
        For a model of a grid other than that of the calibration.
    """

    def __init__(self, method: str, model: str | Path, calibration: Calibration, threads: int | None = None) -> None:
        self._session, (ny, nx), self.provenance = _opened(method, model, threads)
        if (ny, nx) != calibration.grid:
            raise MismatchError(
                f"{model_file(method, model)}: a model for {ny} x {nx} voxels, but the calibration has "
                f"{shown(calibration.grid)}; for a plane, train one with mpi-fast train --method {method} --grid "
                f"{'x'.join(map(str, calibration.grid))}"
            )

    def __call__(self, **inputs: NDArray[Any]) -> Array:
        """The model's outputs (F, ...) for named float32 inputs, side by side along their second axis."""
        contiguous = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in inputs.items()}
        return np.concatenate(self._session.run(None, contiguous), axis=1)
