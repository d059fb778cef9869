"""How far each exported artefact is from the original: on random inputs, and on the images that come out in the end."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines import Engine
from mpi_fast.engines.onnx import SCORE, OnnxEngine, open_session
from mpi_fast.engines.torch import TorchEngine
from mpi_fast.errors import ModelError
from mpi_fast.guidance import CONDITION_CHANNELS, WIDTHS
from mpi_fast.metrics import psnr
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import FAMILIES, generate
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Sampling
from mpi_fast.preprocessing import RowFilter
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.schedule import karras_sigmas
from mpi_fast.simulation import Scanner
from mpi_fast.training.checkpoint import Checkpoint

TOLERANCE = 1e-4  # fp32: relative to the largest value of the original's output
PSNR_LOSS_DB = 0.05  # fp16: mean over the frames
FRAMES, SAMPLES = 3, 2
OPTIONS = ("steps", "samples", "consensus")
SNRS_DB = (5.0, 20.0, 35.0)

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Parity:
    """One comparison with the original.

    Attributes
    ----------
    artefact, what : str
        Which file, and on what.
    largest, relative : float
        Largest absolute difference, and that relative to the largest value of the original's output.
    psnr_change_db : float or None
        Of images, mean over the frames; negative for a loss.
    allowed : str
        What makes the export fail, in words; empty where nothing does.
    passed : bool
        Whether it is met.
    """

    artefact: str
    what: str
    largest: float
    relative: float
    psnr_change_db: float | None
    allowed: str
    passed: bool

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def compare(checkpoint: Checkpoint, bundle: Bundle, calibration: Calibration | None = None) -> list[Parity]:
    """Compare a bundle with the checkpoint it was made from.

    Parameters
    ----------
    checkpoint : Checkpoint
        The original.
    bundle : Bundle
        With any of the artefacts that `bundle` describes.
    calibration : Calibration, optional
        Of the frozen graph, if there is one.

    Raises
    ------
    ModelError
        When a difference exceeds what is allowed, or is NaN.
    """
    original = TorchEngine(checkpoint)
    graphs = bundle.manifest.get("graphs", ())
    default = {"steps": Sampling().steps, "samples": SAMPLES}
    first = {name: graphs[0][name] for name in OPTIONS} if graphs else default
    results: list[Parity] = []
    held_out = _Frames(_scanner(bundle.grid))
    reference = held_out.images(bundle, first, original)
    for precision in bundle.manifest.get("precision", ("fp32",)):
        exported, name = OnnxEngine(bundle, precision=precision), SCORE[precision]
        results += [
            _difference(name, f"random input, noise level {sigma:.3g}", *_on_random_input(exported, original, sigma))
            for sigma in karras_sigmas(first["steps"], *checkpoint.sigma_range)[:-1].tolist()
        ]
        images = held_out.images(bundle, first, exported)
        results.append(held_out.difference(name, images, reference))
    for graph in graphs:
        options = {name: graph[name] for name in OPTIONS}
        expected = reference if options == first else held_out.images(bundle, options, original)
        results.append(held_out.difference(graph["file"], held_out.images(bundle, options), expected))
    for graph in bundle.manifest.get("frozen", ()) if calibration else ():
        assert calibration is not None
        frames, options = _Frames(calibration), {name: graph[name] for name in OPTIONS}
        found = _frozen(
            bundle, graph["file"], frames.rows, mirrored_normal(0, graph["samples"], calibration.num_voxels)
        )
        expected = frames.images(bundle, options, original)
        results.append(frames.difference(graph["file"], found, expected))
    _require(results)
    return results


def _require(results: list[Parity]) -> None:
    for one in results:
        if not one.passed:
            raise ModelError(
                f"the exported network is not the original: {one.artefact}: relative difference {one.relative:.2g}"
                f"{'' if one.psnr_change_db is None else f', PSNR {one.psnr_change_db:+.3f} dB'} on {one.what}, "
                f"allowed {one.allowed}; no bundle was written"
            )


def _difference(
    artefact: str, what: str, found: Images, expected: Images, psnr_change_db: float | None = None
) -> Parity:
    """Judge: fp32 by the relative difference, fp16 by what it does to the images."""
    largest = float(np.abs(found - expected).max())
    relative = largest / float(np.abs(expected).max())
    if artefact != SCORE["fp16"]:
        return Parity(
            artefact, what, largest, relative, psnr_change_db, f"{TOLERANCE:g} relative", relative <= TOLERANCE
        )
    if psnr_change_db is None:
        return Parity(artefact, what, largest, relative, None, "", bool(np.isfinite(relative)))
    allowed = f"{PSNR_LOSS_DB:g} dB loss"
    return Parity(artefact, what, largest, relative, psnr_change_db, allowed, psnr_change_db >= -PSNR_LOSS_DB)


def _on_random_input(exported: Engine, original: Engine, sigma: float) -> tuple[Images, Images]:
    rng = np.random.default_rng(round(1e6 * sigma))
    evaluators = [engine.bind(FRAMES, SAMPLES) for engine in (exported, original)]
    first = evaluators[0]
    condition, image = rng.standard_normal(first.condition.shape), rng.standard_normal(first.image.shape)
    deviations = condition[:, CONDITION_CHANNELS // 2 :]
    deviations[:] = rng.uniform(0.05, 1.0, deviations.shape) * np.reshape(WIDTHS, (-1, 1, 1))
    image[:, 1] = rng.uniform(0.05, 1.0, image[:, 1].shape) * sigma / np.hypot(1.0, sigma)
    image[:, 2] *= np.hypot(1.0, sigma)
    for evaluator in evaluators:
        evaluator.condition[:], evaluator.image[:], evaluator.sigma[:] = condition, image, sigma
        evaluator.encode()
    return evaluators[0].denoise(), evaluators[1].denoise()


def _scanner(grid: tuple[int, int]) -> Calibration:
    """The default scanner on a grid."""
    scanner = Scanner(grid=grid)
    return Calibration.from_arrays(
        scanner.system_matrix(),
        scanner.frequencies,
        *scanner.plane,
        rows=RowFilter(max_frequency=4e5),
    )


class _Frames:
    """Every family of phantoms at every SNR, seen by a scanner, with seeds that training does not use."""

    def __init__(self, calibration: Calibration) -> None:
        phantoms = generate(list(FAMILIES), len(FAMILIES), calibration.grid, seed=0)
        signals, rng = phantoms.reshape(len(FAMILIES), -1) @ calibration.matrix.T, np.random.default_rng(1)
        self.calibration = calibration
        self.rows = np.concatenate([add_noise(signals, snr, rng) for snr in SNRS_DB]).astype(np.complex64)
        self._truth = np.tile(phantoms, (len(SNRS_DB), 1, 1))

    def images(self, bundle: Bundle, options: dict[str, Any], engine: str | Engine = "auto") -> Images:
        """As the Reconstructor makes them on the CPU."""
        reconstruct = Reconstructor(self.calibration, bundle.path, device="cpu", engine=engine, **options)
        return reconstruct(self.rows).image

    def difference(self, artefact: str, found: Images, expected: Images) -> Parity:
        change = float(np.nanmean(psnr(found, self._truth)) - np.nanmean(psnr(expected, self._truth)))
        return _difference(artefact, f"images of {len(found)} frames", found, expected, change)


def _frozen(bundle: Bundle, name: str, rows: NDArray[np.complex64], initial: Images) -> Images:
    session = open_session(bundle, name, None)
    planes = {"real": np.ascontiguousarray(rows.real), "imag": np.ascontiguousarray(rows.imag)}
    feeds = {given.name: {**planes, "initial": initial}[given.name] for given in session.get_inputs()}
    image: Images = session.run(["image"], feeds)[0]
    return image
