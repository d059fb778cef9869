"""Results contain the facts of the measurement, and the numbers of each frame."""

import json
import warnings

import numpy as np
import pytest
from mdf_files import change, convert
from typer.testing import CliRunner

from mpi_fast.cli import app
from mpi_fast.errors import InputError
from mpi_fast.mdf import Grid, MeasurementFile, ReconstructionWriter, read_reconstruction, validate, write_measurement
from mpi_fast.mdf.reconstruction_output import PER_FRAME

GRID = Grid.regular((3, 4), (0.03, 0.04))
STATED = {
    "/acquisition/startTime": b"2019-05-07T11:22:33.444",
    "/experiment/isSimulation": np.int8(0),
    "/experiment/name": b"shape phantom",
    "/experiment/number": 18,
    "/experiment/subject": b"phantom",
    "/study/name": b"OpenMPI",
    "/study/number": 3,
    "/study/uuid": b"6ad5e5f4-5bd5-4a5f-a9fb-9a52d5a9a7f0",
    "/scanner/manufacturer": b"Bruker/Philips",
    "/scanner/operator": b"somebody",
    "/tracer/name": np.array([b"Perimag", b"water"]),
    "/tracer/concentration": [0.1, 0.0],
    "/tracer/volume": [2e-3, 1.0],
    "/tracer/batch": np.array([b"7", b"8"]),
    "/tracer/vendor": np.array([b"micromod", b"tap"]),
    "/tracer/solute": np.array([b"Fe", b"Fe"]),
}


@pytest.fixture
def acquisition(tmp_path):
    """The acquisition of a measurement that states all these facts."""
    from mdf_files import acquisition, voltages

    write_measurement(tmp_path / "m.mdf", voltages(3, 1, 2, 16), acquisition=acquisition())
    change(tmp_path / "m.mdf", STATED)
    with MeasurementFile(tmp_path / "m.mdf") as file:
        return file.acquisition


def read(path, name):
    import h5py

    with h5py.File(path) as h5:
        return h5[name][()]


def test_the_measurement_s_facts_are_copied(tmp_path, acquisition):
    path = tmp_path / "reco.mdf"
    with ReconstructionWriter(path, GRID, acquisition) as writer:
        writer.append(np.ones((2, 3, 4)))
    for name, value in STATED.items():
        np.testing.assert_array_equal(read(path, name), value, err_msg=name)
    assert validate(path) == []


@pytest.mark.parametrize("name", ["/study/number", "/tracer/name", "/scanner/operator", "/experiment/subject"])
@pytest.mark.parametrize("value", [b"three", b"a\xff\0b", np.array([1, 2]), np.array([[1.5]]), np.zeros(0)])
def test_facts_of_a_foreign_type_do_not_stop_a_result(tmp_path, acquisition, name, value):
    change(tmp_path / "m.mdf", {name: np.void(value) if isinstance(value, bytes) and b"\0" in value else value})
    with MeasurementFile(tmp_path / "m.mdf") as file:
        odd = file.acquisition
    with ReconstructionWriter(tmp_path / "reco.mdf", GRID, odd) as writer:
        writer.append(np.ones((1, 3, 4)))
    assert read(tmp_path / "reco.mdf", "/study/name") == b"OpenMPI"


def test_what_was_found_is_kept_beside_each_image(tmp_path, acquisition):
    path, rng = tmp_path / "reco.mdf", np.random.default_rng(0)
    found = {
        "_frame": np.arange(5) + 7,
        "_time": rng.random(5),
        "_snrDecibel": rng.random(5, np.float32),
        "_noiseFloor": rng.random(5, np.float32),
        "_misfit": rng.random((5, 3), np.float32),
        "_quantiles": rng.random((5, 2), np.float32),
        "_flags": np.array([0, 1, 8, 0, 2], np.uint8),
    }
    with ReconstructionWriter(path, GRID, acquisition) as writer:
        for part in (slice(0, 2), slice(2, 5)):
            writer.append(np.ones((5, 3, 4))[part], found={name: values[part] for name, values in found.items()})
    assert set(found) == set(PER_FRAME)
    for name, values in found.items():
        np.testing.assert_array_equal(read_reconstruction(path, name), values)
    assert read_reconstruction(path).shape == (5, 3, 4)
    assert validate(path) == []


@pytest.mark.parametrize(
    "found", [{"_flags": np.zeros(3, np.uint8)}, {"flags": np.zeros(2)}, {"_misfit": np.zeros((1, 3))}]
)
def test_what_was_found_belongs_to_every_image(tmp_path, acquisition, found):
    with (
        pytest.raises(InputError, match=next(iter(found))),
        ReconstructionWriter(tmp_path / "reco.mdf", GRID, acquisition) as writer,
    ):
        writer.append(np.ones((2, 3, 4)), found=found)
    assert not (tmp_path / "reco.mdf").exists()
    with ReconstructionWriter(tmp_path / "reco.mdf", GRID, acquisition) as writer:
        writer.append(np.ones((2, 3, 4)))
        with pytest.raises(InputError, match="_frame: expected with every image or with none"):
            writer.append(np.ones((2, 3, 4)), found={"_frame": np.arange(2)})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    command = ["simulate", str(folder), "--frames", "3", "--background-frames", "4", "--snr", "30"]
    assert CliRunner().invoke(app, command).exit_code == 0
    return folder


def reconstruct(made, tmp_path, *options):
    for name in ("system-matrix.mdf", "measurement.mdf"):
        (tmp_path / name).exists() or (tmp_path / name).write_bytes((made / name).read_bytes())
    command = ["reconstruct", tmp_path / "measurement.mdf", "-c", tmp_path / "system-matrix.mdf", *options]
    quick = ["--evaluations", "1", "--threads", "1", "--json", tmp_path / "out.json"]
    with warnings.catch_warnings():
        return CliRunner().invoke(app, [str(word) for word in command + quick])


def copy(made, tmp_path):
    for name in ("system-matrix.mdf", "measurement.mdf"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    return tmp_path / "measurement.mdf"


@pytest.mark.parametrize("value", [np.nan, 1e38])
def test_the_command_line_flags_a_bad_frame_or_stops(made, tmp_path, value):
    path = copy(made, tmp_path)

    def spoil(values):
        values[1, 0, 0, 5] = value
        return values

    convert(path, "/measurement/data", spoil)
    result = reconstruct(made, tmp_path)
    assert result.exit_code == 0, result.output
    assert "note: 1 of 3 frames" in result.stderr
    reco = tmp_path / "measurement.reco.mdf"
    np.testing.assert_array_equal(read_reconstruction(reco, "_flags"), [0, 1, 0])
    np.testing.assert_array_equal(np.isnan(read_reconstruction(reco)).all(axis=(1, 2)), [False, True, False])
    np.testing.assert_array_equal(read_reconstruction(reco, "_frame"), [0, 1, 2])
    said = json.loads((tmp_path / "out.json").read_text())
    assert said["flags"] == [[], ["bad"], []]
    assert said["misfit"]["image"][1] is None
    assert np.isfinite(said["peak_concentration"])
    reco.unlink()
    result = reconstruct(made, tmp_path, "--on-bad-frame", "stop")
    assert result.exit_code == 2
    assert "frame 1" in result.stderr
    assert not reco.exists()


def test_the_command_line_refuses_another_gradient(made, tmp_path):
    change(copy(made, tmp_path), {"/acquisition/gradient": np.diag([-2.0, -2.0, 4.0])})
    result = reconstruct(made, tmp_path)
    assert result.exit_code == 2
    assert "gradient -2 x -2 x 4 T/m, but the calibration has -1 x -1 x 2 T/m" in result.stderr


def test_one_sample_of_one_background_frame_does_not_empty_the_images(made, tmp_path):
    path = copy(made, tmp_path)
    assert reconstruct(made, tmp_path).exit_code == 0
    expected = read_reconstruction(tmp_path / "measurement.reco.mdf")

    def spoil(values):
        values[4, 0, 1, 800] = 100 * np.abs(values).max()
        return values

    convert(path, "/measurement/data", spoil)
    result = reconstruct(made, tmp_path)
    assert result.exit_code == 0, result.output
    assert "background frame 1 (of 4, from 0) has" in result.stderr
    found = read_reconstruction(tmp_path / "measurement.reco.mdf")
    np.testing.assert_allclose(found, expected, atol=0.15 * expected.max())
    assert found.any(axis=(1, 2)).all()
