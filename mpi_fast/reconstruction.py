"""The result of a `Reconstructor`: images, their uncertainty, and diagnostics of the frames."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpi_fast.uncertainty import half_width

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Reconstruction:
    """Images of F frames, (ny, nx) or (nz, ny, nx).

    Attributes
    ----------
    image : (F, *grid) float32
        The concentration, not negative, in the unit of the calibration's delta sample. Zero for
        frames whose signals noise alone explains (`likelihood.signal_presence`).
    std : (F, *grid) float32
        Uncertainty, in the image's unit: the expected root-mean-square error of the image, as the network has learned
        it; for intervals see `half_width`.
    snr_db : (F,) float32
        Estimated signal-to-noise ratio, ``20 log10(||signal|| / ||noise||)`` over the whitened rows.
    noise_floor : (F,) float32
        Root-mean-square over the voxels of the error that noise alone would cause in a linear estimate.
    elapsed_ms : float
        Wall-clock time of the call per frame.
    misfit : (F, 3) float32, or None
        Three ratios to noise, see `misfit`; each is about one if the frame fits the calibration. They are the energy
        outside the range of the matrix, relative to background frames (NaN without them); the part of it that a changed
        receive chain would cause; and the residual of the image, ``||y - S V^T x||^2 / (R sigma^2)``, before any
        correction by `consistency`. None for signals on a GPU, and without ``inspect``.
    flags : (F,) uint8, or None
        Sum of `flags.Flag`: bad, clipped, empty, foreign, dead. None for signals on a GPU.
    quantiles : (F, 2) float32, or None
        Quantiles of the errors of each frame, see `uncertainty`; None if errors are assumed to be normal.
    """

    image: Array
    std: Array
    snr_db: Array
    noise_floor: Array
    elapsed_ms: float
    misfit: Array | None = None
    flags: NDArray[np.uint8] | None = None
    quantiles: Array | None = None

    def half_width(self, level: float) -> Array:
        """Half-width of intervals ``image +- half_width`` that contain the truth in a share of the voxels, say 0.95.

        (F, *grid) float32, in the image's unit; a concentration is not negative, so intervals end at zero.

        Raises
        ------
        InputError
            For a level that is not between 0 and 1.
        """
        return half_width(self.std, self.quantiles, level)

    def __len__(self) -> int:
        return len(self.image)

    def _repr_html_(self) -> str:
        from mpi_fast import notebook  # a display, which no computation needs

        return notebook.of_reconstruction(self)
