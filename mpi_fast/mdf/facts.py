"""Read `Acquisition`: the parameters of drive field, receiver and study in a file, stored in any usual shape."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.array_types import ComplexArray, FloatArray, IntArray, TextArray
from mpi_fast.mdf.datasets import Datasets, as_texts
from mpi_fast.mdf.period_length import check_sampling
from mpi_fast.mdf.specification import TYPES

_DRIVE, _RECEIVER = "/acquisition/drivefield", "/acquisition/receiver"
# Groups about study, experiment, tracer and scanner.
_DESCRIPTIVE = ("study", "experiment", "tracer", "scanner")


def read_acquisition(datasets: Datasets, periods: int, channels: int, samples: int, stored: IntArray) -> Acquisition:
    """Read the acquisition parameters.

    Parameters
    ----------
    datasets : Datasets
    periods, channels, samples : int
        J, C and V of the data.
    stored : int64 array (K',)
        The frequencies in the file, in the order of storage.

    Raises
    ------
    FileFormatError
        If a parameter is missing, has a wrong shape, or contradicts others.
    """
    divider = _divider(datasets, f"{_DRIVE}/divider")
    gradients = _gradients(datasets, "/acquisition/gradient", periods)
    acquisition = Acquisition(
        base_frequency=datasets.positive(f"{_DRIVE}/baseFrequency"),
        divider=divider,
        strength=_per_period(datasets, f"{_DRIVE}/strength", periods, divider.shape),
        phase=_per_period(datasets, f"{_DRIVE}/phase", periods, divider.shape, default=math.nan),
        gradient=None if gradients is None else gradients[0, 0],
        bandwidth=datasets.positive(f"{_RECEIVER}/bandwidth", f"{_RECEIVER}/bandwidthSampling"),
        num_samples=samples,
        num_channels=channels,
        periods_per_frame=periods,
        cycle=datasets.number(f"{_DRIVE}/cycle", default=0.0),
        num_averages=datasets.count("/acquisition/numAverages", default=1),
        gradients=gradients,
        offset_field=_offset_field(datasets, "/acquisition/offsetField", periods),
        waveform=_waveform(datasets, f"{_DRIVE}/waveform", divider.shape),
        unit=_stated(datasets, f"{_RECEIVER}/unit"),
        induction_factor=_per_channel(datasets, f"{_RECEIVER}/inductionFactor", channels),
        transfer_function=_transfer_function(datasets, channels, samples, stored),
        start_time=_stated(datasets, "/acquisition/startTime"),
        description=_description(datasets),
    )
    check_sampling(datasets, acquisition)
    return acquisition


def _divider(datasets: Datasets, name: str) -> IntArray:
    divider = datasets.integers(name)
    while divider.ndim > 2 and len(divider) == 1:
        divider = divider[0]
    if divider.ndim > 2 or divider.size == 0 or divider.min() < 0:
        datasets.fail(name, f"has shape {divider.shape}; D x F whole numbers from 0 were expected")
    # A bare list has one entry for each of the D drive channels.
    return divider if divider.ndim == 2 else divider.reshape(-1, 1)


def _per_period(
    datasets: Datasets, name: str, periods: int, shape: tuple[int, ...], default: float | None = None
) -> FloatArray:
    if default is not None and datasets.find(name) is None:
        return np.full((1, *shape), default)
    values = datasets.numbers(name)
    if not values.size or values.size % math.prod(shape):
        expected = f"J x D x F = {periods} x {shape[0]} x {shape[1]}"
        datasets.fail(name, f"has shape {values.shape}; {expected} was expected")
    sets = values.reshape(-1, *shape)
    # Another count here, such as that of patches, is accepted because nothing is computed from it.
    return sets if len(sets) == periods else sets[:1]


def _gradients(datasets: Datasets, name: str, periods: int) -> FloatArray | None:
    """Read the gradient matrix of every period and patch, (J, Y, 3, 3); older files store its diagonal."""
    if datasets.find(name) is None:
        return None
    values = datasets.numbers(name)
    if not values.size or not (_are_matrices(values) or values.shape[-1:] == (3,)):
        datasets.fail(name, f"has shape {values.shape}; J x Y x 3 x 3 was expected")
    if _are_matrices(values):
        return _patches(values.reshape(-1, 3, 3), periods)
    return _patches(np.apply_along_axis(np.diag, -1, values.reshape(-1, 3)), periods)


def _are_matrices(values: FloatArray) -> bool:
    return values.shape[-2:] == (3, 3) or values.shape == (9,)


# The following values are only compared with other files and copied, so unusual shapes are accepted.


def _offset_field(datasets: Datasets, name: str, periods: int) -> FloatArray | None:
    """Read the offset field of every period and patch, (J, Y, 3), from one to three axes."""
    values = datasets.numbers(name) if datasets.find(name) is not None else np.empty(0)
    return _patches(values.reshape(-1, 3), periods) if values.size and values.shape[-1:] == (3,) else None


def _patches(values: FloatArray, periods: int) -> FloatArray:
    """Turn (J * Y, ...) into (J, Y, ...), with J = 1 if the count is not a multiple of the number of periods."""
    return values.reshape(periods if len(values) % periods == 0 else 1, -1, *values.shape[1:])


def _waveform(datasets: Datasets, name: str, shape: tuple[int, ...]) -> TextArray | None:
    if datasets.find(name) is None:
        return None
    texts = as_texts(datasets.array(name))
    if texts.size not in (1, math.prod(shape)):
        return None
    return np.broadcast_to(texts.reshape(-1), math.prod(shape)).reshape(shape)


def _per_channel(datasets: Datasets, name: str, channels: int) -> FloatArray | None:
    values = datasets.numbers(name) if datasets.find(name) is not None else np.empty(0)
    if values.size not in (0, channels):
        datasets.warn(name, f"has shape {values.shape}, not C = {channels}: it is not compared with other files")
    return values.reshape(channels) if values.size == channels else None


def _transfer_function(datasets: Datasets, channels: int, samples: int, stored: IntArray) -> ComplexArray | None:
    """Read the transfer function at all frequencies, (C, K), or only at the stored ones."""
    names = f"{_RECEIVER}/transferFunction", f"{_RECEIVER}/transferfunction"
    stated = datasets.first(*names)
    if stated is None:
        return None
    values, full = datasets.complexes(*names), (channels, samples // 2 + 1)
    if values is not None and values.shape == (*full, 2):
        values = values[..., 0] + 1j * values[..., 1]
    if values is None or values.shape not in (full, (channels, stored.size)):
        if stated.size:
            expected = f"complex C x K = {channels} x {full[1]}"
            datasets.warn(stated.name, f"has shape {stated.shape}, not {expected}: it is not compared with other files")
        return None
    found = np.full(full, np.nan, np.complex128)
    found[:, slice(None) if values.shape == full else stored] = values
    return found


def _stated(datasets: Datasets, name: str) -> str | None:
    return datasets.text(name) if datasets.find(name) is not None else None


def _description(datasets: Datasets) -> dict[str, Any]:
    """Read the specified datasets of study, experiment, tracer and scanner, of any type."""
    stated = {}
    for name in TYPES:
        if name.split("/")[1] in _DESCRIPTIVE and datasets.find(name) is not None:
            values = datasets.array(name)
            stated[name] = (as_texts(values) if values.dtype.kind in "OSU" else values).tolist()
    return stated
