"""mpi-fast: real-time image reconstruction for magnetic particle imaging.

Data flows in one direction: a file or stream -> `mdf` -> `Calibration.reduce` -> the network ->
`Reconstruction` -> file, picture, stream. Most users need only ``Calibration`` and ``Reconstructor``.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi_fast.calibration import Calibration as Calibration
    from mpi_fast.errors import MPIFastError as MPIFastError
    from mpi_fast.reconstruction import Reconstruction as Reconstruction
    from mpi_fast.reconstructor import Reconstructor as Reconstructor

__version__ = "0.2.0"
logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent unless the embedding program adds a handler
__all__ = ["Calibration", "MPIFastError", "Reconstruction", "Reconstructor", "__version__"]

_HOME = {
    "Calibration": "mpi_fast.calibration",
    "MPIFastError": "mpi_fast.errors",
    "Reconstruction": "mpi_fast.reconstruction",
    "Reconstructor": "mpi_fast.reconstructor",
}


def __getattr__(name: str) -> Any:
    """Import the public classes on first use, so that ``import mpi_fast`` takes only milliseconds."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mpi_fast' has no attribute '{name}'")
