"""The registry entry of a method: its title, its constructor, and its tuned parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mpi_fast.calibration import Calibration
from mpi_fast.methods.base import Method
from mpi_fast.methods.tuning import Space


@dataclass(frozen=True)
class Entry:
    """One method.

    Attributes
    ----------
    title : str
        Title in tables and figures.
    build : callable
        ``build(calibration, **parameters)`` makes a `base.Method`.
    space : mapping
        Parameters to tune; may be empty.
    fixed : mapping
        Fixed parameters of this entry.
    network : bool
        Whether it evaluates the network of a bundle and takes ``model`` and ``threads``.
    ours : bool
        Whether it is the method of this project rather than an opponent.
    trained : bool
        Whether it is a trained network that this package can train, see `learned_model.model_file`.
    """

    title: str
    build: Callable[..., Method]
    space: Space = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    network: bool = False
    ours: bool = False
    trained: bool = False

    def __call__(self, calibration: Calibration, **parameters: Any) -> Method:
        """Build the method for a calibration."""
        return self.build(calibration, **self.fixed, **parameters)
