"""Every output format, written and read back by the library that others would read it with."""

import json
from pathlib import Path

import numpy as np
import pytest
from mdf_files import acquisition
from scipy.io import loadmat

from mpi_fast.errors import FileFormatError, InputError
from mpi_fast.formats import FORMATS, Header, Series, check, save, writing
from mpi_fast.mdf import Grid, read_reconstruction, validate
from mpi_fast.reconstructor import Reconstruction

PLANE = Grid.regular((3, 4), (0.03, 0.06), (0.001, 0.002, 0.003))
VOLUME = Grid.regular((2, 3, 4), (0.02, 0.03, 0.06), (0.001, 0.002, 0.003))
PERIOD = 0.02154


def images(grid, frames=5, seed=0):
    rng = np.random.default_rng(seed)
    image, std = rng.random((2, frames, *grid.shape), np.float32)
    snr, floor = rng.random((2, frames), np.float32)
    misfit, flags = rng.random((frames, 3), np.float32), np.arange(frames).astype(np.uint8)
    return Reconstruction(image, std, snr, floor, 1.0, misfit, flags)


def series(grid=PLANE, frames=5, **options):
    frame = 10 + np.arange(frames)
    return Series.of(images(grid, frames), grid, provenance={"seed": 3}, frame=frame, time=frame * PERIOD, **options)


def write(outputs, grid=PLANE, frames=5, acquired=True):
    """Write in chunks of two."""
    result = images(grid, frames)
    header = Header(grid, acquisition() if acquired else None, {"seed": 3})
    with writing(outputs, header) as writer:
        for start in range(0, frames, 2):
            part = slice(start, start + 2)
            chunk = Reconstruction(
                result.image[part],
                result.std[part],
                result.snr_db[part],
                result.noise_floor[part],
                1.0,
                result.misfit[part],
                result.flags[part],
            )
            numbers = 10 + np.arange(frames)[part]
            writer.append(chunk, numbers, numbers * PERIOD)
    return result


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# -- the choice by suffix ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.dcm", "x", "mdf", ".mdf", "x.mdf.gz", "x.gz"])
def test_unknown_suffixes_are_refused_with_the_known_ones(tmp_path, name):
    for refused in (check, lambda path: save(path, series()), lambda path: write([path])):
        with pytest.raises(InputError) as caught:
            refused(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert ", ".join(FORMATS) in str(caught.value)
    assert names(tmp_path) == []


def test_suffixes_in_capitals(tmp_path):
    save(tmp_path / "X.NPZ", series())
    assert np.load(tmp_path / "X.NPZ")["image"].shape == (5, 3, 4)


# -- written as they are made ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [PLANE, VOLUME])
def test_several_outputs_at_once_hold_the_same(tmp_path, grid):
    result = write([tmp_path / "x.npz", tmp_path / "x.mdf"], grid)
    assert names(tmp_path) == ["x.mdf", "x.npz"]
    assert validate(tmp_path / "x.mdf") == []
    arrays = np.load(tmp_path / "x.npz")
    for name, mdf, expected in (
        ("image", "data", result.image),
        ("std", "_std", result.std),
        ("snr_db", "_snrDecibel", result.snr_db),
        ("misfit", "_misfit", result.misfit),
        ("flags", "_flags", result.flags),
        ("frame", "_frame", 10 + np.arange(5)),
        ("time", "_time", PERIOD * (10 + np.arange(5))),
    ):
        np.testing.assert_array_equal(arrays[name], expected)
        np.testing.assert_array_equal(read_reconstruction(tmp_path / "x.mdf", mdf), expected)


def test_without_mdf_no_other_file_is_left(tmp_path):
    result = write([tmp_path / "x.npz"])
    assert names(tmp_path) == ["x.npz"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["image"], result.image)


@pytest.mark.parametrize("acquired", [True, False])
def test_a_failure_leaves_nothing_and_what_was_there(tmp_path, acquired):
    (tmp_path / "x.npz").write_text("old")
    outputs = [tmp_path / "x.npz", *([tmp_path / "x.mdf"] if acquired else [])]
    header = Header(PLANE, acquisition() if acquired else None)

    def fail():
        with writing(outputs, header) as writer:
            writer.append(images(PLANE), np.arange(5))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == ["x.npz"]
    assert (tmp_path / "x.npz").read_text() == "old"


def test_images_of_arrays_go_everywhere_but_into_mdf(tmp_path):
    result = write([tmp_path / "x.npz"], acquired=False)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npz")["std"], result.std)
    with pytest.raises(InputError, match=r"x\.mdf: MDF states how signals were acquired; .* \.npz"):
        write([tmp_path / "x.mdf"], acquired=False)
    with pytest.raises(InputError, match="MDF states how signals were acquired"):
        save(tmp_path / "x.mdf", series())


def test_a_series_of_a_file(tmp_path):
    result = write([tmp_path / "x.mdf"], VOLUME)
    with Series.open(tmp_path / "x.mdf") as read:
        assert len(read) == 5
        assert read.grid == VOLUME
        assert read.provenance == {"seed": 3}
        assert read.interval == pytest.approx(PERIOD)
        assert read.titles(slice(1, 3)) == ["frame 11", "frame 12"]
        np.testing.assert_array_equal(read.image[1:3], result.image[1:3])
        np.testing.assert_array_equal(read.std[4:], result.std[4:])


def test_a_file_whose_uncertainty_is_of_other_images(tmp_path):
    from mdf_files import change

    write([tmp_path / "x.mdf"])
    change(tmp_path / "x.mdf", {"/reconstruction/_std": np.zeros((4, 12, 1), np.float32)})
    with pytest.raises(FileFormatError, match="/reconstruction/_std has 4 images, but data has 5"):
        read_reconstruction(tmp_path / "x.mdf")


def test_series_that_do_not_fit_themselves():
    with pytest.raises(InputError, match=r"image: shape \(2, 3, 4\) expected, not \(2, 4, 3\)"):
        Series(PLANE, np.zeros((2, 4, 3), np.float32))
    with pytest.raises(InputError, match="time: 2 values expected, one for each image, not 3"):
        Series(PLANE, np.zeros((2, 3, 4), np.float32), found={"time": np.zeros(3)})


# -- NumPy and MATLAB --------------------------------------------------------------------------------------------------


def test_npy_has_the_uncertainty_beside_it(tmp_path):
    expected = series(VOLUME)
    save(tmp_path / "x.npy", expected)
    assert names(tmp_path) == ["x.npy", "x.std.npy"]
    assert list(map(str, check(Path("x.npy")))) == ["x.npy", "x.std.npy"]
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), expected.image)
    np.testing.assert_array_equal(np.load(tmp_path / "x.std.npy"), expected.std)


@pytest.mark.parametrize("suffix", [".npz", ".mat"])
def test_arrays_say_where_and_when_they_are(tmp_path, suffix):
    save(tmp_path / f"x{suffix}", series(VOLUME))
    found = np.load(tmp_path / "x.npz") if suffix == ".npz" else loadmat(tmp_path / "x.mat", squeeze_me=True)
    np.testing.assert_allclose(found["voxel_size"], (0.01, 0.01, 0.015))
    np.testing.assert_allclose(found["center"], (0.003, 0.002, 0.001))
    np.testing.assert_allclose(found["time"], PERIOD * (10 + np.arange(5)))
    assert str(found["axes"]) == "zyx"
    assert str(found["unit"]) == "of the delta sample"
    assert json.loads(str(found["provenance"])) == {"seed": 3}


def test_matlab_refuses_what_it_cannot_hold(tmp_path):
    class Huge:
        shape = (1 << 26, 3, 4)

        def __len__(self):
            return self.shape[0]

    with pytest.raises(InputError, match="less than 2 GiB"):
        save(tmp_path / "x.mat", Series(PLANE, Huge()))
    assert names(tmp_path) == []
