"""Measurements are written, and read in every layout, in parts, by periods and averaged."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mdf_files import (
    CHANNELS,
    CLOSE,
    CYCLE,
    DATA,
    DRIVE,
    POINTS,
    RECEIVER,
    SAMPLES,
    acquisition,
    assert_same_acquisition,
    change,
    compound,
    convert,
    fill,
    frames_last,
    measurement,
    permute_frames,
    quick,
    spectra,
    voltages,
)

from mpi_fast.errors import InputError
from mpi_fast.mdf import MeasurementFile, validate, write_measurement


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


def read_all(path, **options):
    with MeasurementFile(path) as file:
        return np.concatenate(list(file.frames(**options)))


def test_measurement_round_trip(path):
    values = measurement(path)
    expected = np.fft.rfft(values)[:, 0]
    found = read_all(path)
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, expected[:6], **CLOSE)
    with MeasurementFile(path) as file:
        assert (file.num_frames, file.num_background_frames) == (6, 2)
        assert_same_acquisition(file.acquisition, acquisition())
        np.testing.assert_allclose(file.background_mean(), expected[6:].mean(0), **CLOSE)
        np.testing.assert_allclose(np.concatenate(list(file.background_frames())), expected[6:], **CLOSE)


@quick
@given(
    frames=st.integers(1, 5),
    periods=st.integers(1, 4),
    channels=st.integers(1, 3),
    samples=st.integers(2, 9),
    background=st.integers(0, 2),
    fourier=st.booleans(),
    chunk=st.integers(1, 7),
)
def test_measurement_shapes(path, frames, periods, channels, samples, background, fourier, chunk):
    values = voltages(frames + background, periods, channels, samples)
    data = np.fft.rfft(values).astype(np.complex64) if fourier else values
    pieces = iter(np.array_split(data[:frames], range(1, frames)))
    facts = acquisition(samples, channels, periods)
    write_measurement(path, pieces, acquisition=facts, background=data[frames:] if background else None)
    assert validate(path) == []
    expected = np.fft.rfft(values).reshape(-1, channels, samples // 2 + 1)
    with MeasurementFile(path) as file:
        found = list(file.frames(chunk=chunk))
        mean = file.background_mean()
    assert all(len(block) == chunk for block in found[:-1])
    np.testing.assert_allclose(np.concatenate(found), expected[: frames * periods], **CLOSE)
    if background:
        np.testing.assert_allclose(mean, expected[frames * periods :].mean(0), **CLOSE)
    else:
        assert mean is None


MEASUREMENT_LAYOUTS = {
    "frequency": lambda p: (
        convert(p, DATA, np.fft.rfft),
        change(p, {"/measurement/isFourierTransformed": np.int8(1)}),
    ),
    "frames last": frames_last,
    "frequency, frames last": lambda p: (MEASUREMENT_LAYOUTS["frequency"](p), frames_last(p)),
    "fields r, i": lambda p: (
        MEASUREMENT_LAYOUTS["frequency"](p),
        convert(p, DATA, lambda d: compound(d, ("real", "imag"))),
    ),
    "permuted": lambda p: permute_frames(p, np.array([3, 0, 7, 2, 1, 5, 4, 6]), 0),
    "permuted, frames last": lambda p: (MEASUREMENT_LAYOUTS["permuted"](p), frames_last(p)),
    "double precision": lambda p: convert(p, DATA, lambda d: d.astype(np.float64)),
    "integers": lambda p: (
        convert(p, DATA, lambda d: np.round((d - 0.5) / 1e-6).astype(np.int32)),
        change(p, {f"{RECEIVER}/dataConversionFactor": np.tile([1e-6, 0.5], (CHANNELS, 1))}),
    ),
}


@pytest.mark.parametrize("periods", [1, 3])
@pytest.mark.parametrize("blocks", [1, 2000, 1 << 20])
@pytest.mark.parametrize("quirk", MEASUREMENT_LAYOUTS)
def test_every_measurement_layout_reads_the_same(path, monkeypatch, quirk, blocks, periods):
    values = measurement(path, periods=periods)
    MEASUREMENT_LAYOUTS[quirk](path)
    monkeypatch.setattr("mpi_fast.mdf.signals._BLOCK_BYTES", blocks)
    expected = np.fft.rfft(values).reshape(-1, CHANNELS, POINTS)
    np.testing.assert_allclose(read_all(path, chunk=4), expected[: 6 * periods], rtol=1e-4, atol=1e-4)
    with MeasurementFile(path) as file:
        mean = file.background_mean()
    np.testing.assert_allclose(mean, expected[6 * periods :].mean(0), rtol=1e-4, atol=1e-4)


def test_integer_samples_convert_per_channel(path):
    raw = np.random.default_rng(0).integers(-1000, 1000, (3, CHANNELS, SAMPLES)).astype(np.int16)
    write_measurement(path, raw, acquisition=acquisition())
    change(path, {f"{RECEIVER}/dataConversionFactor": [[2.0, 1.0], [3.0, -1.0]]})
    volts = raw * np.array([2.0, 3.0])[:, None] + np.array([1.0, -1.0])[:, None]
    np.testing.assert_allclose(read_all(path), np.fft.rfft(volts), rtol=1e-5, atol=1e-2)


def test_periods_are_frames_of_their_own(path):
    values = measurement(path, frames=2, periods=10, background=1)
    expected = np.fft.rfft(values)
    np.testing.assert_allclose(read_all(path), expected[:2].reshape(20, CHANNELS, POINTS), **CLOSE)
    np.testing.assert_allclose(read_all(path, start=3, stop=14), expected[:2].reshape(20, CHANNELS, -1)[3:14], **CLOSE)
    selected = expected[:2, 4:8].reshape(8, CHANNELS, -1)
    np.testing.assert_allclose(read_all(path, periods=slice(4, 8)), selected, **CLOSE)
    np.testing.assert_allclose(read_all(path, periods=slice(4, 8), start=2, stop=-1), selected[2:-1], **CLOSE)
    np.testing.assert_allclose(
        read_all(path, periods=slice(1, None, 3)), expected[:2, 1::3].reshape(6, CHANNELS, -1), **CLOSE
    )
    with MeasurementFile(path) as file:
        assert (file.num_frames, file.num_background_frames) == (20, 10)
        np.testing.assert_allclose(file.background_mean(periods=slice(4, 8)), expected[2, 4:8].mean(0), **CLOSE)


@pytest.mark.parametrize(("average", "expected"), [(2, 3), (4, 1), (6, 1), ("all", 1)])
def test_averaging(path, average, expected):
    values = measurement(path)
    size = 6 if average == "all" else average
    means = [np.fft.rfft(values)[i * size : (i + 1) * size, 0].mean(0) for i in range(expected)]
    np.testing.assert_allclose(read_all(path, average=average, chunk=2), means, **CLOSE)


def test_corrected_measurement_has_no_background(path):
    measurement(path, background_corrected=True)
    with MeasurementFile(path) as file:
        assert file.background_corrected
        assert file.background_mean() is None


def test_measured_frequency_selection(path):
    data = spectra(4, CHANNELS, 3)
    write_measurement(path, data, acquisition=acquisition(), frequency_index=np.array([2, 5, 6]))
    assert validate(path) == []
    np.testing.assert_array_equal(read_all(path), data)
    with MeasurementFile(path) as file:
        np.testing.assert_array_equal(file.frequency_index, [2, 5, 6])


def test_streaming_a_measurement_is_lazy(path):
    """The data take 246 MB."""
    measurement(path, frames=2, periods=3, background=0)
    fill(path, (2, 3000, CHANNELS, 5120), (1, 100, 1, 5120), np.float32)
    change(
        path,
        {
            f"{RECEIVER}/numSamplingPoints": 5120,
            f"{RECEIVER}/bandwidth": 5120 / (2 * CYCLE),
            "/acquisition/numPeriodsPerFrame": 3000,
            "/measurement/isBackgroundFrame": np.array([0, 1]),
        },
    )
    with MeasurementFile(path) as file:
        tracemalloc.start()
        count = sum(len(block) for block in file.frames(periods=slice(1000, 1400)))
        file.background_mean(periods=slice(1000, 1400))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == 400
    assert peak < 40e6


@pytest.mark.parametrize(
    "options",
    [
        {"start": 6},
        {"start": 3, "stop": 3},
        {"average": 7},
        {"average": 0},
        {"chunk": 0},
        {"periods": slice(10000, 11000)},
        {"periods": slice(None, None, -1)},
    ],
)
def test_empty_selections_are_refused_at_once(path, options):
    measurement(path)
    with MeasurementFile(path) as file, pytest.raises(InputError, match=r"file\.mdf: .*select"):
        file.frames(**options)


def test_every_fact_that_a_file_states(tmp_path):
    """Facts for each period and patch, from all shapes; facts that are not stated are None."""
    path = tmp_path / "facts.mdf"
    periods, channels, points = 2, CHANNELS, POINTS
    measurement(path, periods=periods)
    gradients = np.arange(12.0).reshape(periods, 2, 3, 1) * np.eye(3)
    offset, transfer = np.arange(12.0).reshape(periods, 2, 3), spectra(channels, points, dtype=np.complex128)
    stated = {
        "/acquisition/gradient": gradients,
        "/acquisition/offsetField": offset,
        f"{DRIVE}/strength": np.array([[[0.012], [0.011]], [[0.010], [0.009]]]),
        f"{DRIVE}/phase": np.array([[[0.0], [0.1]], [[0.2], [0.3]]]),
        f"{DRIVE}/waveform": np.array([[b"sine"], [b"triangle"]]),
        f"{RECEIVER}/unit": "A",
        f"{RECEIVER}/inductionFactor": [1.5, 2.5],
        f"{RECEIVER}/transferFunction": transfer,
        "/acquisition/startTime": "2018-04-19T09:49:08.814",
        "/tracer/name": np.array([b"Perimag", b"Synomag"]),
        "/experiment/isSimulation": np.int8(1),
    }
    change(path, stated)
    with MeasurementFile(path) as file:
        found = file.acquisition
    np.testing.assert_array_equal(found.gradients, gradients)
    np.testing.assert_array_equal(found.gradient, gradients[0, 0])
    np.testing.assert_array_equal(found.offset_field, offset)
    np.testing.assert_array_equal(found.strength[:, :, 0], [[0.012, 0.011], [0.010, 0.009]])
    np.testing.assert_array_equal(found.phase[:, :, 0], [[0.0, 0.1], [0.2, 0.3]])
    assert found.waveform.tolist() == [["sine"], ["triangle"]]
    assert (found.unit, found.start_time) == ("A", "2018-04-19T09:49:08.814")
    assert found.description["/experiment/isSimulation"] == 1
    np.testing.assert_array_equal(found.induction_factor, [1.5, 2.5])
    np.testing.assert_array_equal(found.transfer_function, transfer)
    assert found.description["/tracer/name"] == ["Perimag", "Synomag"]
    assert found.description["/study/name"] == "mpi-fast"
    assert found.cycle == CYCLE

    copy = tmp_path / "copy.mdf"
    write_measurement(copy, voltages(1, periods, channels, SAMPLES), acquisition=found)
    with MeasurementFile(copy) as file:
        assert_same_acquisition(file.acquisition, found)

    change(path, dict.fromkeys(stated) | {f"{DRIVE}/strength": np.full((1, 2, 1), 0.012)})
    with MeasurementFile(path) as file:
        found = file.acquisition
    for name in ("gradient", "gradients", "offset_field", "waveform", "unit", "induction_factor", "transfer_function"):
        assert getattr(found, name) is None, name
    assert found.start_time is None
    assert "/experiment/isSimulation" not in found.description
