"""Faults of calibration scans and background frames are reported, and do not affect images."""

import numpy as np
import pytest

from mpi_fast.background import summarise, without_outliers
from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MPIFastWarning
from mpi_fast.experiment import acquisition_of
from mpi_fast.mdf import write_system_matrix

RNG = np.random.default_rng(0)


def noise(*shape, rng=RNG):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def write(path, measured, background, snr=None, matrix=None, index=None):
    write_system_matrix(
        path,
        (measured.matrix if matrix is None else matrix).astype(np.complex64),
        size=(19, 19, 1),
        field_of_view=(0.038, 0.038, 0.001),
        acquisition=acquisition_of(measured.scanner),
        background=background.astype(np.complex64),
        background_index=index,
        snr=snr,
    )
    return path


# -- unknown noise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (lambda b: b[..., :1], "1 background frame cannot show the noise"),
        (lambda b: np.repeat(b[..., :1], 5, axis=2), "5 background frames that are all the same cannot"),
        (lambda b: 0 * b[..., :3], "3 background frames that are all the same cannot"),
    ],
)
def test_background_frames_that_show_no_noise(tmp_path, measured, frames, message):
    path = write(tmp_path / "sm.mdf", measured, frames(measured.background))
    with pytest.warns(MPIFastWarning, match=message) as said:
        found = Calibration.from_mdf(path)
    assert len(said) == 1
    assert found.facts["best_snr"] is None
    assert not found.noise_known
    np.testing.assert_array_equal(found.weights, found.weights[0])  # all rows have the same weight
    expected = (measured.matrix - frames(measured.background).mean(axis=2, keepdims=True))[found.selection]
    np.testing.assert_allclose(found.matrix, expected, atol=1e-5 * np.abs(expected).max())


def test_a_row_without_noise_is_no_row_of_infinite_snr(measured):
    background = measured.background.copy()
    used = np.flatnonzero(measured.scanner.frequencies >= 80e3)[:5]
    background[0, used] = 0
    found = Calibration.from_arrays(
        measured.matrix, measured.scanner.frequencies, (19, 19), (0.038, 0.038), background=background
    )
    assert found.facts["best_snr"] < 1e4
    assert found.weights.max() < 20 * np.median(found.weights)


def test_rows_of_infinite_stored_snr_stay_and_are_named(tmp_path, measured):
    snr = np.full((3, 817), 7.0)
    snr[0, 200:210] = np.inf
    path = write(tmp_path / "sm.mdf", measured, measured.background, snr)
    with pytest.warns(MPIFastWarning, match="infinite in 10 of 2451 rows"):
        found = Calibration.from_mdf(path)
    assert found.selection[0, 200:210].all()
    assert found.facts["best_snr"] == 7.0


# -- outliers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [0, 17, 39])
@pytest.mark.parametrize("samples", [1, 3])
def test_one_sample_of_one_background_frame_spoils_no_matrix(tmp_path, measured, frame, samples):
    """One or a few samples of a hundred times the maximum do not change the calibration; the frame is named."""
    volts = np.fft.irfft(measured.background, 1632, axis=1)
    volts[0, 100 : 100 + samples, frame] = 100 * np.abs(volts).max()
    index = np.arange(361, 401)
    path = write(tmp_path / "sm.mdf", measured, np.fft.rfft(volts, axis=1), index=index)
    with pytest.warns(MPIFastWarning, match=rf"background frame {frame} \(of 40, from 0\) has \d+ values"):
        found = Calibration.from_mdf(path)
    expected = measured.calibrate()
    assert (found.selection == expected.selection).mean() > 0.998
    assert abs(found.rank - expected.rank) <= 1
    both = found.selection & expected.selection
    a, b = found.matrix[both[found.selection]], expected.matrix[both[expected.selection]]
    np.testing.assert_allclose(a, b, atol=0.02 * np.abs(b).max())


def test_outliers_are_replaced_and_drifts_and_steps_are_not():
    frames = noise(50, 40) + np.linspace(0, 900, 40)
    frames[:, 20:] += 5000  # a separate block
    same, replaced = without_outliers(frames)
    assert same is frames
    assert not replaced.any()
    broken = frames.copy()
    broken[3, 7] += 1e5
    broken[:, 30] += 1e6
    found, replaced = without_outliers(broken)
    np.testing.assert_array_equal(np.flatnonzero(replaced), [7, 30])
    assert (replaced[7], replaced[30]) == (1, 50)
    np.testing.assert_allclose(found, frames, atol=60)


@pytest.mark.parametrize("count", [3, 4, 5])
def test_an_outlier_is_found_among_few_frames(count):
    frames = noise(30, count)
    for place in range(count):
        broken = frames.copy()
        broken[:, place] += 1e4
        found, replaced = without_outliers(broken)
        assert np.flatnonzero(replaced).tolist() == [place]
        np.testing.assert_allclose(found, frames, atol=9)


@pytest.mark.parametrize("kind", ["gaussian", "student"])
def test_noise_has_no_outliers(kind):
    rng = np.random.default_rng(5)
    frames = noise(400, 60, rng=rng)
    if kind == "student":
        frames = frames * np.sqrt(1 / rng.chisquare(3, frames.shape))
    assert without_outliers(frames)[1].sum() <= (3 if kind == "student" else 0)


def test_a_measurement_s_background_is_combined_in_chunks():
    frames = noise(150, 20) + 100
    whole = summarise([frames], "m.mdf")
    parts = summarise([frames[:64], frames[64:128], frames[128:]], "m.mdf")
    np.testing.assert_allclose(parts.mean, whole.mean)
    np.testing.assert_allclose(parts.energy, whole.energy)
    np.testing.assert_allclose(whole.mean, frames.mean(axis=0))
    np.testing.assert_allclose(whole.energy, np.square(np.abs(frames - frames.mean(axis=0))).sum(axis=0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_background_frame_is_left_out_unless_all_are(value):
    frames = noise(10, 20)
    frames[4, 3] = value
    with pytest.warns(MPIFastWarning, match="NaN or Inf in 1 of 10 background frames: left out"):
        found = summarise([frames], "m.mdf")
    np.testing.assert_allclose(found.mean, np.delete(frames, 4, axis=0).mean(axis=0))
    with pytest.raises(InputError, match="NaN or Inf in 10 of 10 background frames"):
        summarise([frames * value], "m.mdf")


# -- voxels and numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached", [1, 200, 360])
def test_a_scan_that_was_stopped(tmp_path, measured, reached):
    matrix = measured.matrix.copy()
    matrix[..., reached:] = 0
    path = write(tmp_path / "sm.mdf", measured, measured.background, np.full((3, 817), 9.0), matrix)
    with pytest.warns(MPIFastWarning, match=rf"{361 - reached} of 361 voxels") as said:
        found = Calibration.from_mdf(path)
    assert len(said) == 1
    assert not found.matrix[:, reached:].any()  # and not the negative background
    assert found.matrix[:, :reached].any(axis=0).all()
    arrays = {"background": measured.background, "snr": np.full((3, 817), 9.0)}
    message = rf"{361 - reached} of 361 voxels hold nothing but zeros, the first is number {reached} "
    with pytest.warns(MPIFastWarning, match=message):
        again = Calibration.from_arrays(matrix, measured.scanner.frequencies, (19, 19), (0.038, 0.038), **arrays)
    np.testing.assert_allclose(again.matrix, found.matrix, atol=1e-5 * np.abs(found.matrix).max())


def test_nan_is_placed(measured):
    broken = measured.matrix.copy()
    broken[1, 300, 5] = np.nan
    place = measured.scanner.frequencies[300] / 1e3
    with pytest.raises(InputError, match=rf"1 rows of the foreground frames, .* channel 1 at {place:.6g} kHz"):
        Calibration.from_arrays(broken, measured.scanner.frequencies, (19, 19), (0.038, 0.038))


def test_numbers_that_single_precision_cannot_square(measured):
    with pytest.raises(InputError, match="too large for single precision"):
        Calibration.from_arrays(1e38 * measured.truth, measured.scanner.frequencies, (19, 19), (0.038, 0.038))
