"""Everything that decides what a training run computes; the checkpoint records it."""

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
        Wall-clock time of training, all resumed runs together.
    finish : float
        Minutes at the end of a run that otherwise has no end, in which the learning rate falls to zero: for a
        checkpoint to deploy. A run that is resumed later goes on from before them.
    grid : (ny, nx)
        Image size of an opponent; the network is trained on the grids of its mixture instead.
    scanners, phantoms : int
        How many random scanners and phantoms of this grid to draw samples from.
    groups, frames : int
        A batch is ``frames`` frames of each of ``groups`` scanners; of frames by default as many as in the recipe.
    learning_rate : float
        Highest one, by default the recipe's.
    ema : float
        Decay per step of the moving average of the weights, where the recipe has none of its own.
    seed : int
        For scanners, phantoms, batches and initial weights.
    mixture : Mixture
        Of the network's data.
    processes : int
        That simulate scanners.
    network : PosteriorConfig, DernetConfig or DeqConfig
        What to train.
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
