"""Outputs of every format are selected by suffix, written as images are made, and complete or absent."""

import subprocess
import sys

import numpy as np
import pytest
from mdf_files import acquisition
from series_cases import PERIOD, PLANE, VOLUME, images, names, series

from mpi_fast.errors import FileFormatError, InputError, MPIFastError
from mpi_fast.formats import FORMATS, Header, Series, check, save, writing
from mpi_fast.mdf import read_reconstruction, validate
from mpi_fast.reconstruction import Reconstruction


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


@pytest.mark.parametrize("acquired", [True, False])
def test_no_images_are_an_error_but_in_mdf(tmp_path, acquired):
    with pytest.raises(InputError, match=r"x\.csv: there are no images to write: no frame was reconstructed"):
        write([*([tmp_path / "x.mdf"] if acquired else []), tmp_path / "x.csv"], frames=0, acquired=acquired)
    assert names(tmp_path) == (["x.mdf"] if acquired else [])


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix != ".mdf"])
def test_a_file_without_images_is_not_converted(tmp_path, suffix):
    write([tmp_path / "x.mdf"], frames=0)
    with Series.open(tmp_path / "x.mdf") as none, pytest.raises(InputError, match="there are no images to write"):
        save(tmp_path / f"x{suffix}", none)
    assert names(tmp_path) == ["x.mdf"]


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


# -- libraries that are not there --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("x.nii.gz", "nibabel", "x.nii.gz: such files need nibabel: pip install 'mpi-fast[nifti]'"),
        ("x.zarr", "xarray", "x.zarr: such files need xarray: pip install 'mpi-fast[zarr]'"),
        ("x.zarr", "zarr", "x.zarr: such files need zarr: pip install 'mpi-fast[zarr]'"),
        ("x.mp4", "imageio_ffmpeg", "x.mp4: films in MP4 need imageio-ffmpeg: pip install 'mpi-fast[films]'"),
        ("x.gif", "matplotlib.figure", "figures need matplotlib: pip install 'mpi-fast[plots]'"),
    ],
)
def test_what_to_install_is_said_before_work_begins(tmp_path, monkeypatch, name, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MPIFastError) as caught:
        check(tmp_path / name)
    assert message in str(caught.value)
    assert names(tmp_path) == []


def test_importing_formats_imports_none_of_their_libraries():
    code = """import sys, mpi_fast.formats
assert not {"matplotlib", "nibabel", "xarray", "zarr", "imageio_ffmpeg", "pandas", "scipy.io"} & set(sys.modules)"""
    subprocess.run([sys.executable, "-c", code], check=True)
