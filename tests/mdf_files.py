"""MDF files for tests: a small calibration and measurement, and the variants that occur in practice."""

import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from mpi_fast.errors import FileFormatError
from mpi_fast.mdf import Acquisition, MeasurementFile, SystemMatrixFile, write_measurement, write_system_matrix

CHANNELS, SAMPLES = 2, 16
POINTS = SAMPLES // 2 + 1
CYCLE = 652.8e-6
DATA = "/measurement/data"
DRIVE, RECEIVER = "/acquisition/drivefield", "/acquisition/receiver"

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def acquisition(samples: int = SAMPLES, channels: int = CHANNELS, periods: int = 1) -> Acquisition:
    return Acquisition(
        base_frequency=2.5e6,
        divider=np.array([[102], [96]]),
        strength=np.full((1, 2, 1), 0.012),
        phase=np.full((1, 2, 1), np.pi / 2),
        gradient=np.diag([-1.0, -1.0, 2.0]),
        bandwidth=samples / (2 * CYCLE),
        num_samples=samples,
        num_channels=channels,
        periods_per_frame=periods,
        cycle=CYCLE,
        num_averages=1000,
    )


def spectra(*shape: int, seed: int = 0, dtype: Any = np.complex64) -> Any:
    """Random complex numbers."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((2, *shape))
    return (values[0] + 1j * values[1]).astype(dtype)


def voltages(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def system_matrix(path: Path, size: tuple[int, int, int] = (4, 3, 1), **options: Any) -> tuple[Any, Any]:
    """Write a matrix, background frames acquired as 0, 1, 6 and last; return foreground and background."""
    voxels = int(np.prod(size))
    matrix = np.fft.rfft(voltages(CHANNELS, voxels, SAMPLES)).swapaxes(1, 2).astype(np.complex64)
    background = np.fft.rfft(voltages(CHANNELS, 4, SAMPLES, seed=1)).swapaxes(1, 2).astype(np.complex64)
    given = {
        "size": size,
        "field_of_view": (0.04, 0.03, 0.01),
        "acquisition": acquisition(),
        "background": background,
        "background_index": np.array([0, 1, 6, voxels + 3]),
        "snr": np.random.default_rng(2).uniform(0, 10, (CHANNELS, POINTS)),
    }
    write_system_matrix(path, matrix, **(given | options))
    return matrix, background


def measurement(path: Path, frames: int = 6, periods: int = 1, background: int = 2, **options: Any) -> Any:
    """Write a time-domain measurement; return its voltages, background frames last."""
    values = voltages(frames + background, periods, CHANNELS, SAMPLES)
    write_measurement(
        path,
        values[:frames],
        acquisition=acquisition(periods=periods),
        background=values[frames:] if background else None,
        **options,
    )
    return values


def change(path: Path, values: dict[str, Any]) -> None:
    """Replace datasets by values with the types of NumPy; None deletes them."""
    with h5py.File(path, "r+") as h5:
        for name, value in values.items():
            if name in h5:
                del h5[name]
            if value is not None:
                h5[name] = value


def fill(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any) -> None:
    """Replace the data by ones, compressed, so that large data need little space."""
    chunk = zlib.compress(np.ones(chunks, dtype).tobytes())
    with h5py.File(path, "r+") as h5:
        del h5[DATA]
        data = h5.create_dataset(DATA, shape, dtype, chunks=chunks, compression="gzip")
        for start in itertools.product(*(range(0, n, step) for n, step in zip(shape, chunks, strict=True))):
            data.id.write_direct_chunk(start, chunk)


def replace(path: Path, make: Callable[[Any, Any], Any]) -> Any:
    """Replace the data by what `make(h5, old)` creates."""
    with h5py.File(path, "r+") as h5:
        old = h5[DATA][()]
        del h5[DATA]
        make(h5, old)
    return old


def refused(path: Path, message: str, kind: type[MeasurementFile] | type[SystemMatrixFile] = MeasurementFile) -> None:
    """Assert that opening or reading raises FileFormatError, with the file's name and a message."""
    with pytest.raises(FileFormatError, match=message) as caught, kind(path) as file:
        list(file.frames()) if isinstance(file, MeasurementFile) else file.foreground(file.grid())
    assert path.name in str(caught.value)


def rename(path: Path, old: str, new: str) -> None:
    with h5py.File(path, "r+") as h5:
        h5.move(old, new)


def convert(path: Path, name: str, function: Callable[[Any], Any]) -> None:
    """Replace a dataset by a function of it."""
    with h5py.File(path, "r+") as h5:
        value = function(h5[name][()])
    change(path, {name: value})


def compound(values: Any, names: tuple[str, str]) -> Any:
    """Complex numbers as a compound of two fields."""
    out = np.empty(values.shape, [(name, values.real.dtype) for name in names])
    out[names[0]], out[names[1]] = values.real, values.imag
    return out


def frames_first(path: Path) -> None:
    """Change J x C x K x N to N x J x C x K."""
    convert(path, DATA, lambda data: np.moveaxis(data, -1, 0))
    change(path, {"/measurement/isFastFrameAxis": np.int8(0)})


def frames_last(path: Path) -> None:
    """Change N x J x C x V to J x C x V x N."""
    convert(path, DATA, lambda data: np.moveaxis(data, 0, -1))
    change(path, {"/measurement/isFastFrameAxis": np.int8(1)})


def time_domain(path: Path) -> None:
    """Change J x C x K x N to N x J x C x V."""
    convert(path, DATA, lambda data: np.fft.irfft(np.moveaxis(data, -1, 0), SAMPLES, axis=-1))
    change(path, {"/measurement/isFastFrameAxis": np.int8(0), "/measurement/isFourierTransformed": np.int8(0)})


def permute_frames(path: Path, order: Any, axis: int) -> None:
    """Store frame `order[i]` at place i and write the permutation, as MPIFiles does."""
    convert(path, DATA, lambda data: np.take(data, order, axis))
    convert(path, "/measurement/isBackgroundFrame", lambda flags: flags[order])
    with h5py.File(path) as h5:
        known = h5.get("/measurement/framePermutation")
        acquired = np.arange(len(order)) + 1 if known is None else known[()]
    change(
        path,
        {"/measurement/framePermutation": acquired[order], "/measurement/isFramePermutation": np.int8(1)},
    )


def assert_same_acquisition(found, expected):
    """Compare all values that `expected` states; writers add others, such as waveform and unit."""
    stated = {name: value for name, value in vars(expected).items() if value is not None and name != "description"}
    for name, value in stated.items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
