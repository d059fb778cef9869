"""Methods to compare with. Each is called like a `Reconstructor`: it turns signals into images.

    method = create("tv", calibration, strength=0.3)
    method(signals).image          # (frames, *grid)

`REGISTRY` lists them by name, with the way to build one for a calibration and the parameters that `tuning.tune` may
choose. To add a method, classical or learned, write a class with the call of `base.Method` (most easily a subclass of
`base.ReducedMethod`) and a line here, or in the ``pyproject.toml`` of another package (`plugins`).
"""

from typing import Any

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.grids import shown
from mpi_fast.methods.art import ROWS, Kaczmarz
from mpi_fast.methods.base import Method
from mpi_fast.methods.deq import DeqMpi
from mpi_fast.methods.dernet import Dernet
from mpi_fast.methods.entry import Entry
from mpi_fast.methods.learned_model import model_file, model_grid, packaged
from mpi_fast.methods.nnls import NNLS
from mpi_fast.methods.plug_and_play import SCHEMES, PlugAndPlay
from mpi_fast.methods.plugins import load, package, registered
from mpi_fast.methods.sampled import SampleMean
from mpi_fast.methods.sparse import L1
from mpi_fast.methods.tikhonov import RULES, Tikhonov
from mpi_fast.methods.tuning import Axis, Space
from mpi_fast.methods.variation import Nonconvex, TotalVariation
from mpi_fast.reconstructor import Reconstructor


def _samples(title: str, samples: int, **fixed: Any) -> Entry:
    return Entry(title, SampleMean, fixed={"samples": samples, **fixed}, network=True, ours=True)


_SWEEPS = Axis((4, 32), low=1, high=100, whole=True)  # more sweeps than usual in practice
_EVALUATIONS = Axis((4, 10), low=1, high=25, whole=True)  # 25 is the maximum of its authors
_TOLD_NOISE: Space = {"noise": Axis((0.5, 1.0, 2.0))}
_SDES = {"ve": "VE", "vp": "VP", "sub-vp": "sub-VP"}

REGISTRY: dict[str, Entry] = {
    "art": Entry("ART", Kaczmarz, {"strength": Axis((1e-3, 1e-2, 1e-1)), "iterations": _SWEEPS, "rows": ROWS}),
    "tikhonov": Entry("Tikhonov", Tikhonov, {"strength": Axis((0.3, 1.0, 3.0)), "rule": RULES}),
    "nnls": Entry("NNLS", NNLS, {"strength": Axis((1.0, 3.0, 9.0))}),
    "l1": Entry("L1", L1, {"strength": Axis((1.0, 4.0, 16.0)), "iterations": Axis((50, 200), low=1, whole=True)}),
    "tv": Entry("TV", TotalVariation, {"smoothness": Axis((0.4, 1.2, 3.6))}),
    "nonconvex": Entry(
        "nonconvex ADMM", Nonconvex, {"sparsity": Axis((0.5, 2.0, 8.0)), "smoothness": Axis((0.4, 1.2, 3.6))}
    ),
    "plug-and-play": Entry(
        "plug and play",
        PlugAndPlay,
        {"level": Axis((0.1, 0.2)), "strength": Axis((0.5, 1.0)), "scheme": SCHEMES},
        network=True,
    ),
    "dernet": Entry("DERnet", Dernet, _TOLD_NOISE, fixed={"threads": 1}, trained=True),
    "deq": Entry("DEQ-MPI", DeqMpi, {**_TOLD_NOISE, "iterations": _EVALUATIONS}, fixed={"threads": 1}, trained=True),
    "posterior": Entry("mpi-fast", Reconstructor, fixed={"inspect": False}, network=True, ours=True),
    "samples": _samples("mean of 32 samples, DPM-Solver++", 32),
    "paper": _samples("one sample, as published", 1, sampler="predictor-corrector", steps=1000),
}
REGISTRY |= {
    sde: _samples(f"mean of 8 samples, {title} SDE", 8, sampler="euler-maruyama", sde=sde, steps=100)
    for sde, title in _SDES.items()
}

_CLASSICAL = ("art", "tikhonov", "nnls", "l1", "tv", "nonconvex", "plug-and-play")
_LEARNED = tuple(name for name, e in REGISTRY.items() if e.trained and packaged(name).is_file())
DEFAULT = (*_CLASSICAL, *_LEARNED, "posterior")
"""What `mpi-fast compare` shows unless told otherwise: sampling takes a second a frame and more, and of ``dernet`` and
``deq`` those are there whose model comes with the package."""


def get(name: str) -> Entry:
    """The method of this name in `REGISTRY` or in another package.

    Raises
    ------
    InputError
        For an unknown name, for a name in `REGISTRY` that another package also registers, and as `plugins.load`.
    """
    others = registered()
    if name in REGISTRY:
        if name in others:
            raise InputError(
                f"method '{name}': the package {package(others[name][0])} registers a method of this name, which "
                f"is taken by one of mpi-fast; expected another name there"
            )
        return REGISTRY[name]
    if name not in others:
        raise InputError(f"method '{name}': expected one of {', '.join((*REGISTRY, *others))}")
    return load(name)


def check(name: str) -> None:
    """Refuse a method that cannot be built, before time is spent on others.

    Raises
    ------
    InputError
        As `get`.
    ModelError
        For a method whose model is not part of the package.
    """
    if get(name).trained:
        model_file(name)


def refusal(name: str, grid: tuple[int, ...]) -> str | None:
    """Why a method cannot reconstruct images of a grid, or None if it can; raises as `check`."""
    if get(name).trained and (trained_on := model_grid(name)) != grid:
        return f"the network is for {shown(trained_on)} voxels, not {shown(grid)}"
    return None


def create(name: str, calibration: Calibration, **parameters: Any) -> Method:
    """Build the method of this name for a calibration.

    Raises
    ------
    InputError, ModelError
        As `get`, and as the method for parameters out of range and a missing model.
    """
    return get(name)(calibration, **parameters)
