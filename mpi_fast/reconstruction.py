"""What a `Reconstructor` makes of frames: images, how uncertain they are, and what was found on the way."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpi_fast import notebook
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
        Uncertainty, in the image's unit: the root-mean-square of the image's error to be expected; for intervals see
        `half_width`. The network has learned it.
    snr_db : (F,) float32
        Signal-to-noise ratio found, ``20 log10(||signal|| / ||noise||)`` over the whitened rows.
    noise_floor : (F,) float32
        Root-mean-square over the voxels of what the frame's noise alone would leave in a linear estimate.
    elapsed_ms : float
        Wall-clock time of the call per frame.
    misfit : (F, 3) float32, or None
        What the calibration does not explain, see `misfit`: the noise outside its range over that of background frames
        (NaN without such), what a changed receive chain would leave over noise, and what the image leaves of the
        signals over noise, ``||y - S V^T x||^2 / (R sigma^2)``, before the signals overrule it (`consistency`). Each is
        about one if all is right. None for signals on a GPU, and where nobody asked.
    flags : (F,) uint8, or None
        Sum of `flags.Flag`: bad, clipped, empty, foreign, dead. None for signals on a GPU.
    quantiles : (F, 2) float32, or None
        How the errors of a frame are spread, see `uncertainty`; None where they are taken for normal.
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
        """How far intervals reach that hold the truth in a share of the voxels, such as 0.95: ``image +- half_width``.

        (F, *grid) float32, in the image's unit; a concentration is not negative, so intervals end at zero.

        Raises
        ------
        InputError
            For a level that is no share.
        """
        return half_width(self.std, self.quantiles, level)

    def __len__(self) -> int:
        return len(self.image)

    def _repr_html_(self) -> str:
        return notebook.of_reconstruction(self)
