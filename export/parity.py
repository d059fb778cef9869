"""How far an exported network is from the original: on random inputs, and on the images that come out in the end."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines import Engine
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.engines.torch import TorchEngine
from mpi_fast.errors import ModelError
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import FAMILIES, generate
from mpi_fast.preprocessing import RowFilter
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.schedule import karras_sigmas
from mpi_fast.simulation import Scanner
from mpi_fast.training.checkpoint import Checkpoint

TOLERANCE = 1e-4  # relative to the largest value of the original's output
STEPS = 5
FRAMES, SAMPLES = 3, 2
SNRS_DB = (5.0, 15.0, 25.0, 35.0)


@dataclass(frozen=True)
class Parity:
    """Largest difference of one comparison, relative to the largest value of the original's output."""

    what: str
    relative: float

    def to_dict(self) -> dict[str, str | float]:
        """For the manifest."""
        return asdict(self)


def compare(checkpoint: Checkpoint, bundle: Bundle) -> list[Parity]:
    """Compare a bundle with the checkpoint it was made from.

    Raises
    ------
    ModelError
        When a difference exceeds `TOLERANCE`, or is NaN.
    """
    exported, original = OnnxEngine(bundle), TorchEngine(checkpoint)
    rng = np.random.default_rng(0)
    results = [
        Parity(f"random input, noise level {sigma:.3g}", _on_random_input(exported, original, float(sigma), rng))
        for sigma in karras_sigmas(STEPS, *checkpoint.sigma_range)[:-1]
    ]
    results.append(
        Parity(f"images of {len(FAMILIES) * len(SNRS_DB)} frames", _on_frames(exported, original, bundle.path))
    )
    worst = max(results, key=lambda one: np.inf if np.isnan(one.relative) else one.relative)
    if not worst.relative <= TOLERANCE:
        raise ModelError(
            f"the exported network is not the original: relative difference {worst.relative:.2g} on {worst.what}, "
            f"allowed {TOLERANCE:g}; no bundle was written"
        )
    return results


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _on_random_input(exported: Engine, original: Engine, sigma: float, rng: np.random.Generator) -> float:
    evaluators = [engine.bind(FRAMES, SAMPLES) for engine in (exported, original)]
    first = evaluators[0]
    condition, image = rng.standard_normal(first.condition.shape), rng.standard_normal(first.image.shape)
    condition[:, 1] = rng.uniform(0.05, 1.0, condition[:, 1].shape)
    image[:, 1] = rng.uniform(0.05, 1.0, image[:, 1].shape) * sigma / np.hypot(1.0, sigma)
    image[:, 2] *= np.hypot(1.0, sigma)
    for evaluator in evaluators:
        evaluator.condition[:], evaluator.image[:], evaluator.sigma[:] = condition, image, sigma
        evaluator.encode()
    return _relative(evaluators[0].denoise(), evaluators[1].denoise())


def _on_frames(exported: Engine, original: Engine, path: Path) -> float:
    """Every family of phantoms at every SNR, seen by the default scanner."""
    bundle = Bundle.open(path)
    scanner = Scanner(grid=bundle.grid)
    calibration = Calibration.from_arrays(
        scanner.system_matrix(),
        scanner.frequencies,
        scanner.grid,
        scanner.field_of_view,
        rows=RowFilter(max_frequency=4e5),
    )
    phantoms = generate(list(FAMILIES), len(FAMILIES), bundle.grid, seed=0).reshape(len(FAMILIES), -1)
    rng = np.random.default_rng(1)
    rows = np.concatenate([add_noise(phantoms @ calibration.matrix.T, snr, rng) for snr in SNRS_DB])
    images = [
        Reconstructor(calibration, path, samples=2, steps=STEPS, engine=engine)(rows).image
        for engine in (exported, original)
    ]
    return _relative(*images)
