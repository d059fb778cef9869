"""A measurement and a matrix stored in every way that MDF allows give the same image."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mdf_files import DATA, DRIVE, RECEIVER, change, compound, convert, rename

from mpi_fast.calibration import Calibration
from mpi_fast.experiment import MeasuredMatrix, Receiver, measure_matrix, save_frames, save_matrix
from mpi_fast.mdf import MeasurementFile
from mpi_fast.pairing import MeasuredRows
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

CLOSE = 1e-4  # of the largest voxel
FRAMES, BACKGROUND = 4, 2


def same_file(examples: int) -> Any:
    """Hypothesis settings for tests that write into one folder again and again."""
    unfit = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=examples, deadline=None, suppress_health_check=unfit, derandomize=True)


@pytest.fixture(scope="module")
def matrix() -> MeasuredMatrix:
    return measure_matrix(Scanner(grid=(5, 6), sub_voxels=1), 30.0, np.random.default_rng(0))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, matrix: MeasuredMatrix) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    save_matrix(folder / "sm.mdf", matrix)
    rng = np.random.default_rng(1)
    selection = Calibration.from_mdf(folder / "sm.mdf").selection
    receiver = Receiver(matrix, selection, 30.0, rng)
    save_frames(folder / "m.mdf", receiver, generate("shape", FRAMES, (5, 6), rng), BACKGROUND)
    return folder


@pytest.fixture(scope="module")
def calibration(files: Path) -> Calibration:
    return Calibration.from_mdf(files / "sm.mdf")


def images(path: Path, calibration: Calibration) -> Any:
    """Images by Tikhonov regularisation, which is linear in the signals."""
    with MeasurementFile(path) as file:
        y = np.concatenate([calibration.reduce(rows).y for rows in MeasuredRows(file, calibration)])
    s = calibration.singular_values.astype(np.float64)
    return (y * s / (s**2 + 0.01 * s[0] ** 2)) @ calibration.basis.T


@pytest.fixture(scope="module")
def expected(files: Path, calibration: Calibration) -> Any:
    return images(files / "m.mdf", calibration)


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE * np.abs(expected).max())


@given(
    periods=st.sampled_from([1, 2]),
    fourier=st.booleans(),
    fast=st.booleans(),
    order=st.sampled_from(["all", "ascending", "descending", "shuffled"]),
    kind=st.sampled_from(["f4", "f8", ">f4", "i4", ">i8"]),
    names=st.sampled_from([None, ("r", "i"), ("real", "imag"), ("re", "im")]),
    conversion=st.booleans(),
    storage=st.sampled_from(["plain", "gzip", "chunks", "virtual", "link", "external link", "raw file", "five axes"]),
    quirks=st.sets(st.sampled_from(["numPeriods", "isTransposed", "flat divider", "float counts", "no gradient"])),
    seed=st.integers(0, 2**32 - 1),
)
@same_file(200)
def test_a_measurement(files, calibration, expected, tmp_path, seed, **how):
    path = tmp_path / "variant.mdf"
    store(files / "m.mdf", path, np.random.default_rng(seed), calibration=calibration, **how)
    assert_same(images(path, calibration), expected)


def store(
    source: Path,
    path: Path,
    rng: np.random.Generator,
    *,
    calibration: Calibration,
    periods: int,
    fourier: bool,
    fast: bool,
    order: str,
    kind: str,
    names: tuple[str, str] | None,
    conversion: bool,
    storage: str,
    quirks: set[str],
) -> None:
    """Store the measurement `source` in another way: (F + B, 1, C, V) volts, background last."""
    path.write_bytes(source.read_bytes())
    with h5py.File(source) as h5:
        volts = h5[DATA][()].astype(np.float64)
        background = h5["/measurement/isBackgroundFrame"][()]
    samples = volts.shape[-1]
    volts = volts.reshape(-1, periods, *volts.shape[2:])
    background = background.reshape(-1, periods)[:, 0]
    integers = kind.strip(">")[0] == "i"
    channels = volts.shape[2]
    scale, offset = rng.uniform(0.5, 2, channels), rng.uniform(-1e-3, 1e-3, channels)
    if integers:  # as fine as the type allows
        scale = np.abs(np.fft.rfft(volts) if fourier else volts).max() * 2.0**-28 * np.ones(channels)
        offset = 0 * scale
    if conversion or integers:
        volts = (volts - offset[:, None]) / scale[:, None]
        change(path, {f"{RECEIVER}/dataConversionFactor": np.stack([scale, offset], -1)})
    data = np.fft.rfft(volts) if fourier else volts
    if fourier and order != "all":
        needed = np.flatnonzero(calibration.selection.any(0))
        others = np.setdiff1d(np.arange(data.shape[-1]), needed)
        index = np.sort(np.concatenate([needed, rng.choice(others, 20, replace=False)]))
        index = {"ascending": index, "descending": index[::-1], "shuffled": rng.permutation(index)}[order]
        data = data[..., index]
        change(path, {"/measurement/frequencySelection": index + 1, "/measurement/isFrequencySelection": np.int8(1)})
    stored_as = rng.permutation(len(data))
    if fourier:
        part = np.dtype(kind)
        pairs = names or (("r", "i") if integers else None)
        values = compound_of(data, pairs, part) if pairs else data.astype("c8" if part.itemsize == 4 else "c16")
    else:
        values = (np.rint(data) if integers else data).astype(kind)
    values = values[stored_as]
    values = np.moveaxis(values, 0, -1) if fast else values
    flags = {"isFastFrameAxis": fast, "isFourierTransformed": fourier, "isFramePermutation": True}
    change(path, {f"/measurement/{name}": np.int8(value) for name, value in flags.items()})
    change(
        path,
        {
            "/measurement/framePermutation": stored_as + 1,
            "/measurement/isBackgroundFrame": background[stored_as],
            "/acquisition/numPeriodsPerFrame": periods,
            f"{RECEIVER}/numSamplingPoints": samples,
            f"{DRIVE}/strength": None,
        },
    )
    with h5py.File(source) as h5:
        change(path, {f"{DRIVE}/strength": np.repeat(h5[f"{DRIVE}/strength"][()], periods, 0)})
        change(path, {f"{DRIVE}/phase": np.repeat(h5[f"{DRIVE}/phase"][()], periods, 0)})
        change(path, {"/acquisition/gradient": np.repeat(h5["/acquisition/gradient"][()], periods, 0)})
    put(path, values, storage)
    for quirk in quirks:
        QUIRKS[quirk](path)


def compound_of(values: Any, names: tuple[str, str], part: Any) -> Any:
    whole = (np.rint(values.real), np.rint(values.imag)) if part.kind == "i" else (values.real, values.imag)
    out = np.empty(values.shape, [(name, part) for name in names])
    out[names[0]], out[names[1]] = whole
    return out


def put(path: Path, values: Any, storage: str) -> None:
    beside = path.with_name("beside.h5")
    beside.unlink(missing_ok=True)
    with h5py.File(path, "r+") as h5:
        del h5[DATA]
        if storage in ("plain", "five axes"):
            h5[DATA] = values[np.newaxis] if storage == "five axes" else values
        elif storage == "gzip":
            h5.create_dataset(DATA, data=values, compression="gzip", compression_opts=1, shuffle=True)
        elif storage == "chunks":
            h5.create_dataset(DATA, data=values, chunks=tuple(-(-n // 2) for n in values.shape))
        elif storage == "link":
            h5["/_elsewhere"] = values
            h5[DATA] = h5py.SoftLink("/_elsewhere")
        elif storage == "raw file":
            beside.write_bytes(values.tobytes())
            h5.create_dataset(DATA, values.shape, values.dtype, external=[(beside.name, 0, values.nbytes)])
        else:
            with h5py.File(beside, "w") as other:
                other["d"] = values
            if storage == "external link":
                h5[DATA] = h5py.ExternalLink(beside.name, "/d")
            else:
                layout = h5py.VirtualLayout(values.shape, values.dtype)
                layout[:] = h5py.VirtualSource(beside.name, "d", values.shape)
                h5.create_virtual_dataset(DATA, layout)


def rename_flag(path: Path) -> None:
    rename(path, "/measurement/isFastFrameAxis", "/measurement/isTransposed")


QUIRKS = {
    "numPeriods": lambda p: rename(p, "/acquisition/numPeriodsPerFrame", "/acquisition/numPeriods"),
    "isTransposed": rename_flag,
    "flat divider": lambda p: convert(p, f"{DRIVE}/divider", np.ravel),
    "float counts": lambda p: convert(p, f"{RECEIVER}/numSamplingPoints", lambda v: np.array([float(v)])),
    "no gradient": lambda p: change(p, {"/acquisition/gradient": None}),
}


@given(
    selected=st.sampled_from(["ascending", "descending", "shuffled"]),
    with_snr=st.booleans(),
    layout=st.sampled_from(["fast", "slow", "time"]),
    names=st.sampled_from([None, ("real", "imag")]),
    voxels=st.sampled_from(["xyz", "yxz", "zyx", "positions", "mirrored x", "mirrored y"]),
    seed=st.integers(0, 2**32 - 1),
)
@same_file(40)
def test_a_matrix(files, matrix, calibration, expected, tmp_path, selected, with_snr, layout, names, voxels, seed):
    """Rows, voxels and axes in another order, with or without stored SNR, give the same calibration."""
    path, rng = tmp_path / "sm.mdf", np.random.default_rng(seed)
    path.write_bytes((files / "sm.mdf").read_bytes())
    ny, nx = matrix.scanner.grid
    snr = np.where(calibration.selection, 9.0, 1.0)
    with h5py.File(path) as h5:
        data = h5[DATA][0]
        width, height, _ = h5["/calibration/fieldOfView"][()]
    count = nx * ny
    place = np.arange(count).reshape(ny, nx)
    if voxels in ("yxz", "zyx"):
        place = place.T
        change(path, {"/calibration/order": voxels})
    elif voxels.startswith("mirrored"):
        axis = voxels[-1]
        place = place[:, ::-1] if axis == "x" else place[::-1]
        signs = (-1, 1, 1) if axis == "x" else (1, -1, 1)
        convert(path, "/calibration/fieldOfView", lambda extent: extent * signs)
    elif voxels == "positions":
        place = rng.permutation(count)
        y, x = np.divmod(place, nx)
        middles = [((x + 0.5) / nx - 0.5) * width, ((y + 0.5) / ny - 0.5) * height, 0.0 * x]
        change(path, {"/calibration/positions": np.stack(middles, -1)})
    # Foreground first, background behind; acquired as before.
    frames = np.concatenate([place.ravel(), np.arange(count, data.shape[-1])])
    data = data[..., frames]
    convert(path, "/measurement/framePermutation", lambda acquired: acquired[frames])
    if layout != "time":
        index = np.arange(1, data.shape[1])
        index = {"ascending": index, "descending": index[::-1], "shuffled": rng.permutation(index)}[selected]
        data, snr = data[:, index], snr[:, index]
        change(path, {"/measurement/frequencySelection": index + 1, "/measurement/isFrequencySelection": np.int8(1)})
    elif layout == "time":
        data = np.fft.irfft(data, matrix.scanner.num_samples, axis=1)
    if names and layout != "time":
        data = compound(data, names)
    change(
        path,
        {
            DATA: data[np.newaxis] if layout == "fast" else np.moveaxis(data, -1, 0)[:, np.newaxis],
            "/calibration/snr": snr[np.newaxis] if with_snr else None,
            "/measurement/isFastFrameAxis": np.int8(layout == "fast"),
            "/measurement/isFourierTransformed": np.int8(layout != "time"),
        },
    )
    found = Calibration.from_mdf(path)
    np.testing.assert_array_equal(found.selection, calibration.selection)
    scale = np.abs(calibration.matrix).max()
    np.testing.assert_allclose(found.matrix, calibration.matrix, rtol=0, atol=1e-5 * scale)
    assert_same(images(files / "m.mdf", found), expected)
