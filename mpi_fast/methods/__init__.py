"""Methods to compare with: each is called like a `Reconstructor`, signals in, images out.

    method = create("tv", calibration, strength=0.3)
    method(signals).image          # (frames, ny, nx)

`REGISTRY` names them: how to build one for a calibration, and which parameters `tuning.tune` may choose. A new method,
classical or learned, is a class with the call of `base.Method` (most easily a `base.ReducedMethod`) and a line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.methods.art import ROWS, Kaczmarz
from mpi_fast.methods.base import Method
from mpi_fast.methods.deq import DeqMpi
from mpi_fast.methods.dernet import Dernet
from mpi_fast.methods.tuning import Axis, Space
from mpi_fast.reconstructor import Reconstructor

TOLD_NOISE = Axis((0.5, 1.0, 2.0))
SWEEPS = Axis((1, 4, 16), low=1, high=64, whole=True)


@dataclass(frozen=True)
class Entry:
    """One method.

    Attributes
    ----------
    title : str
        For tables and figures.
    build : callable
        ``build(calibration, **parameters)`` makes a `base.Method`.
    space : mapping
        The parameters to tune; empty for a method without any.
    fixed : mapping
        Parameters that make the entry what it is.
    """

    title: str
    build: Callable[..., Method]
    space: Space = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, calibration: Calibration, **parameters: Any) -> Method:
        """Build the method for a calibration."""
        return self.build(calibration, **self.fixed, **parameters)


REGISTRY: dict[str, Entry] = {
    "art": Entry("ART", Kaczmarz, {"strength": Axis((1e-3, 1e-2, 1e-1, 1.0)), "iterations": SWEEPS, "rows": ROWS}),
    "dernet": Entry("DERnet", Dernet, {"noise": TOLD_NOISE}),
    "deq": Entry("DEQ-MPI", DeqMpi, {"noise": TOLD_NOISE}),
    "mean": Entry("mpi-fast, mean", Reconstructor, fixed={"samples": 1, "steps": 1}),
    "fast": Entry("mpi-fast", Reconstructor),
}


def get(name: str) -> Entry:
    """The method of this name.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name not in REGISTRY:
        raise InputError(f"method '{name}': expected one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


def create(name: str, calibration: Calibration, **parameters: Any) -> Method:
    """Build the method of this name for a calibration."""
    return get(name)(calibration, **parameters)
