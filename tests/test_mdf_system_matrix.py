"""System matrices are written, and read in every layout and by planes, with their acquisition."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mdf_files import (
    CHANNELS,
    CLOSE,
    CYCLE,
    DATA,
    DRIVE,
    POINTS,
    RECEIVER,
    acquisition,
    assert_same_acquisition,
    change,
    compound,
    convert,
    fill,
    frames_first,
    frames_last,
    permute_frames,
    quick,
    rename,
    spectra,
    system_matrix,
    time_domain,
)

from mpi_fast.mdf import SystemMatrixFile, validate, write_system_matrix


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


def rows_of(values):
    """Values (C, K, n) as rows."""
    return values.reshape(values.shape[0] * values.shape[1], values.shape[2])


def test_system_matrix_round_trip(path):
    matrix, background = system_matrix(path, delta_sample_size=(2e-3, 2e-3, 1e-3))
    with SystemMatrixFile(path) as file:
        grid = file.grid()
        assert file.foreground(grid).dtype == np.complex64
        np.testing.assert_array_equal(file.foreground(grid), rows_of(matrix))
        np.testing.assert_array_equal(file.background(), rows_of(background))
        np.testing.assert_array_equal(file.background_index, [0, 1, 6, 15])
        np.testing.assert_array_equal(file.foreground_index(grid), [2, 3, 4, 5, *range(7, 15)])
        np.testing.assert_array_equal(file.frequency_index, np.arange(POINTS))
        assert_same_acquisition(file.acquisition, acquisition())
        assert file.snr.shape == (CHANNELS, POINTS)
        assert file.size == (4, 3, 1)
        assert file.num_rows == CHANNELS * POINTS
        assert file.delta_sample_size == (2e-3, 2e-3, 1e-3)
        assert not file.background_corrected


@quick
@given(
    size=st.tuples(st.integers(2, 5), st.integers(2, 4), st.just(1)),
    channels=st.integers(1, 3),
    samples=st.integers(2, 9),
    background=st.integers(0, 3),
    wide=st.booleans(),
)
def test_system_matrix_shapes(path, size, channels, samples, background, wide):
    points, voxels = samples // 2 + 1, size[0] * size[1]
    data = spectra(channels, points, voxels + background, dtype=np.complex128 if wide else np.complex64)
    write_system_matrix(
        path,
        data[..., :voxels],
        background=data[..., voxels:],
        size=size,
        field_of_view=(0.1, 0.2, 0.3),
        acquisition=acquisition(samples, channels),
    )
    assert validate(path) == []
    with SystemMatrixFile(path) as file:
        assert file.grid().shape == (size[1], size[0])
        assert file.foreground(file.grid()).dtype == data.dtype
        np.testing.assert_array_equal(file.foreground(file.grid()), rows_of(data[..., :voxels]))
        np.testing.assert_array_equal(file.background(), rows_of(data[..., voxels:]))


LAYOUTS = {
    "frames first": frames_first,
    "time domain": time_domain,
    "time domain, frames last": lambda p: (time_domain(p), frames_last(p)),
    "real and imag": lambda p: convert(p, DATA, lambda d: compound(d, ("real", "imag"))),
    "five axes": lambda p: convert(p, DATA, lambda d: d[np.newaxis]),
    "big endian": lambda p: convert(p, DATA, lambda d: d.astype(">c8")),
    "background first": lambda p: permute_frames(p, np.roll(np.arange(16), 4), -1),
    "background among voxels": lambda p: permute_frames(p, np.r_[0:5, 13, 12, 5:12, 15, 14], -1),
    "no isFastFrameAxis": lambda p: change(p, {"/measurement/isFastFrameAxis": None}),
    "isTransposed": lambda p: rename(p, "/measurement/isFastFrameAxis", "/measurement/isTransposed"),
    "snr C x K": lambda p: convert(p, "/calibration/snr", lambda d: d[0]),
    "no order": lambda p: change(p, {"/calibration/order": None}),
    "order as bytes": lambda p: change(p, {"/calibration/order": np.bytes_("xyz")}),
    "order as array": lambda p: change(p, {"/calibration/order": np.array([b"XYZ"])}),
    "size as floats": lambda p: convert(p, "/calibration/size", lambda d: d[np.newaxis].astype(np.float32)),
    "bool flags": lambda p: convert(p, "/measurement/isBackgroundFrame", lambda d: d.astype(bool)),
    "uint8 flags": lambda p: convert(p, "/measurement/isBackgroundFrame", lambda d: d.astype(np.uint8)[None]),
    "flag as array": lambda p: change(p, {"/measurement/isFourierTransformed": np.array([1], np.uint8)}),
    "permutation without flag": lambda p: change(p, {"/measurement/isFramePermutation": None}),
    "no optional flags": lambda p: change(
        p,
        {
            f"/measurement/is{name}": None
            for name in ("SparsityTransformed", "BackgroundCorrected", "SpectralLeakageCorrected")
        },
    ),
}


@pytest.mark.parametrize("quirk", LAYOUTS)
def test_every_layout_reads_the_same(path, quirk):
    matrix, background = system_matrix(path)
    with SystemMatrixFile(path) as file:
        snr, order = file.snr, file.foreground_index(file.grid())
    LAYOUTS[quirk](path)
    rows = np.array([0, 5, POINTS, POINTS + 3, 2])
    with SystemMatrixFile(path) as file:
        grid = file.grid()
        np.testing.assert_allclose(file.foreground(grid), rows_of(matrix), **CLOSE)
        np.testing.assert_allclose(file.foreground(grid, rows), rows_of(matrix)[rows], **CLOSE)
        np.testing.assert_allclose(file.background(rows), rows_of(background)[rows], **CLOSE)
        np.testing.assert_array_equal(file.background_index, [0, 1, 6, 15])
        np.testing.assert_array_equal(file.foreground_index(grid), order)
        np.testing.assert_array_equal(file.snr, snr)


def test_unpermuted_frames_were_acquired_as_stored(path):
    system_matrix(path, background_index=None)
    with SystemMatrixFile(path) as file:
        np.testing.assert_array_equal(file.foreground_index(file.grid()), np.arange(12))
        np.testing.assert_array_equal(file.background_index, np.arange(12, 16))


@pytest.mark.parametrize("blocks", [1, 200, 1 << 20])
@pytest.mark.parametrize("layout", [lambda p: None, frames_first, time_domain])
def test_blocks_of_any_size_read_the_same(path, monkeypatch, blocks, layout):
    matrix, background = system_matrix(path, (4, 3, 2))
    layout(path)
    monkeypatch.setattr("mpi_fast.mdf.signals._BLOCK_BYTES", blocks)
    with SystemMatrixFile(path) as file:
        plane = file.grid(("x", 2))
        np.testing.assert_allclose(file.foreground(plane), rows_of(matrix)[:, 2::4], **CLOSE)
        np.testing.assert_allclose(file.background(), rows_of(background), **CLOSE)


@pytest.mark.parametrize("order", ["".join(p) for p in permutations("xyz")])
@pytest.mark.parametrize(("axis", "index"), [("z", 1), ("y", 0), ("x", 3)])
def test_planes_in_any_voxel_order(path, order, axis, index):
    size = {"x": 4, "y": 3, "z": 2}
    volume = np.arange(24).reshape(2, 3, 4)  # [z, y, x]
    slowest_first = order[::-1]
    stored = volume.transpose(["zyx".index(a) for a in slowest_first]).reshape(-1)
    matrix = np.broadcast_to(stored, (CHANNELS, POINTS, 24)).astype(np.complex64)
    write_system_matrix(
        path,
        matrix,
        size=(4, 3, 2),
        field_of_view=(0.4, 0.3, 0.2),
        acquisition=acquisition(),
        center=(1, 2, 3),
    )
    change(path, {"/calibration/order": order})
    with SystemMatrixFile(path) as file:
        grid = file.grid((axis, index))
        assert file.volume_extent == (0.4, 0.3, 0.2)
        image = file.foreground(grid)[0].real.reshape(grid.shape)
    np.testing.assert_array_equal(image, np.take(volume, index, "zyx".index(axis)))
    rows, columns = grid.axes
    assert grid.shape == (size[rows], size[columns])
    assert grid.field_of_view == pytest.approx((size[rows] / 10, size[columns] / 10))
    normal = "xyz".index(axis)
    assert grid.extent[normal] == pytest.approx(0.1)
    # Voxels are 0.1 m wide, so the first one lies half the field of view less half a voxel off the centre.
    assert grid.center[normal] == pytest.approx((1, 2, 3)[normal] - size[axis] / 20 + 0.05 + index / 10)


def test_frequency_selection(path):
    selected = np.array([1, 3, 4])
    data, snr = spectra(CHANNELS, 3, 12), np.ones((CHANNELS, 3))
    options = {"size": (4, 3, 1), "field_of_view": (1, 1, 1), "acquisition": acquisition()}
    write_system_matrix(path, data, frequency_index=selected, snr=snr, **options)
    assert validate(path) == []
    with SystemMatrixFile(path) as file:
        np.testing.assert_array_equal(file.frequency_index, selected)
        np.testing.assert_array_equal(file.foreground(file.grid()), rows_of(data))
        assert file.snr.shape == (CHANNELS, 3)
    everywhere = np.arange(CHANNELS * POINTS, dtype=float).reshape(1, CHANNELS, POINTS)
    change(path, {"/calibration/snr": everywhere})
    with SystemMatrixFile(path) as file:
        np.testing.assert_array_equal(file.snr, everywhere[0][:, selected])


def test_reading_a_plane_is_lazy(path):
    """The data take 128 MB."""
    system_matrix(path, (20, 20, 20), background_index=None)
    fill(path, (1, CHANNELS, 1001, 8004), (1, 1, 7, 8004), np.complex64)
    change(
        path,
        {
            f"{RECEIVER}/numSamplingPoints": 2000,
            f"{RECEIVER}/bandwidth": 2000 / (2 * CYCLE),
            "/calibration/snr": None,
        },
    )
    rows = np.arange(0, 2002, 20)
    with SystemMatrixFile(path) as file:
        grid = file.grid(("y", 9))
        tracemalloc.start()
        matrix = file.foreground(grid, rows)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert matrix.shape == (101, 400)
    assert peak < 20e6


FACTS = {
    "numPeriods": lambda p: rename(p, "/acquisition/numPeriodsPerFrame", "/acquisition/numPeriods"),
    "no periods": lambda p: change(p, {"/acquisition/numPeriodsPerFrame": None}),
    "bandwidthSampling": lambda p: rename(p, f"{RECEIVER}/bandwidth", f"{RECEIVER}/bandwidthSampling"),
    "gradient 3 axes": lambda p: convert(p, "/acquisition/gradient", lambda g: g[0]),
    "gradient 2 axes": lambda p: convert(p, "/acquisition/gradient", lambda g: g[0, 0]),
    "gradient diagonal": lambda p: change(p, {"/acquisition/gradient": [-1.0, -1.0, 2.0]}),
    "gradient J x 3": lambda p: change(p, {"/acquisition/gradient": [[-1.0, -1.0, 2.0]]}),
    "gradient flat": lambda p: convert(p, "/acquisition/gradient", np.ravel),
    "scalars as arrays": lambda p: convert(p, f"{DRIVE}/baseFrequency", lambda v: np.array([[v]], np.float32)),
    "whole numbers as floats": lambda p: convert(p, f"{RECEIVER}/numSamplingPoints", lambda v: np.array([float(v)])),
    "divider flat": lambda p: convert(p, f"{DRIVE}/divider", np.ravel),
    "divider three axes": lambda p: convert(p, f"{DRIVE}/divider", lambda v: v[np.newaxis].astype(float)),
    "strength flat": lambda p: convert(p, f"{DRIVE}/strength", np.ravel),
    "strength of other periods": lambda p: convert(p, f"{DRIVE}/strength", lambda v: np.repeat(v, 3, 0)),
    "cycle zero": lambda p: change(p, {f"{DRIVE}/cycle": 0.0}),
    "no cycle": lambda p: change(p, {f"{DRIVE}/cycle": None}),
    "version as bytes": lambda p: change(p, {"/version": np.bytes_("2.0.1")}),
}


@pytest.mark.parametrize("quirk", FACTS)
def test_acquisition_facts_in_any_form(path, quirk):
    system_matrix(path)
    FACTS[quirk](path)
    with SystemMatrixFile(path) as file:
        assert_same_acquisition(file.acquisition, acquisition())
        np.testing.assert_allclose(file.acquisition.frequencies, np.arange(POINTS) / CYCLE)


def test_absent_optional_facts(path):
    system_matrix(path)
    change(path, {"/acquisition/gradient": None, "/acquisition/numAverages": None, "/calibration/snr": None})
    with SystemMatrixFile(path) as file:
        assert file.acquisition.gradient is None
        assert file.acquisition.num_averages == 1
        assert file.snr is None
        assert file.delta_sample_size is None
