"""Your own method in comparison with the others: written in ten lines, tuned like them, on the same frames.

The example is Landweber's iteration, x <- max(x + t A^T (y - A x), 0), stopped after some steps. This program adds it
to the methods directly. A package can add it for everybody who installs it, by these lines of its pyproject.toml. Then
`mpi-fast compare --methods "landweber art posterior"` accepts it, too:

    [project.entry-points."mpi_fast.methods"]
    landweber = "their_package:LANDWEBER"
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast import plots
from mpi_fast.calibration import Calibration
from mpi_fast.comparison import Setup, compare, frames
from mpi_fast.likelihood import Likelihood
from mpi_fast.methods import REGISTRY, Entry, get
from mpi_fast.methods.base import ReducedMethod, check_count
from mpi_fast.methods.tuning import Axis


class Landweber(ReducedMethod):
    """Projected gradient descent with ``iterations`` steps, starting from zero."""

    def __init__(self, calibration: Calibration, iterations: int = 100) -> None:
        super().__init__(calibration)
        check_count(iterations=iterations)
        self.iterations = int(iterations)

    def solve(self, likelihood: Likelihood) -> NDArray[np.floating]:
        """Images (F, N) of the reduced signals y (F, R): A is ``basis * singular_values``, (N, R)."""
        forward = likelihood.basis * likelihood.singular_values
        step = 1 / likelihood.singular_values[0] ** 2
        images = np.zeros((len(likelihood.y), len(forward)))
        for _ in range(self.iterations):
            images = np.maximum(images + step * (likelihood.y - images @ forward) @ forward.T, 0)
        return images


# The tuned parameter: from 10 to 1000 steps, and beyond as long as it improves, on frames not used for the evaluation.
LANDWEBER = Entry("Landweber", Landweber, {"iterations": Axis((10, 100, 1000), low=1, high=3000, whole=True)})
REGISTRY["landweber"] = LANDWEBER  # not necessary for a package with the lines above

setup = Setup(phantoms=7)  # one of each held-out family; 64 for figures to publish
outcomes = compare(setup, ["landweber", "tikhonov", "posterior"], snrs=[15.0])
for (method, snr), outcome in outcomes.items():
    quality = outcome.merits["psnr"].mean()
    print(f"{get(method).title:10} at {snr:g} dB: PSNR {quality:.1f} dB {outcome.tuned.parameters or ''}")

_, truth = frames(setup, 15.0)
images = np.stack([truth[0], *(outcome.image[0] for outcome in outcomes.values())])
titles = ["truth", *(get(method).title for method, _ in outcomes)]
figure = plots.reconstruction_figure(images, None, setup.heldout.scanner.field_of_view, titles=titles)
plots.save(figure, Path("own_method.png"))
