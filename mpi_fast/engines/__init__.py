"""Engines: what evaluates the network. Each binds it to buffers of a given size (`denoiser.Evaluator`)."""

from typing import Protocol

from mpi_fast.denoiser import Evaluator


class Engine(Protocol):
    """A network that can be bound to buffers."""

    @property
    def name(self) -> str:
        """For reports."""
        ...

    def bind(self, frames: int, samples: int) -> Evaluator:
        """Buffers for ``frames`` frames with ``samples`` samples each."""
        ...
