"""Compare methods on the same frames of held-out scanners and phantoms, with parameters tuned on other frames.

Scanners may have any grid, of planes or volumes.

For each method and SNR there is one job (`assess`): tune on validation frames, reconstruct the test frames, evaluate.
Jobs are independent and run on all cores, one thread each. Test and validation frames have the same scanner and the
same phantom families, with different seeds. This tuning is better than a user could do; our method is not tuned.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import lru_cache, partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mpi_fast import heldout, metrics
from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.experiment import MeasuredMatrix, Receiver
from mpi_fast.heldout import HeldOut
from mpi_fast.limits import decibels
from mpi_fast.methods import check, get, refusal
from mpi_fast.methods.base import Method
from mpi_fast.methods.tuning import Tuned, tune
from mpi_fast.noise import NOISE_KINDS, NoiseKind
from mpi_fast.uncertainty import half_width

Array = NDArray[np.float64]
SCANNERS = {"in": heldout.SCANNERS[0], "fine": heldout.SCANNERS[1], "out": heldout.SCANNERS[2]}
VOLUMES = {"in": heldout.VOLUME}
PLANE = 19, 19
TEST, VALIDATION = 0, 1
RESAMPLES = 2000  # resamples of the bootstrap
Merit = Callable[[NDArray[Any], NDArray[Any]], Array]
MERITS: dict[str, Merit] = {
    "psnr": metrics.psnr,
    "ssim": metrics.ssim,
    "nrmse": metrics.nrmse,
    "edge_similarity": metrics.edge_similarity,
    "edge_f1": metrics.edge_f1,
    "concentration_error": metrics.concentration_error,
    "sharpness": metrics.sharpness,
}


@dataclass(frozen=True)
class Setup:
    """Parameters of a comparison.

    Attributes
    ----------
    scanner : str
        ``in``: like OpenMPI, within the range of the training; ``fine``: with a finer grid; ``out``: outside this
        range.
    noise : str
        See `noise.complex_noise`.
    phantoms : int
        Number of test frames.
    seed : int
        Seed of phantoms and noise.
    model : str
        Bundle for methods that evaluate the network.
    grid : (ny, nx) or (nz, ny, nx)
        Voxels over the scanner's field of view. With three axes only ``in`` exists, a scanner of volumes.

    Raises
    ------
    InputError
        For an unknown scanner or noise, no phantoms, or an invalid grid.
    """

    scanner: str = "in"
    noise: NoiseKind = "white"
    phantoms: int = 64
    seed: int = 0
    model: str = "default"
    grid: tuple[int, ...] = PLANE

    def __post_init__(self) -> None:
        if len(self.grid) not in (2, 3) or min(self.grid) < 2:
            raise InputError(f"grid {self.grid}: expected (ny, nx) or (nz, ny, nx), of at least two voxels each way")
        of_grid = "scanner" if len(self.grid) == 2 else "scanner of volumes"
        for name, value, known in ((of_grid, self.scanner, self._scanners), ("noise", self.noise, NOISE_KINDS)):
            if value not in known:
                raise InputError(f"{name} '{value}': expected one of {', '.join(known)}")
        if self.phantoms < 2 or self.seed < 0:
            raise InputError(f"phantoms {self.phantoms}, seed {self.seed}: expected at least two, and no negative seed")

    @property
    def _scanners(self) -> dict[str, HeldOut]:
        return SCANNERS if len(self.grid) == 2 else VOLUMES

    @property
    def heldout(self) -> HeldOut:
        """The scanner with this grid."""
        return self._scanners[self.scanner].on(self.grid)

    @property
    def merits(self) -> dict[str, Merit]:
        """The `MERITS` that the grid allows; SSIM needs 11 voxels along every axis."""
        return {name: merit for name, merit in MERITS.items() if name != "ssim" or min(self.grid) >= metrics.WINDOW}

    @property
    def validation(self) -> int:
        """Number of tuning frames: 1 to 3 rounds of the phantom families, about a third of the test frames."""
        families = len(heldout.families(len(self.grid)))
        return families * int(np.clip(self.phantoms // (3 * families), 1, 3))

    def covered(self) -> NDArray[np.bool_]:
        """The voxels within the trajectory's field of view, (*grid)."""
        scanner, inside = self.heldout.scanner, np.ones((), dtype=bool)
        reach = [a / abs(g) for a, g in zip(scanner.drive_amplitude, scanner.gradient, strict=True)]  # x first
        for count, size, half in zip(scanner.grid, scanner.voxel_size, reversed(reach), strict=True):
            inside = inside[..., None] & (np.abs(np.arange(count) - (count - 1) / 2) * size <= half)
        return np.asarray(inside)


@dataclass(frozen=True)
class Outcome:
    """Results of a method for the test frames at one SNR.

    Attributes
    ----------
    method : str
    snr_db : float
    image : (F, *grid) float32
    merits : dict of name to (F,) float64
        `Setup.merits`; with std also ``coverage_50`` to ``coverage_95`` of the voxels within the trajectory's field of
        view.
    tuned : Tuned
    cpu_ms : float
        Processor time per frame on one thread.
    """

    method: str
    snr_db: float
    image: NDArray[np.float32]
    merits: dict[str, Array]
    tuned: Tuned
    cpu_ms: float = field(default=np.nan)


@lru_cache(maxsize=1)
def measured(scanner: HeldOut) -> tuple[MeasuredMatrix, Calibration]:
    """The measured matrix of a scanner, and its calibration."""
    matrix = scanner.measure_matrix()
    return matrix, matrix.calibrate()


@lru_cache(maxsize=4)
def frames(setup: Setup, snr_db: float, part: int = TEST) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Spectra (F, C, K) and true images (F, *grid) of one part; the images are the same at every SNR."""
    matrix, calibration = measured(setup.heldout)
    count = setup.phantoms if part == TEST else setup.validation
    truth = heldout.phantoms(count, [setup.seed, part], setup.grid, matrix.scanner.aspect)
    rng = np.random.default_rng([setup.seed, part, 1, round(10 * snr_db) + 10_000])
    return Receiver(matrix, calibration.selection, snr_db, rng, setup.noise).frames(truth), truth


@lru_cache(maxsize=1)  # a method without parameters serves all SNRs, and loading a network takes longer than using it
def _built(setup: Setup, method: str, **parameters: Any) -> Method:
    entry, (_, calibration) = get(method), measured(setup.heldout)
    network = {"model": setup.model, "threads": 1} if entry.network else {}
    return entry(calibration, **network, **parameters)


def assess(setup: Setup, method: str, snr_db: float) -> Outcome:
    """Tune a method, reconstruct, and evaluate."""
    space, build = get(method).space, partial(_built, setup, method)
    with threadpool_limits(limits=1):
        signals, truth = frames(setup, snr_db, VALIDATION)
        tuned = tune(build, space, signals, truth) if space else Tuned({}, np.nan)
        run = build(**tuned.parameters)
        run(signals[:1])  # excludes work that is done only once from the time
        signals, truth = frames(setup, snr_db, TEST)
        began = time.process_time()
        result = run(signals)
        cpu_ms = 1e3 * (time.process_time() - began) / len(truth)
    merits = {name: merit(result.image, truth) for name, merit in setup.merits.items()}
    if result.std is not None:
        covered = setup.covered()
        for level in metrics.LEVELS:
            width = half_width(result.std, result.quantiles, level)
            merits[f"coverage_{100 * level:.0f}"] = metrics.coverage(result.image, width, truth, covered)
    return Outcome(method, snr_db, result.image, merits, tuned, cpu_ms)


def refused(setup: Setup, methods: Sequence[str]) -> dict[str, str]:
    """The methods that do not support the grid, with reasons, such as networks for another grid.

    Raises
    ------
    InputError, ModelError
        As `compare`, for unknown methods and for an invalid bundle.
    """
    for method in methods:
        check(method)
        if get(method).network:
            Bundle.open(setup.model)
    reasons = {method: refusal(method, setup.grid) for method in methods}
    return {method: reason for method, reason in reasons.items() if reason}


def compare(
    setup: Setup,
    methods: Sequence[str],
    snrs: Sequence[float],
    workers: int = 1,
    report: Callable[[], None] = lambda: None,
) -> dict[tuple[str, float], Outcome]:
    """Assess every method at every SNR; ``report`` is called after each of them.

    Raises
    ------
    InputError
        For unknown methods, and for SNRs as `limits.decibels`.
    ModelError
        For learned methods whose model is not part of the package, and for an invalid bundle.
    MismatchError
        For methods for another grid; see `refused`.
    """
    for method, reason in refused(setup, methods).items():
        raise MismatchError(f"method '{method}': {reason}")
    jobs = [(setup, method, decibels(snr)) for method in methods for snr in snrs]
    outcomes = []
    for outcome in _run(jobs, workers):
        outcomes.append(outcome)
        report()
    found = {(one.method, one.snr_db): one for one in outcomes}
    return {(method, snr): found[method, snr] for _, method, snr in jobs}


def _run(jobs: Sequence[tuple[Setup, str, float]], workers: int) -> Iterable[Outcome]:
    if workers == 1:
        yield from (assess(*job) for job in jobs)
        return
    # Spawned, because a fork would copy locks held by threads of ONNX Runtime or BLAS.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            for done in as_completed([pool.submit(assess, *job) for job in jobs]):
                yield done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# -- statistics -----------------------------------------------------------------------------------------------------


def interval(values: Array) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over frames (F,), by percentiles."""
    chosen = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[chosen].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


@dataclass(frozen=True)
class Duel:
    """Our method against the best opponent at one SNR: paired differences of a figure of merit, frame by frame.

    Attributes
    ----------
    snr_db : float
    ours, opponent : str
    difference, low, high : float
        Mean of our figure minus that of the opponent, and its 95 % bootstrap interval.
    """

    snr_db: float
    ours: str
    opponent: str
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """The better method, or a draw if the interval contains zero."""
        return "ours" if self.low > 0 else "theirs" if self.high < 0 else "undecided"


def duels(outcomes: dict[tuple[str, float], Outcome], ours: str, merit: str = "psnr") -> list[Duel]:
    """Our method against the opponent with the largest mean, at every SNR for which both exist."""
    found = []
    for snr in dict.fromkeys(snr for _, snr in outcomes):
        means = {name: one.merits[merit].mean() for (name, at), one in outcomes.items() if at == snr}
        opponents = [name for name in means if not get(name).ours]
        if ours in means and opponents:
            best = max(opponents, key=lambda name: means[name])
            difference = outcomes[ours, snr].merits[merit] - outcomes[best, snr].merits[merit]
            found.append(Duel(snr, ours, best, float(difference.mean()), *interval(difference)))
    return found
