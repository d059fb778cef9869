"""Calibrations and reconstructors are pickled and used in a new process."""

import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from mdf_files import acquisition

from mpi_fast.bundle import packaged
from mpi_fast.calibration import Calibration
from mpi_fast.noise import complex_noise
from mpi_fast.reconstructor import Reconstructor


@pytest.fixture(scope="module")
def rows(true_rows):
    rng = np.random.default_rng(0)
    images = rng.random((3, true_rows.shape[1]), np.float32)
    clean = images @ true_rows.T
    noise = complex_noise(clean.shape, rng) * np.abs(clean).mean() * 0.05
    return (clean + noise).astype(np.complex64)


def in_another_process(function, *arguments):
    """Call a function in a new interpreter, which gets only the pickled objects."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def applied(reconstruct, rows):
    """The answer of the process: its number and its results."""
    return os.getpid(), reconstruct(rows)


def reduced(calibration, rows):
    return calibration.reduce(rows), calibration


def test_a_reconstructor_gives_the_same_images_in_a_process_that_was_spawned(calibration, rows):
    reconstruct = Reconstructor(calibration, device="cpu", threads=1)
    reconstruct(rows)  # creates sessions and buffers, which cannot be pickled, and estimates the noise
    process, found = in_another_process(applied, reconstruct, rows)
    assert process != os.getpid()
    expected = reconstruct(rows)
    for name in ("image", "std", "snr_db", "noise_floor", "misfit", "flags"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_copy_is_whole(calibration, rows):
    reconstruct = Reconstructor(calibration, device="cpu", threads=1, on_bad_frame="stop")
    copy = pickle.loads(pickle.dumps(reconstruct))
    assert copy.evaluations == reconstruct.evaluations
    assert copy.runs_on == reconstruct.runs_on
    np.testing.assert_array_equal(copy(rows).image, reconstruct(rows).image)
    assert [len(one) for one in copy.stream([rows[:2], rows[2:]])] == [2, 1]


def test_a_calibration_comes_back_as_it_went(measured, rows):
    calibration = Calibration(**{**vars(measured.calibrate()), "acquisition": acquisition(), "facts": {"file": "x"}})
    found, back = in_another_process(reduced, calibration, rows)
    for name, values in vars(calibration.reduce(rows)).items():
        np.testing.assert_array_equal(getattr(found, name), values)
    assert (back.grid, back.facts, back.noise_known) == (calibration.grid, {"file": "x"}, True)
    assert back.acquisition.cycle == calibration.acquisition.cycle
    for name in ("matrix", "projection", "basis", "selection"):
        np.testing.assert_array_equal(getattr(back, name), getattr(calibration, name))


def test_a_bundle_that_was_named_from_here_is_found_from_elsewhere(calibration, rows, tmp_path, monkeypatch):
    shutil.copytree(packaged(), tmp_path / "bundle")
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(Reconstructor(calibration, "bundle", device="cpu", threads=1))
    monkeypatch.chdir("/")
    assert pickle.loads(content)(rows).image.shape == (3, 19, 19)
