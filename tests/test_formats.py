"""Every output format is written, and read back by the usual library for it."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import xarray
from nibabel import orientations
from scipy.io import loadmat
from series_cases import PERIOD, PLANE, VOLUME, images, names, series

from mpi_fast.errors import FileFormatError, InputError
from mpi_fast.formats import Series, check, regions_of, save, zarr
from mpi_fast.formats.common import affine
from mpi_fast.mdf import Grid

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


# -- NIfTI -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_places_voxels_in_mm_and_frames_in_s(tmp_path, suffix):
    expected = series(VOLUME)
    save(tmp_path / f"x{suffix}", expected)
    assert names(tmp_path) == [f"x{suffix}", f"x.std{suffix}"]
    read = nibabel.load(tmp_path / f"x{suffix}")
    assert read.shape == (4, 3, 2, 5)
    np.testing.assert_array_equal(read.get_fdata(dtype=np.float32), expected.image.transpose(3, 2, 1, 0))
    np.testing.assert_allclose(read.header.get_zooms(), (15, 10, 10, PERIOD), rtol=1e-6)
    assert read.header.get_xyzt_units() == ("mm", "sec")
    assert float(read.header["toffset"]) == pytest.approx(10 * PERIOD)
    first, middle = read.affine @ (0, 0, 0, 1), read.affine @ (1.5, 1, 0.5, 1)
    np.testing.assert_allclose(first, (1 - 22.5, 2 - 10, 3 - 5, 1), atol=1e-5)
    np.testing.assert_allclose(middle, (1, 2, 3, 1), atol=1e-5)
    np.testing.assert_allclose(read.get_qform(), read.get_sform(), atol=1e-5)
    assert float(read.header["cal_max"]) == pytest.approx(expected.image.max())
    assert json.loads(read.header.extensions[0].get_content()) == {"seed": 3}
    std = nibabel.load(tmp_path / f"x.std{suffix}")
    np.testing.assert_array_equal(std.get_fdata(dtype=np.float32), expected.std.transpose(3, 2, 1, 0))
    assert std.header.get_intent()[2] == "std"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([3, 5, 7, 9], 2.0),
        ([3, 5, 7.001, 9], 2.0),
        ([3, 5, 9, 11], 0.0),  # a frame was skipped
        ([3, 5, 5, 7], 0.0),
        ([5, 5, 5, 5], 0.0),
        ([3, 5, np.nan, 9], 0.0),
    ],
)
def test_nifti_states_a_time_between_frames_only_if_there_is_one(tmp_path, times, expected):
    made = Series(PLANE, series(PLANE, 4).image, found={"time": np.array(times)})
    save(tmp_path / "x.nii", made)
    assert nibabel.load(tmp_path / "x.nii").header.get_zooms()[3] == pytest.approx(expected)


@pytest.mark.parametrize(("normal", "shape"), [("x", (1, 4, 3)), ("y", (4, 1, 3)), ("z", (4, 3, 1))])
def test_nifti_of_planes_of_every_direction(tmp_path, normal, shape):
    extent = tuple(0.01 * count for count in shape)
    grid = Grid(normal, shape, extent, (0.0, 0.0, 0.0), np.arange(12))
    image = np.arange(12, dtype=np.float32).reshape(1, *grid.shape)
    save(tmp_path / "x.nii", Series(grid, image))
    read = nibabel.load(tmp_path / "x.nii").get_fdata()
    assert read.shape == (*shape, 1)
    np.testing.assert_array_equal(
        read.squeeze(), image[0].T
    )  # rows are along the later axis, columns along the earlier one
    assert names(tmp_path) == ["x.nii"]


def test_nifti_of_more_frames_than_its_first_version_holds(tmp_path):
    frames = 2**15
    image = np.arange(frames * 2, dtype=np.float32).reshape(frames, 1, 2)
    save(tmp_path / "x.nii", Series(Grid.regular((1, 2), (1, 2)), image))
    read = nibabel.load(tmp_path / "x.nii")
    assert isinstance(read, nibabel.Nifti2Image)
    np.testing.assert_array_equal(read.get_fdata()[:, 0, 0], image[:, 0].T)


def test_nifti_of_a_slice_of_no_thickness_and_frames_of_nan(tmp_path):
    grid = Grid("z", (4, 3, 1), (0.06, 0.03, 0.0), (0.0, 0.0, 0.0), np.arange(12))
    image = np.full((2, 3, 4), np.nan, np.float32)
    save(tmp_path / "x.nii", Series(grid, image))
    read = nibabel.load(tmp_path / "x.nii")
    np.testing.assert_allclose(np.diag(read.affine), (15, 10, 10, 1), rtol=1e-6)
    assert np.isnan(read.get_fdata()).all()
    assert float(read.header["cal_max"]) == 0


# -- Zarr --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [PLANE, VOLUME])
def test_zarr_has_coordinates_in_mm_and_s(tmp_path, grid, monkeypatch):
    monkeypatch.setattr(zarr, "CHUNK_BYTES", 200)  # few images for each part, so that there are several parts
    expected = series(grid)
    save(tmp_path / "x.zarr", expected)
    assert names(tmp_path) == ["x.zarr"]
    with xarray.open_zarr(tmp_path / "x.zarr") as read:
        assert read.image.dims == ("time", *grid.axes)
        np.testing.assert_array_equal(read.image, expected.image)
        np.testing.assert_array_equal(read["std"], expected.std)
        np.testing.assert_allclose(read.x, (-21.5, -6.5, 8.5, 23.5))
        np.testing.assert_allclose(read.y, (-8, 2, 12))
        np.testing.assert_allclose(read.z, (-2, 8) if grid is VOLUME else 3)
        assert (read.x.units, read.time.units, read.image.units) == ("mm", "s", "of the delta sample")
        np.testing.assert_array_equal(read.frame, 10 + np.arange(5))
        nearest = read.image.sel(time=12.2 * PERIOD, x=8, method="nearest")
        np.testing.assert_array_equal(nearest, expected.image[2, ..., 2])
        np.testing.assert_array_equal(read.misfit_receiver, expected.found["misfit"][:, 1])
        np.testing.assert_array_equal(read.flags, expected.found["flags"])
        assert json.loads(read.attrs["provenance"]) == {"seed": 3}


def test_zarr_without_times_counts_frames(tmp_path):
    save(tmp_path / "x.zarr", Series(PLANE, images(PLANE).image))
    with xarray.open_zarr(tmp_path / "x.zarr") as read:
        assert read.image.dims == ("frame", "y", "x")
        assert read.frame.values.tolist() == [0, 1, 2, 3, 4]


def test_zarr_replaces_its_own_folders_and_no_others(tmp_path, monkeypatch):
    store = tmp_path / "x.zarr"
    save(store, series(frames=5))
    save(store, series(frames=3))
    with xarray.open_zarr(store) as read:
        assert read.image.shape[0] == 3
    (tmp_path / "link.zarr").symlink_to(store)
    save(tmp_path / "link.zarr", series(frames=3))
    assert (tmp_path / "link.zarr").is_symlink()
    (tmp_path / "link.zarr").unlink()
    monkeypatch.setattr(zarr, "_dataset", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(store, series(frames=4))
    with xarray.open_zarr(store) as read:
        assert read.image.shape[0] == 3
    (tmp_path / "y.zarr").mkdir()
    (tmp_path / "y.zarr" / "precious").touch()
    with pytest.raises(InputError, match=r"y\.zarr: cannot be written: it is a folder"):
        save(tmp_path / "y.zarr", series())
    assert names(tmp_path) == ["x.zarr", "y.zarr"]
    assert names(tmp_path / "y.zarr") == ["precious"]
    for attributes in (None, "no JSON", "[]", '{"made_by": "another program"}'):
        (tmp_path / "y.zarr" / ".zgroup").write_text('{"zarr_format": 2}')  # a store, but of others
        if attributes is not None:
            (tmp_path / "y.zarr" / ".zattrs").write_text(attributes)
        with pytest.raises(InputError, match=r"y\.zarr: cannot be written: it is a folder"):
            save(tmp_path / "y.zarr", series())
    assert (tmp_path / "y.zarr" / "precious").exists()


# -- tables of regions -------------------------------------------------------------------------------------------------


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_leaves_the_volume_empty_where_the_thickness_is_unknown(tmp_path):
    known = series()
    for thickness in (0.0, 0.015):
        grid = replace(known.grid, extent=(*known.grid.extent[:2], thickness))
        save(tmp_path / "x.csv", replace(known, grid=grid))
        assert [bool(row["volume_mm3"]) for row in table(tmp_path / "x.csv")] == [thickness > 0] * len(known)


def test_csv_has_a_line_for_each_frame_and_region(tmp_path):
    regions = regions_of(["left=-100:0,:", "corner=:-5,:-5"], PLANE)
    expected = replace(series(), regions=regions)
    save(tmp_path / "x.csv", expected)
    rows = table(tmp_path / "x.csv")
    assert [(row["frame"], row["region"]) for row in rows[:3]] == [("10", "left"), ("10", "corner"), ("11", "left")]
    assert len(rows) == 10
    image, std = expected.image[2, :, :2].astype(float), expected.std[2, :, :2].astype(float)
    row = {name: value if name == "region" else float(value) for name, value in rows[4].items()}
    assert row["time_s"] == pytest.approx(12 * PERIOD)
    assert row["voxels"] == 6
    assert row["volume_mm3"] == pytest.approx(6 * 15 * 10 * 15)
    assert row["mean"] == pytest.approx(image.mean())
    assert row["sum"] == pytest.approx(image.sum())
    assert row["maximum"] == pytest.approx(image.max())
    assert row["std_independent"] == pytest.approx(np.sqrt((std**2).sum()) / 6)
    assert row["std_common"] == pytest.approx(std.mean())
    assert row["snr_db"] == pytest.approx(expected.found["snr_db"][2])
    assert row["misfit_image"] == pytest.approx(expected.found["misfit"][2, 2])
    assert row["flags"] == 2
    assert float(rows[1]["mean"]) == pytest.approx(expected.image[0, 0, :2].mean())


def test_csv_without_regions_is_of_all_voxels(tmp_path):
    image = images(VOLUME).image
    image[1] = np.nan
    save(tmp_path / "x.csv", Series(VOLUME, image))
    rows = table(tmp_path / "x.csv")
    assert [row["region"] for row in rows] == ["all"] * 5
    assert float(rows[2]["sum"]) == pytest.approx(image[2].sum(), rel=1e-6)
    assert rows[1]["mean"] == "nan"
    assert "std_common" not in rows[0]


@pytest.mark.parametrize("suffix", [".npy", ".nii.gz"])
@pytest.mark.parametrize("grid", [PLANE, VOLUME])
def test_regions_of_a_file_of_labels(tmp_path, suffix, grid):
    labels = np.zeros(grid.shape, np.int16)
    labels[..., 0, :2], labels[..., 2, 3] = 1, 7
    path = tmp_path / f"roi{suffix}"
    if suffix == ".npy":
        np.save(path, labels)
    else:
        nibabel.save(nibabel.Nifti1Image(labels.T.reshape(grid.size), affine(grid)), path)
    regions = regions_of([str(path)], grid)
    assert [region.name for region in regions] == ["roi-1", "roi-7"]
    for region, label in zip(regions, (1, 7), strict=True):
        np.testing.assert_array_equal(region.mask, labels == label)


def test_a_box_of_a_volume():
    (region,) = regions_of(["b=-7:9,1:3,-2.5:"], VOLUME)
    expected = np.zeros(VOLUME.shape, bool)
    expected[:, 1, 1:3] = True
    np.testing.assert_array_equal(region.mask, expected)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["vessel"], "expected NAME=X0:X1,Y0:Y1,Z0:Z1 in mm"),
        (["=1:2"], "expected NAME="),
        (["a=1:2,3:4,5:6,7:8"], "expected NAME="),
        (["a=1,2"], "expected NAME="),
        (["a=2:1"], "the first end along x is not below the second one"),
        (["a=0:1"], r"no voxel there: along x their middles lie from -21\.5 to 23\.5 mm"),
        (["a=:", "a=:5"], "two regions are called a"),
    ],
)
def test_regions_that_are_none(texts, message):
    with pytest.raises(InputError, match=message):
        regions_of(texts, PLANE)


def test_files_of_labels_that_are_none(tmp_path):
    for labels, message in (
        (np.ones((4, 3)), r"labels \(4, 3\); \(3, 4\) were expected, along y, x"),
        (np.full((3, 4), 0.5), "other than whole numbers"),
        (np.zeros((3, 4)), "labels from 1 to 1000 were expected, not only 0"),
    ):
        np.save(tmp_path / "x.npy", labels)
        with pytest.raises(FileFormatError, match=message):
            regions_of([str(tmp_path / "x.npy")], PLANE)
    (tmp_path / "x.nii").write_text("no")
    with pytest.raises(FileFormatError, match=r"x\.nii: no NIfTI file, or damaged"):
        regions_of([str(tmp_path / "x.nii")], PLANE)
    with pytest.raises(FileFormatError, match=r"none\.nii"):
        regions_of([str(tmp_path / "none.nii")], PLANE)


@pytest.mark.parametrize("grid", [PLANE, VOLUME])
def test_labels_of_nifti_lie_where_their_affine_says(tmp_path, grid):
    path, labels = tmp_path / "roi.nii.gz", np.zeros(grid.size, np.int16)
    labels[0, 0, :], labels[3, 1, -1] = 1, 7

    def found(image):
        nibabel.save(image, path)
        return regions_of([str(path)], grid)

    image = nibabel.Nifti1Image(labels, affine(grid))
    expected = found(image)
    for axes in ("RAS", "LPS", "ASR", "SLP"):
        turned = orientations.ornt_transform(orientations.io_orientation(image.affine), orientations.axcodes2ornt(axes))
        for region, other in zip(found(image.as_reoriented(turned)), expected, strict=True):
            np.testing.assert_array_equal(region.mask, other.mask)
    assert len(found(nibabel.Nifti1Image(labels, None))) == 2  # no place is stated
    near, far, tilted = (affine(grid) for _ in range(3))
    near[0, 3] += 0.2 * near[0, 0]
    assert len(found(nibabel.Nifti1Image(labels, near))) == 2
    far[1, 3] += 0.3 * far[1, 1]
    tilted[0, 1] = 0.2 * tilted[0, 0]
    for wrong in (far, tilted, 2 * near):
        with pytest.raises(FileFormatError, match=r"roi\.nii\.gz: labels of another place"):
            found(nibabel.Nifti1Image(labels, wrong))
