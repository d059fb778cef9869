"""Matrices larger than memory are read in blocks, with few of their rows and without copies."""

import tracemalloc

import numpy as np
import pytest
from mdf_files import frames_first, time_domain

from mpi_fast import decomposition, scan
from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MPIFastWarning
from mpi_fast.experiment import acquisition_of, measure_matrix, save_matrix
from mpi_fast.mdf import write_system_matrix
from mpi_fast.preprocessing import RowFilter, best_rows
from mpi_fast.simulation import Scanner

GRID = 5, 6, 7
ARRAYS = "selection", "matrix", "weights", "singular_values", "basis", "projection"
LAYOUTS = {"rows": lambda path: None, "frames": frames_first}


@pytest.fixture(scope="module")
def volume():
    scanner = Scanner.volume(grid=GRID, voxel_size=(2e-3, 4e-3, 5e-3), dividers=(16, 15, 12), sub_voxels=1)
    return measure_matrix(scanner, 30.0, np.random.default_rng(0))


@pytest.fixture
def path(volume, tmp_path):
    save_matrix(tmp_path / "sm.mdf", volume)
    return tmp_path / "sm.mdf"


def assert_same(found, expected):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("rows", [1, 7, 50])
@pytest.mark.parametrize("stored", [True, False])
def test_blocks_say_what_the_whole_says(volume, path, monkeypatch, layout, rows, stored):
    """Row by row, with the SNR of the file and with a computed SNR."""
    if stored:
        snr = np.linalg.norm(volume.truth, axis=2)
        write_system_matrix(
            path,
            volume.foreground,
            size=GRID[::-1],
            field_of_view=(0.035, 0.024, 0.01),
            acquisition=acquisition_of(volume.scanner),
            background=volume.background,
            background_index=volume.background_index,
            snr=10 * (snr / snr.max()) ** 0.3,
        )
    layout(path)
    expected = Calibration.from_mdf(path, snr_threshold=2.0)
    assert 20 < expected.num_rows < expected.facts["candidate_rows"]
    monkeypatch.setattr(scan, "BLOCK_BYTES", rows * 16 * 210)
    assert_same(Calibration.from_mdf(path, snr_threshold=2.0), expected)
    if not stored:
        assert_same(volume.calibrate(RowFilter(2.0)), expected)


def test_samples_over_time_in_blocks(path, monkeypatch):
    import h5py

    with h5py.File(path) as file:
        samples = int(file["/acquisition/receiver/numSamplingPoints"][()])
    monkeypatch.setattr("mdf_files.SAMPLES", samples)
    time_domain(path)
    expected = Calibration.from_mdf(path, snr_threshold=2.0)
    monkeypatch.setattr(scan, "BLOCK_BYTES", 40 * 16 * 210)
    assert_same(Calibration.from_mdf(path, snr_threshold=2.0), expected)


@pytest.mark.parametrize("rows", [1, 20])
def test_a_volume_that_was_stopped_is_said_once(volume, path, monkeypatch, rows):
    monkeypatch.setattr(scan, "BLOCK_BYTES", rows * 16 * 210)
    stopped = volume.foreground.copy()
    stopped[..., 100:] = 0
    arrays = {"background": volume.background, "order": (volume.foreground_index, volume.background_index)}
    with pytest.warns(
        MPIFastWarning, match="110 of 210 voxels hold nothing but zeros, the first is number 100"
    ) as said:
        found = Calibration.from_arrays(
            stopped, volume.frequencies, GRID, (0.1, 0.1, 0.1), rows=RowFilter(2.0), **arrays
        )
    assert len(said) == 1
    assert not found.matrix[:, 100:].any()
    assert found.matrix[:, :100].any(axis=0).all()


def test_nan_in_a_block_is_placed(volume, monkeypatch):
    monkeypatch.setattr(scan, "BLOCK_BYTES", 3 * 16 * 210)
    broken = volume.foreground.copy()
    broken[1, 40, 5] = np.nan
    place = volume.frequencies[40] / 1e3
    with pytest.raises(InputError, match=rf"1 rows of the foreground frames, .* channel 1 at {place:.6g} kHz"):
        Calibration.from_arrays(broken, volume.frequencies, GRID, (0.1, 0.1, 0.1), rows=RowFilter(0.0, 0.0))


# -- how many rows ----------------------------------------------------------------------------------------------------


def test_the_rows_of_best_snr_are_kept(volume):
    every = volume.calibrate(RowFilter(2.0))
    few = volume.calibrate(RowFilter(2.0, max_rows=30))
    assert (few.num_rows, few.facts["enough_snr_rows"]) == (30, every.num_rows)
    assert not (few.selection & ~every.selection).any()
    kept = few.selection[every.selection]
    size = np.linalg.norm(every.matrix, axis=1) * every.weights
    assert size[kept].mean() > 2 * size[~kept].mean()
    np.testing.assert_array_equal(few.matrix, every.matrix[kept])


def test_of_unknown_snr_the_strongest_rows_are_kept(volume):
    options = {"grid": GRID, "field_of_view": (0.1, 0.1, 0.1)}
    few = Calibration.from_arrays(volume.truth, volume.frequencies, **options, rows=RowFilter(max_rows=12))
    power = np.where(volume.frequencies >= 80e3, np.linalg.norm(volume.truth, axis=2), 0)
    assert power[few.selection].min() >= np.sort(power.ravel())[-12]


def test_volumes_have_a_limit_and_planes_none():
    assert RowFilter().limit((19, 19, 19)) == 6000
    assert RowFilter().limit((19, 19)) == np.inf
    assert RowFilter(max_rows=7).limit((19, 19)) == 7
    chosen = np.array([[True, True, False], [True, True, True]])
    merit = np.array([[1.0, 5.0, 9.0], [-np.inf, 2.0, 5.0]])
    np.testing.assert_array_equal(best_rows(chosen, merit, 2), [[False, True, False], [False, False, True]])
    np.testing.assert_array_equal(best_rows(chosen, merit, 99), chosen)


# -- memory -----------------------------------------------------------------------------------------------------------


def traced(make):
    tracemalloc.start()
    made = make()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return made, peak


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A matrix of 24 x 25 x 26 voxels; 160 of 400 rows, 20 MB, are above the threshold."""
    path, rng = tmp_path_factory.mktemp("large") / "sm.mdf", np.random.default_rng(0)
    grid = 24, 25, 26
    scanner = Scanner.volume(grid=grid, voxel_size=(1e-3,) * 3, dividers=(16, 15, 14))
    voxels, count = np.prod(grid), len(scanner.frequencies)
    shapes = rng.standard_normal((30, voxels)).astype(np.float32)
    factors = rng.standard_normal((3, count, 30)) + 1j * rng.standard_normal((3, count, 30))
    matrix = (1e2 * factors.astype(np.complex64)) @ shapes
    noise = rng.standard_normal((2, 3, count, voxels + 20)).astype(np.float32)
    noise = noise[0] + 1j * noise[1]
    matrix += noise[..., 20:]
    snr = np.zeros((3, count))
    snr.flat[rng.permutation(snr.size)[:160]] = 9.0
    write_system_matrix(
        path,
        matrix,
        size=grid[::-1],
        field_of_view=(0.026, 0.025, 0.024),
        acquisition=acquisition_of(scanner),
        background=noise[..., :20],
        snr=snr,
    )
    return path


def test_memory_is_bounded_by_the_selected_rows(large, tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "BLOCK_BYTES", 2 << 20)
    monkeypatch.setattr(decomposition, "BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr(decomposition, "SMALL", 1 << 20)
    monkeypatch.setattr("mpi_fast.mdf.signals._BLOCK_BYTES", 1 << 20)
    calibration, peak = traced(lambda: Calibration.from_mdf(large, min_frequency=0.0))
    assert calibration.num_rows == 160
    assert peak < 2.5 * calibration.matrix.nbytes
    path = tmp_path / "scanner.h5"
    calibration.save(path)
    monkeypatch.setattr("mpi_fast.calibration_fields.PART_BYTES", 1 << 20)
    loaded, peak = traced(lambda: Calibration.load(path))
    assert peak < 1.2 * path.stat().st_size
    assert_same(loaded, calibration)
