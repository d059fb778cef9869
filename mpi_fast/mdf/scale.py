"""Convert stored numbers to physical ones, and decide whether dataConversionFactor applies to them.

MDF maps raw values r of channel c to `a_c r + b_c` in the receiver's unit. The samples of a measurement are raw, and so
are their spectra, for which the offset affects only the constant component. A system matrix, however, is stored after
processing. Its spectra are already physical, and a factor in the file was copied from the raw data, as MPIFiles does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpi_fast.mdf.array_types import FloatArray
from mpi_fast.mdf.datasets import Datasets

_NAME = "/acquisition/receiver/dataConversionFactor"


@dataclass(frozen=True)
class Scale:
    """Conversion of stored numbers to physical ones.

    Attributes
    ----------
    factor : float64 array (C, 2), or None
        Scale and offset of each channel; None if the numbers are already physical.
    reason : str
        The conversion and its reason, as a text for users.
    """

    factor: FloatArray | None
    reason: str


def read_scale(
    datasets: Datasets,
    channels: int,
    *,
    fourier: bool,
    raw_integers: bool,
    processed: bool | None,
    background_corrected: bool,
    transfer_function_corrected: bool,
) -> Scale:
    """Decide whether the factor applies.

    Parameters
    ----------
    datasets : Datasets
    channels : int
    fourier, raw_integers : bool
        Whether the data are spectra, and whether they are whole numbers, as from an analogue-digital converter.
    processed : bool, or None
        Whether spectra are those of a system matrix, stored row by row; None if unknown.
    background_corrected, transfer_function_corrected : bool

    Raises
    ------
    FileFormatError
        If the factor is not C x 2 finite numbers, or if it is unclear whether it was already applied.
    """
    if datasets.find(_NAME) is None:
        return Scale(None, "as stored: no conversion factor is stated")
    if fourier and processed and not raw_integers:
        return Scale(None, "as stored: the conversion factor is that of raw samples, and a matrix is physical already")
    factor = datasets.numbers(_NAME)
    if factor.shape[-2:] != (channels, 2) or factor.size != 2 * channels:
        datasets.fail(_NAME, f"has shape {factor.shape}; C x 2 = {channels} x 2 was expected")
    factor = factor.reshape(channels, 2)
    if not np.isfinite(factor).all() or not factor[:, 0].all():
        datasets.fail(_NAME, f"is {factor.tolist()}; finite scales other than zero, and finite offsets, were expected")
    if (factor == (1, 0)).all():
        return Scale(None, "as stored: the conversion factor is 1 and the offset 0")
    scales = ", ".join(f"{scale:.4g}" for scale in factor[:, 0])
    unclear = "whose transfer function is corrected" if transfer_function_corrected else ""
    unclear = "of a matrix that is stored frame by frame" if fourier and processed is None else unclear
    if unclear and not raw_integers:
        datasets.fail(
            _NAME,
            f"is {scales} beside data {unclear}: nobody can tell whether they are converted already; remove the factor "
            "if they are, convert them if they are not",
        )
    if background_corrected:
        return Scale(factor * (1, 0), f"times the conversion factor ({scales}); its offset went with the background")
    return Scale(factor, f"converted from raw numbers: times the conversion factor ({scales}), plus its offset")
