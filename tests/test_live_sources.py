"""Files at their own rate and simulated scanners as sources of live streams, and their bad frames."""

import threading
import time

import h5py
import numpy as np
import pytest
from live_echo import Echo

from mpi_fast import Reconstructor
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.experiment import Receiver, measure_matrix, save_frames, save_matrix
from mpi_fast.live import Live
from mpi_fast.live.from_file import FileSource
from mpi_fast.live.from_simulation import EMPTY, FRAMES, SimulatedSource, bolus
from mpi_fast.live.source import Incoming, feed
from mpi_fast.mdf import MeasurementFile
from mpi_fast.pairing import MeasuredRows
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A system matrix, a measurement of 40 frames, one of them with NaN, and the calibration."""
    folder = tmp_path_factory.mktemp("live")
    matrix = measure_matrix(Scanner(grid=(9, 9), voxel_size=(4e-3, 4e-3)), 25.0, np.random.default_rng(0))
    calibration = matrix.calibrate()
    receiver = Receiver(matrix, calibration.selection, 20.0, np.random.default_rng(1), feed_through=True, steady=True)
    images = generate("tumours", 40, (9, 9), 0)
    save_matrix(folder / "sm.mdf", matrix)
    save_frames(folder / "frames.mdf", receiver, images, 16)
    with h5py.File(folder / "frames.mdf", "a") as file:
        file["/measurement/data"][11, 0, 1, 5] = np.nan
    return folder, calibration


def test_a_file_plays_at_its_rate_and_gives_the_images_of_reconstruct(files):
    folder, calibration = files
    with MeasurementFile(folder / "frames.mdf") as file:
        rows = MeasuredRows(file, calibration)
        reconstruct = Reconstructor(calibration, threads=1)
        (expected,) = reconstruct.stream(rows)
    source = FileSource(folder / "frames.mdf", calibration, rate=80.0)
    assert source.acquisition.num_samples == calibration.num_samples
    with Live(Reconstructor(calibration, threads=1), newest=False) as live:
        began = time.monotonic()
        feed(source, live, threading.Event())
        assert 39 / 80 <= time.monotonic() - began < 20
        live.finish()
        images = list(live)
    assert [image.number for image in images] == list(range(40))
    assert [image.number for image in images if "bad" in image.flag_names] == [11]
    peak = np.nanmax(expected.image)
    for index, image in enumerate(images):
        np.testing.assert_allclose(image.image, expected.image[index], rtol=1e-4, atol=1e-5 * peak)


def test_the_scanners_own_rate(files):
    folder, calibration = files
    assert FileSource(folder / "frames.mdf", calibration).rate == pytest.approx(1 / Scanner().cycle)


def test_a_file_again_and_again_until_stopped(files):
    folder, calibration = files
    stopped, numbers = threading.Event(), []
    for one in FileSource(folder / "frames.mdf", calibration, rate=1e5, repeat=True).frames(stopped):
        numbers.append(one.number)
        if len(numbers) == 100:
            stopped.set()
    assert numbers == list(range(100))


def test_a_file_that_does_not_fit_is_refused_at_once(files, calibration):
    folder, _ = files
    other = Scanner(dividers=(93, 99))
    strange = measure_matrix(
        Scanner(grid=(5, 5), voxel_size=(7e-3, 7e-3), dividers=other.dividers), 25.0, np.random.default_rng(0)
    )
    with pytest.raises(MismatchError, match="samples"):
        FileSource(folder / "frames.mdf", strange.calibrate())


def test_a_frame_that_does_not_fit_costs_no_other(calibration):
    class Mixed:
        name = "mixed"
        acquisition = None

        def __init__(self):
            self.calibration = calibration

        def frames(self, stopped):
            yield Incoming(np.ones(calibration.num_rows, np.complex64), 0, 0.0)
            yield InputError("message: garbage")
            yield Incoming(np.ones(3, np.complex64), 1, 0.0)
            yield Incoming(np.ones(calibration.num_rows, np.complex64), 2, 0.0)

    with Live(Echo(calibration), newest=False) as live:
        feed(Mixed(), live, threading.Event())
        live.finish()
        assert [image.number for image in live] == [0, 2]
        assert live.statistics().refused == 2


def test_the_bolus_goes_round():
    images = bolus((19, 19), 64)
    assert images.shape == (64, 19, 19)
    assert 0.5 < images.max() <= 1
    assert images.min() >= 0
    y, x = (np.tensordot(images, axis, 2) / images.sum(axis=(1, 2)) for axis in np.mgrid[-1:1:19j, -1:1:19j])
    turned = np.unwrap(np.arctan2(y, x))
    assert turned[-1] - turned[0] == pytest.approx(2 * np.pi * 63 / 64, abs=0.1)
    assert np.abs(np.diff(images, axis=0)).max() < 0.4
    assert bolus((5, 7, 9), 4).shape == (4, 5, 7, 9)


def test_a_simulated_scanner_is_seen_as_it_moves():
    source = SimulatedSource((9, 9), rate=1e5)
    stopped, frames = threading.Event(), []
    for one in source.frames(stopped):
        frames.append(one)
        if len(frames) == EMPTY + FRAMES + 1:
            stopped.set()
    assert [one.empty for one in frames[: EMPTY + 1]] == [True] * EMPTY + [False]
    np.testing.assert_array_equal(frames[EMPTY].signals, frames[-1].signals)
    truth = bolus((9, 9), FRAMES)
    with Live(Reconstructor(source.calibration, threads=1), newest=False) as live:
        for one in [*frames[:EMPTY], *frames[EMPTY::64]]:
            live.submit(one.signals, one.number, one.timestamp, empty=one.empty)
        live.finish()
        images = np.stack([image.image for image in live])
    shown = truth[::64]
    for found, expected in zip(images, shown, strict=False):
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.8
