"""Calibrations lose no information of the signals, estimate the noise level, and refuse bad matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_fast.calibration import Calibration
from mpi_fast.errors import FileFormatError, InputError, MismatchError
from mpi_fast.experiment import acquisition_of
from mpi_fast.mdf import write_system_matrix
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.preprocessing import RowFilter, background_weights
from mpi_fast.reduction import SNR_CEILING_DB, reduce_matrix


@pytest.fixture(scope="module")
def exact(measured) -> Calibration:
    """A calibration from a matrix without noise, so nothing is truncated or shrunk."""
    return Calibration.from_arrays(
        measured.truth, measured.scanner.frequencies, (19, 19), (0.038, 0.038), rows=RowFilter(max_frequency=3e5)
    )


def test_the_posterior_from_y_is_the_posterior_from_b():
    """The reduction is a sufficient statistic, for any Gaussian prior, in float64 to 1e-8."""
    rng = np.random.default_rng(0)
    rows, voxels, sigma = 60, 25, 0.3
    matrix = rng.standard_normal((rows, voxels)) + 1j * rng.standard_normal((rows, voxels))
    matrix *= np.geomspace(1, 1e-3, rows)[:, None]
    b = rng.standard_normal(rows) + 1j * rng.standard_normal(rows)
    factor = rng.standard_normal((voxels, voxels))
    prior = np.linalg.inv(factor @ factor.T + np.eye(voxels))
    stacked, signal = np.concatenate([matrix.real, matrix.imag]), np.concatenate([b.real, b.imag])
    u, s, v = reduce_matrix(matrix)
    from_b = np.linalg.solve(stacked.T @ stacked / sigma**2 + prior, stacked.T @ signal / sigma**2)
    reduced = s[:, None] * v.T
    from_y = np.linalg.solve(reduced.T @ reduced / sigma**2 + prior, reduced.T @ (u.T @ signal) / sigma**2)
    np.testing.assert_allclose(from_y, from_b, rtol=1e-8, atol=1e-10)


def test_reduced_signals_are_those_of_the_factors(exact):
    images = generate("tumours", 4, seed=1).reshape(4, -1)
    reduced = exact.reduce((images @ exact.matrix.T).astype(np.complex64))
    expected = images @ exact.basis * exact.singular_values
    np.testing.assert_allclose(reduced.y, expected, atol=1e-4 * np.abs(expected).max())


def test_forward_operator_and_its_adjoint(exact):
    """<A x, b> = <x, A^H b> for the whitened operator, computed with the stored factors."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(exact.num_voxels)
    b = rng.standard_normal(exact.num_rows) + 1j * rng.standard_normal(exact.num_rows)
    forward = (exact.projection.conj().T @ (exact.singular_values * (exact.basis.T @ x))) / exact.weights**2
    backward = exact.basis @ (exact.singular_values * (exact.projection @ b).real)
    assert np.vdot(forward * exact.weights, b * exact.weights).real == pytest.approx(x @ backward, rel=1e-4)


@pytest.mark.parametrize("snr", [0.0, 10.0, 20.0, 30.0])
def test_noise_level_is_found_without_being_told(calibration, true_rows, snr):
    images = generate(["tumours", "vessels"], 40, seed=7).reshape(40, -1)
    clean = (images @ true_rows.T) * calibration.weights
    rows = add_noise(clean, snr, np.random.default_rng(5)) / calibration.weights
    reduced = calibration.reduce(rows.astype(np.complex64))
    sigma = np.linalg.norm(clean, axis=1) * 10 ** (-snr / 20) / np.sqrt(2 * calibration.num_rows)
    np.testing.assert_allclose(np.median(reduced.noise / sigma), 1, atol=0.05)
    np.testing.assert_allclose(np.median(reduced.snr_db), snr, atol=0.5)


def test_frames_without_noise_are_not_believed_blindly(exact):
    rows = generate("dots", 3, seed=0).reshape(3, -1) @ exact.matrix.T
    reduced = exact.reduce(rows)
    np.testing.assert_allclose(reduced.snr_db, SNR_CEILING_DB, atol=1)
    assert (reduced.noise > 0).all()


def test_zero_and_noise_only_frames(calibration):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((50, calibration.num_rows)) + 1j * rng.standard_normal((50, calibration.num_rows))
    reduced = calibration.reduce((noise / calibration.weights).astype(np.complex64))
    np.testing.assert_allclose(reduced.noise.mean(), 1, atol=0.02)
    assert not calibration.reduce(np.zeros((2, calibration.num_rows), np.complex64)).noise.any()


@pytest.mark.parametrize(("every", "block"), [(361, 40), (57, 5), (19, 2), (19, 1)])
def test_a_matrix_of_noise_alone_has_no_rank(every, block):
    """This holds for every layout of background frames, although subtracting them correlates neighbouring voxels."""
    rng = np.random.default_rng(every)
    total = 361 + -(-361 // every) * block
    empty = np.arange(total) % (every + block) < block
    order = np.flatnonzero(~empty)[:361], np.flatnonzero(empty)
    frames = rng.standard_normal((200, total)) + 1j * rng.standard_normal((200, total))
    weights = background_weights(*order)
    noise = frames[:, order[0]] - frames[:, order[1]] @ weights
    with pytest.raises(InputError, match="rises above the noise"):
        reduce_matrix(noise / 1.05, weights)  # the noise level itself is known to a few per cent


def test_directions_that_calibration_noise_alone_makes_are_dropped(measured, calibration):
    blind = Calibration.from_arrays(measured.matrix, measured.scanner.frequencies, (19, 19), (0.038, 0.038))
    assert calibration.rank < 200 < blind.rank


def test_a_corrected_matrix_still_tells_its_noise_by_its_background_frames(tmp_path, measured):
    path, n = tmp_path / "sm.mdf", 361
    mean = measured.background.mean(axis=2, keepdims=True)
    write_system_matrix(
        path,
        (measured.matrix - mean).astype(np.complex64),
        size=(19, 19, 1),
        field_of_view=(0.038, 0.038, 0.001),
        acquisition=acquisition_of(measured.scanner),
        background=(measured.background - mean).astype(np.complex64),
        background_index=np.arange(n, n + 40),
        background_corrected=True,
    )
    corrected, plain = Calibration.from_mdf(path), measured.calibrate()
    assert abs(corrected.rank - plain.rank) <= 2
    np.testing.assert_array_equal(corrected.selection, plain.selection)


@pytest.mark.parametrize("snr", [0.0, np.nan, np.inf, 7.0])
def test_stored_snr_that_makes_no_sense_is_computed_instead(tmp_path, measured, snr):
    path = tmp_path / "sm.mdf"
    stored = np.full((3, 817), snr)
    write_system_matrix(
        path,
        measured.matrix.astype(np.complex64),
        size=(19, 19, 1),
        field_of_view=(0.038, 0.038, 0.001),
        acquisition=acquisition_of(measured.scanner),
        background=measured.background.astype(np.complex64),
        snr=stored,
    )
    found = Calibration.from_mdf(path)
    assert found.num_rows == (2292 if snr == 7.0 else measured.calibrate().num_rows)
    found.save(tmp_path / "scanner.h5")


def test_time_spectra_and_rows_say_the_same(measured, calibration):
    spectra = (measured.truth @ generate("bars", 3, seed=2).reshape(3, -1).T).transpose(2, 0, 1)
    volts = np.fft.irfft(spectra, n=measured.scanner.num_samples, axis=-1)
    spectra = np.fft.rfft(volts, axis=-1)
    rows = calibration.rows(spectra[:, calibration.selection])
    np.testing.assert_array_equal(rows, calibration.rows(spectra))
    np.testing.assert_allclose(rows, calibration.rows(volts), atol=1e-6 * np.abs(rows).max())


def test_mdf_gives_the_same_calibration_as_arrays(tmp_path, measured, calibration):
    path, n = tmp_path / "sm.mdf", 361
    write_system_matrix(
        path,
        measured.matrix.astype(np.complex64),
        size=(19, 19, 1),
        field_of_view=(0.038, 0.038, 0.001),
        acquisition=acquisition_of(measured.scanner),
        background=measured.background.astype(np.complex64),
        background_index=np.arange(n, n + 40),
    )
    found = Calibration.from_mdf(path)
    np.testing.assert_array_equal(found.selection, calibration.selection)
    np.testing.assert_allclose(found.singular_values, calibration.singular_values, rtol=1e-4)
    assert found.grid == (19, 19)
    np.testing.assert_array_equal(found.acquisition.divider, [[102], [96]])


def test_saved_and_loaded(tmp_path, calibration):
    path = tmp_path / "scanner.h5"
    calibration.save(path)
    loaded = Calibration.load(path)
    for name in ("matrix", "weights", "singular_values", "basis", "projection", "selection", "frequencies"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(calibration, name))
    assert (loaded.grid, loaded.field_of_view, loaded.facts) == (
        calibration.grid,
        calibration.field_of_view,
        calibration.facts,
    )
    assert Calibration.open(path).rank == calibration.rank
    with pytest.raises(InputError, match="calibrated already"):
        Calibration.open(path, plane=("z", 3))


@pytest.mark.parametrize("damage", ["truncate", "foreign", "newer", "missing array"])
def test_damaged_files(tmp_path, calibration, damage):
    import h5py

    path = tmp_path / "scanner.h5"
    calibration.save(path)
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        with h5py.File(path, "a") as file:
            if damage == "foreign":
                del file["kind"]
            elif damage == "newer":
                file["format"][()] = 99
            else:
                del file["basis"]
    with pytest.raises(FileFormatError, match=r"scanner\.h5"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("signals", "error"),
    [
        (np.zeros((2, 3, 100)), MismatchError),
        (np.zeros((2, 4, 817), complex), MismatchError),
        (np.zeros((2, 17), complex), MismatchError),
        (np.zeros((2, 17)), InputError),
        (np.zeros(17, complex), InputError),
        (np.zeros((2, 3, 1632), dtype="U1"), InputError),
        (np.full((2, 3, 1632), np.nan), InputError),
        (np.full((2, 3, 817), np.inf + 0j), InputError),
    ],
)
def test_signals_that_do_not_fit(calibration, signals, error):
    with pytest.raises(error, match="signals"):
        calibration.rows(signals)


def test_matrices_that_cannot_be_used(measured):
    frequencies = measured.scanner.frequencies
    broken = measured.truth.copy()
    broken[0, 300, 5] = np.nan
    with pytest.raises(InputError, match="NaN"):
        Calibration.from_arrays(broken, frequencies, (19, 19), (0.038, 0.038))
    with pytest.raises(InputError, match="expected"):
        Calibration.from_arrays(measured.truth, frequencies, (19, 20), (0.038, 0.04))
    with pytest.raises(InputError, match="zero"):
        Calibration.from_arrays(np.zeros_like(measured.truth), frequencies, (19, 19), (0.038, 0.038))
    with pytest.raises(InputError, match="rows selected"):
        measured.calibrate(rows=RowFilter(min_frequency=1e5, max_frequency=1.02e5, channels=[0]))


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(5, 60), voxels=st.integers(1, 40), seed=st.integers(0, 99))
def test_some_directions_are_always_left_for_the_noise(rows, voxels, seed):
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((rows, voxels)) + 1j * rng.standard_normal((rows, voxels))
    u, s, v = reduce_matrix(matrix)
    assert 1 <= len(s) <= min(voxels, 2 * rows - 8)
    np.testing.assert_allclose(u.T @ u, np.eye(len(s)), atol=1e-10)
    np.testing.assert_allclose(v.T @ v, np.eye(len(s)), atol=1e-10)
