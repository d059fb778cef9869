"""Reconstruction files, input that writers refuse, files after failures, and validation."""

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mdf_files import (
    CHANNELS,
    DATA,
    DRIVE,
    POINTS,
    RECEIVER,
    SAMPLES,
    acquisition,
    change,
    measurement,
    quick,
    spectra,
    system_matrix,
    voltages,
)

from mpi_fast.atomic import atomic_path
from mpi_fast.errors import FileFormatError, InputError
from mpi_fast.mdf import (
    Grid,
    Metadata,
    ReconstructionWriter,
    SystemMatrixFile,
    read_reconstruction,
    validate,
    write_measurement,
    write_reconstruction,
    write_system_matrix,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


@quick
@given(shape=st.tuples(st.integers(2, 5), st.integers(2, 5)), count=st.integers(0, 4), with_std=st.booleans())
def test_reconstruction_round_trip(path, shape, count, with_std):
    images = np.random.default_rng(0).uniform(size=(count, *shape)).astype(np.float32)
    grid = Grid.regular(shape, (0.03, 0.04), (0.1, 0.2, 0.3))
    write_reconstruction(path, images, grid, acquisition(), std=2 * images if with_std else None)
    assert validate(path) == []
    np.testing.assert_array_equal(read_reconstruction(path), images)
    with h5py.File(path) as h5:
        # P runs through x first.
        np.testing.assert_array_equal(h5["/reconstruction/data"][:, 1, 0], images[:, 0, 1])
        np.testing.assert_array_equal(h5["/reconstruction/size"], [shape[1], shape[0], 1])
        np.testing.assert_array_equal(h5["/reconstruction/fieldOfView"][:2], [0.04, 0.03])
        assert ("/reconstruction/_std" in h5) == with_std
    if with_std:
        np.testing.assert_array_equal(read_reconstruction(path, "_std"), 2 * images)


def test_reconstruction_of_a_plane_keeps_its_place(tmp_path):
    system_matrix(tmp_path / "sm.mdf", (4, 3, 2))
    with SystemMatrixFile(tmp_path / "sm.mdf") as file:
        grid = file.grid(("y", 2))
    images = np.arange(8.0).reshape(1, 2, 4)
    path = tmp_path / "reco.mdf"
    with ReconstructionWriter(path, grid, acquisition(), provenance={"seed": 3}) as writer:
        writer.append(images)
        writer.append(images + 1)
    np.testing.assert_array_equal(read_reconstruction(path), np.concatenate([images, images + 1]))
    with h5py.File(path) as h5:
        np.testing.assert_array_equal(h5["/reconstruction/size"], [4, 1, 2])
        np.testing.assert_allclose(h5["/reconstruction/fieldOfViewCenter"], [0, 0.01, 0])
        assert h5["/reconstruction/_provenance"][()] == b'{"seed": 3}'


def append_all(path, images, stds):
    with ReconstructionWriter(path, Grid.regular(images.shape[1:], (1, 1)), acquisition()) as writer:
        for std in stds:
            writer.append(images, std)


def test_reconstruction_errors(path):
    grid = Grid.regular((3, 4), (1, 1))
    for images, std, message in (
        (np.zeros((1, 4, 3)), None, "images: shape"),
        (np.zeros((1, 3, 4)), np.zeros((2, 3, 4)), "std: shape"),
    ):
        with pytest.raises(InputError, match=message):
            write_reconstruction(path, images, grid, acquisition(), std=std)
    with pytest.raises(InputError, match="provenance"):
        ReconstructionWriter(path, grid, acquisition(), provenance={"x": object()})
    for stds in ((None, images), (images, None)):
        with pytest.raises(InputError, match="every image or with none"):
            append_all(path, images, stds)
    assert list(path.parent.iterdir()) == []
    write_reconstruction(path, np.zeros((1, 3, 4)), grid, acquisition())
    with pytest.raises(FileFormatError, match="/reconstruction/_std is missing"):
        read_reconstruction(path, "_std")
    change(path, {"/reconstruction/data": np.zeros((1, 11, 1))})
    with pytest.raises(FileFormatError, match="/reconstruction/data has shape"):
        read_reconstruction(path)


def test_written_files_are_valid_mdf(path):
    system_matrix(path, delta_sample_size=(1, 1, 1), metadata=Metadata(tracer="Perimag", operator="Ö"))
    assert validate(path) == []
    with h5py.File(path) as h5:
        assert h5["/version"][()] == b"2.1.0"
        assert h5["/scanner/operator"].asstr()[()] == "Ö"
        assert h5["/experiment/isSimulation"].dtype == np.int8
    measurement(path, periods=3)
    assert validate(path) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("/uuid", None, "/uuid: is missing"),
        ("/study/number", 1.0, "type float64; int64"),
        ("/scanner/topology", 3, "type int64; str"),
        ("/experiment/isSimulation", True, "type bool; int8"),
        ("/acquisition/numFrames", 3, "N = 3"),
        ("/acquisition/gradient", np.ones(3), "J x Y x 3 x 3"),
        (f"{DRIVE}/strength", np.ones((1, 3, 1)), "J x D x F with J = 1, D = 2"),
        (f"{RECEIVER}/transferFunction", np.ones((CHANNELS, POINTS)), "complex was expected"),
        ("/measurement/isFramePermutation", None, "isFramePermutation: is missing"),
        ("/measurement/framePermutation", None, "framePermutation: is missing"),
        (DATA, None, "data: is missing"),
        (DATA, h5py.Empty("f4"), "data: is missing"),
        (DATA, np.ones((1, CHANNELS, POINTS, 16)), "complex was expected"),
        (DATA, np.ones((1, CHANNELS, 3, 16), complex), "J x C x K x N with J = 1, C = 2, K = 9, N = 16"),
        ("/calibration/method", None, "method: is missing"),
        ("/tracer/name", None, "/tracer/name: is missing"),
    ],
)
def test_validate_names_deviations(path, name, value, message):
    system_matrix(path)
    change(path, {name: value})
    assert any(line.startswith("/") and message in line for line in validate(path)), validate(path)


def test_validate_foreign_files(path):
    with h5py.File(path, "w") as h5:
        h5["x"] = 1
    assert "/version: is missing" in validate(path)
    path.write_text("x")
    with pytest.raises(FileFormatError, match="not an HDF5 file"):
        validate(path)


def test_optional_groups_may_be_absent(path):
    measurement(path)
    change(path, {"/tracer": None})
    assert validate(path) == []


def test_writers_refuse_what_does_not_fit(path):
    data, facts = spectra(CHANNELS, POINTS, 12), acquisition()
    grid = {"size": (4, 3, 1), "field_of_view": (1, 1, 1), "acquisition": facts}
    for wrong, options, message in (
        (data[:1], {}, "foreground: shape"),
        (data.real, {}, "complex spectra"),
        (data, {"background": data[:, :2]}, "background: shape"),
        (data, {"snr": np.ones(3)}, "snr: shape"),
        (data, {"background": data, "background_index": np.zeros(12, int)}, "background_index: distinct"),
        (data, {"background_index": np.zeros(2, int)}, "background_index: shape"),
        (data, {"frequency_index": np.array([0, 99])}, "frequency_index: distinct"),
        (data, {"acquisition": acquisition(periods=2)}, "one period per frame"),
    ):
        with pytest.raises(InputError, match=message):
            write_system_matrix(path, wrong, **(grid | options))
    signals = voltages(3, CHANNELS, SAMPLES)
    for frames, options, message in (
        (iter([]), {}, "at least one frame"),
        (signals[:, :1], {}, "frames: shape"),
        ([signals, signals.astype(float)], {}, "float32 was expected as in the first chunk"),
        (signals, {"background": signals[0]}, "frames: shape"),
        (signals, {"frequency_index": np.array([1])}, "complex spectra"),
        (np.array(["a"]), {}, "real samples"),
    ):
        with pytest.raises(InputError, match=message):
            write_measurement(path, frames, acquisition=facts, **options)
    assert list(path.parent.iterdir()) == []


def test_a_failing_source_leaves_the_old_file(path):
    values = measurement(path)
    before = path.read_bytes()

    def source():
        yield values[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_measurement(path, source(), acquisition=acquisition())

    def engine():
        yield None
        raise RuntimeError("engine")

    with pytest.raises(RuntimeError, match="engine"):
        append_all(path, np.zeros((1, 3, 4)), engine())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_late_in_writing_leaves_nothing(path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    for module in ("system_matrix", "reconstruction_output"):
        monkeypatch.setattr(f"mpi_fast.mdf.{module}.put_grid", fail)
    with pytest.raises(OSError, match="disk full"):
        system_matrix(path)
    with pytest.raises(OSError, match="disk full"):
        write_reconstruction(path, np.zeros((1, 3, 4)), Grid.regular((3, 4), (1, 1)), acquisition())
    assert list(path.parent.iterdir()) == []


def test_atomic_path(tmp_path):
    target = tmp_path / "a.mdf"
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".mdf"
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    with pytest.raises(InputError, match=r"folder .* does not exist"), atomic_path(tmp_path / "no" / "a.mdf"):
        pass
    with pytest.raises(InputError, match="it is a folder"), atomic_path(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == [target]
