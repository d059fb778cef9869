"""All parameters of a training run, which the checkpoint records."""

from dataclasses import dataclass, field

from mpi_fast.training.deq_network import DeqConfig
from mpi_fast.training.dernet_network import DernetConfig
from mpi_fast.training.mixture import Mixture
from mpi_fast.training.network import PosteriorConfig


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Attributes
    ----------
    minutes : float
        Wall-clock time of training, over all resumed runs.
    finish : float
        Minutes at the end of an open-ended run in which the learning rate falls to zero, for a checkpoint to deploy. A
        later resumed run continues from the state before these minutes.
    grid : (ny, nx)
        Image size of an opponent; the network is trained on the grids of its mixture instead.
    scanners, phantoms : int
        Numbers of random scanners and phantoms of this grid, from which samples are drawn.
    groups, frames : int
        A batch has ``frames`` frames of each of ``groups`` scanners; the recipe has the default of ``frames``.
    learning_rate : float
        Largest learning rate, by default that of the recipe.
    ema : float
        Decay per step of the moving average of the weights, unless the recipe has its own.
    seed : int
        Seed of scanners, phantoms, batches and initial weights.
    mixture : Mixture
        Mixture of training data for our network.
    processes : int
        Number of processes that simulate scanners.
    network : PosteriorConfig, DernetConfig or DeqConfig
        Configuration of the network to train.
    """

    minutes: float = 60.0
    finish: float = 0.0
    grid: tuple[int, int] = (19, 19)
    scanners: int = 256
    phantoms: int = 60_000
    groups: int = 8
    frames: int | None = None
    learning_rate: float | None = None
    ema: float = 0.9995
    seed: int = 0
    mixture: Mixture = field(default_factory=Mixture)
    processes: int = 2
    network: PosteriorConfig | DernetConfig | DeqConfig = field(default_factory=PosteriorConfig)
