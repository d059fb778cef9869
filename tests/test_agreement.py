"""Comparison of a measurement with its matrix: every fact that both state is refused, converted or doubted."""

import warnings

import h5py
import numpy as np
import pytest
from mdf_files import change, convert

from mpi_fast.calibration import Calibration
from mpi_fast.errors import FileWarning, MismatchError, MPIFastError, MPIFastWarning
from mpi_fast.experiment import Receiver, acquisition_of, measure_matrix, save_frames, save_matrix
from mpi_fast.mdf import MeasurementFile, SystemMatrixFile, write_measurement
from mpi_fast.mdf.acquisition_text import from_plain, to_plain
from mpi_fast.pairing import MeasuredRows
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

DRIVE, RECEIVER = "/acquisition/drivefield", "/acquisition/receiver"
GRADIENT, OFFSET, CORRECTED = "/acquisition/gradient", "/acquisition/offsetField", "isTransferFunctionCorrected"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    scanner = Scanner(grid=(6, 7), sub_voxels=1)
    matrix = measure_matrix(scanner, 20.0, np.random.default_rng(0))
    save_matrix(folder / "sm.mdf", matrix)
    receiver = Receiver(matrix, matrix.calibrate().selection, 30.0, np.random.default_rng(2), feed_through=True)
    save_frames(folder / "m.mdf", receiver, generate("dots", 5, (6, 7), seed=1), background=6, time_domain=False)
    return folder


@pytest.fixture
def pair(folder, tmp_path):
    """A matrix and a measurement to change."""
    for name in ("sm.mdf", "m.mdf"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


def rows_of(pair, **options):
    with MeasurementFile(pair / "m.mdf") as file:
        rows = MeasuredRows(file, Calibration.from_mdf(pair / "sm.mdf"), **options)
        return np.concatenate(list(rows)), rows.agreement


def assert_same(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (GRADIENT, np.diag([-2.0, -2.0, 4.0]), r"gradient -2 x -2 x 4 T/m, but the calibration has -1 x -1 x 2 T/m"),
        (GRADIENT, np.array([-1.0, -1.0, 2.1]), r"gradient -1 x -1 x 2\.1 T/m, but"),
        (GRADIENT, [[[[-1.0, 0.1, 0], [0.1, -1, 0], [0, 0, 2]]]], r"gradient -1 x 0\.1 x 0 x .* T/m, but"),
        (f"{DRIVE}/waveform", np.array([[b"sine"], [b"triangle"]]), "waveform sine x triangle, but .* sine x sine"),
        (f"{DRIVE}/strength", [[[12e-3], [11e-3]]], r"drive-field strength 12 x 11 mT, but .* 12 x 12 mT"),
        (f"{RECEIVER}/unit", b"T", "unit T, but the calibration has V"),
    ],
)
def test_what_cannot_be_converted_is_refused_with_both_values(pair, name, value, message):
    change(pair / "m.mdf", {name: value})
    with pytest.raises(MismatchError, match=rf"m\.mdf: {message}"):
        rows_of(pair)


def test_another_clock_is_refused_however_consistent(pair):
    clock = {f"{DRIVE}/baseFrequency": 2.4e6, f"{DRIVE}/cycle": 680e-6, f"{RECEIVER}/bandwidth": 1.2e6}
    change(pair / "m.mdf", clock)
    with pytest.raises(MismatchError, match=r"bandwidth 1\.2 MHz, but the calibration has 1\.25 MHz"):
        rows_of(pair)
    change(pair / "m.mdf", {f"{DRIVE}/divider": [[102], [102]], f"{DRIVE}/baseFrequency": 2.5e6})
    change(pair / "m.mdf", {f"{DRIVE}/cycle": None, f"{RECEIVER}/bandwidth": 1.25e6})
    with pytest.raises(MPIFastError, match=r"102"):
        rows_of(pair)


def repeat_periods(pair, count):
    """Make every frame one of ``count`` equal periods."""
    convert(pair / "m.mdf", "/measurement/data", lambda data: np.repeat(data, count, axis=1))
    per_period = {
        f"{DRIVE}/{name}": np.tile([[[value], [value]]], (count, 1, 1))
        for name, value in (("strength", 12e-3), ("phase", np.pi / 2))
    }
    gradient = np.tile(np.diag([-1.0, -1.0, 2.0]), (count, 1, 1, 1))
    change(pair / "m.mdf", {**per_period, GRADIENT: gradient, "/acquisition/numPeriodsPerFrame": count})


@pytest.mark.parametrize(
    ("name", "message"),
    [("strength", "strength 12 x 6 mT in period 2, but"), ("gradient", "gradient .* in period 2, but")],
)
def test_every_period_in_use_counts_and_no_other(pair, name, message):
    expected, _ = rows_of(pair)
    repeat_periods(pair, 4)
    if name == "strength":
        weaker = np.array([[1, 1], [1, 1], [1, 0.5], [1, 1]])[..., None]
        convert(pair / "m.mdf", f"{DRIVE}/strength", lambda v: v * weaker)
    else:
        convert(pair / "m.mdf", GRADIENT, lambda v: v * np.array([1.0, 1.0, 3.0, 1.0])[:, None, None, None])
    with pytest.raises(MismatchError, match=message):
        rows_of(pair)
    found, _ = rows_of(pair, periods=slice(0, 2))
    assert_same(found, np.repeat(expected, 2, axis=0))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (OFFSET, np.array([[0, 0, 0], [0, 0, 0], [5e-3, 0, 0], [5e-3, 0, 0]]), r"offset field 0 x .* but 5 x 0 x 0 mT"),
        (GRADIENT, np.diag([-1.0, -1, 2]) * np.array([1, 1, 1.5, 1.5])[:, None, None, None], "gradient .* in period 2"),
    ],
)
def test_a_mean_of_periods_with_different_fields_is_refused(pair, name, value, message):
    """A measurement that contradicts itself is found if the calibration states nothing."""
    repeat_periods(pair, 4)
    change(pair / "m.mdf", {name: value})
    change(pair / "sm.mdf", {name: None})
    with pytest.warns(MPIFastWarning, match=f"{message}.*: images of different places or fields"):
        assert len(rows_of(pair)[0]) == 20
    with pytest.raises(MismatchError, match=f"{message}.*: their mean would be an image of no place"):
        rows_of(pair, average=4)
    with pytest.warns(MPIFastWarning, match="images of different places"):
        assert len(rows_of(pair, average=2)[0]) == 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows_of(pair, periods=slice(2, 4), average="all")


@pytest.mark.parametrize(("unit", "scale"), [("mV", 1e3), ("µV", 1e6), ("nV", 1e9)])
def test_units_of_the_volt_are_converted(pair, unit, scale):
    expected, _ = rows_of(pair)
    convert(pair / "m.mdf", "/measurement/data", lambda data: (data.astype(complex) * scale).astype(np.complex64))
    change(pair / "m.mdf", {f"{RECEIVER}/unit": unit.encode()})
    found, agreement = rows_of(pair)
    assert_same(found, expected)
    assert agreement.done[0].endswith("but the calibration has V: converted")


@pytest.mark.parametrize("unit", ["Volt", "volts", "v"])
def test_the_volt_has_several_spellings(pair, unit):
    expected, _ = rows_of(pair)
    change(pair / "m.mdf", {f"{RECEIVER}/unit": unit.encode()})
    rows, agreement = rows_of(pair)
    np.testing.assert_array_equal(rows, expected)
    assert not agreement.doubts


def test_an_arbitrary_unit_is_doubted(pair):
    """Converters of Bruker's files write "a.u." for every unit."""
    expected, _ = rows_of(pair)
    change(pair / "m.mdf", {f"{RECEIVER}/unit": b"a.u."})
    with pytest.warns(MPIFastWarning, match="unit a.u., but the calibration has V: they may differ by a factor"):
        rows, _ = rows_of(pair)
    np.testing.assert_array_equal(rows, expected)
    change(pair / "sm.mdf", {f"{RECEIVER}/unit": b"a.u."})
    assert not rows_of(pair)[1].doubts


@pytest.mark.parametrize("which", ["m.mdf", "sm.mdf"])
@pytest.mark.parametrize("name", [f"{DRIVE}/phase", f"{DRIVE}/waveform", f"{RECEIVER}/unit", GRADIENT])
def test_what_only_one_states_is_not_compared(pair, which, name):
    expected, _ = rows_of(pair)
    change(pair / which, {name: None})
    rows, agreement = rows_of(pair)
    np.testing.assert_array_equal(rows, expected)
    assert (agreement.done, agreement.doubts) == ((), ())


@pytest.mark.parametrize("cycle", [652.8e-6 * 1.0004, 653e-6, None])
def test_a_cycle_of_a_few_digits(pair, cycle):
    """The cycle follows from clock and dividers, so a delay is compensated as exactly as with all digits."""
    with h5py.File(pair / "m.mdf") as h5:
        turns = 2.5e6 / h5[f"{DRIVE}/divider"][()]
    convert(pair / "m.mdf", f"{DRIVE}/phase", lambda phase: phase + 2 * np.pi * turns * 37e-6)
    expected, _ = rows_of(pair)
    change(pair / "m.mdf", {f"{DRIVE}/cycle": cycle})
    rows, agreement = rows_of(pair)
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert len(agreement.done) == 1


@pytest.mark.parametrize("microseconds", [0.4, 37.0, -200.0, 326.4])
def test_a_trajectory_that_starts_later_is_turned_back(pair, microseconds):
    """Drive phases and signals are shifted by one delay; the rows must stay the same."""
    expected, _ = rows_of(pair)
    with MeasurementFile(pair / "m.mdf") as file:
        a, spectra, empty = (
            file.acquisition,
            *(np.concatenate(list(r())) for r in (file.frames, file.background_frames)),
        )
    delay = 1e-6 * microseconds
    turned = np.exp(2j * np.pi * a.frequencies * delay)
    phase = np.pi / 2 + 2 * np.pi * a.base_frequency / a.divider[None] * delay
    change(pair / "m.mdf", {f"{DRIVE}/phase": np.angle(np.exp(1j * phase))})
    late = {"frames": spectra * turned, "background": empty * turned}
    convert(
        pair / "m.mdf",
        "/measurement/data",
        lambda data: np.concatenate([late["frames"], late["background"]])[:, None].astype(data.dtype),
    )
    found, agreement = rows_of(pair)
    assert_same(found, expected)
    assert f"starts {microseconds:.4g} us later" in agreement.done[0] or microseconds == 326.4


def test_phases_that_no_delay_explains(pair):
    expected, _ = rows_of(pair)
    change(pair / "m.mdf", {f"{DRIVE}/phase": [[[np.pi / 2 + 0.05], [np.pi / 2]]]})
    with pytest.warns(MPIFastWarning, match=r"phase 1\.6208 x 1\.5708 rad, but the calibration has 1\.5708 x 1\.5708"):
        found, _ = rows_of(pair)
    assert_same(found, expected)
    change(pair / "m.mdf", {f"{DRIVE}/phase": [[[np.pi / 2 + 0.15], [np.pi / 2]]]})
    with pytest.raises(MismatchError, match="no common delay explains the difference"):
        rows_of(pair)


def test_a_negative_strength_is_half_a_turn_of_phase(pair):
    expected, _ = rows_of(pair)
    change(
        pair / "m.mdf",
        {f"{DRIVE}/strength": -np.full((1, 2, 1), 12e-3), f"{DRIVE}/phase": -np.full((1, 2, 1), np.pi / 2)},
    )
    found, agreement = rows_of(pair)
    assert_same(found, expected)
    assert agreement.done == ()


def chain(seed):
    """A transfer function (3, 817) without zeros."""
    rng = np.random.default_rng(seed)
    return (1 + rng.random((3, 817))) * np.exp(2j * np.pi * rng.random((3, 817)))


@pytest.mark.parametrize("induction", [False, True])
def test_a_known_difference_of_transfer_functions_is_converted(pair, induction):
    expected, _ = rows_of(pair)
    ours, theirs = chain(1), chain(2)
    factor = theirs / ours
    change(pair / "sm.mdf", {f"{RECEIVER}/transferFunction": ours})
    change(pair / "m.mdf", {f"{RECEIVER}/transferFunction": theirs})
    if induction:
        change(pair / "sm.mdf", {f"{RECEIVER}/inductionFactor": [1.0, 2.0, 4.0]})
        change(pair / "m.mdf", {f"{RECEIVER}/inductionFactor": [3.0, 2.0, 1.0]})
        factor = factor * (np.array([3.0, 2.0, 1.0]) / [1.0, 2.0, 4.0])[:, None]
    convert(pair / "m.mdf", "/measurement/data", lambda data: (data * factor).astype(data.dtype))
    found, agreement = rows_of(pair)
    assert_same(found, expected)
    assert agreement.done[0].startswith("transfer function ")


@pytest.mark.parametrize("which", ["m.mdf", "sm.mdf"])
def test_what_is_not_corrected_yet_states_how_to(pair, which):
    """One file was divided by the transfer function, and the other states it."""
    expected, _ = rows_of(pair)
    h = chain(3)
    other = {"m.mdf": "sm.mdf", "sm.mdf": "m.mdf"}[which]
    change(pair / which, {f"/measurement/{CORRECTED}": np.int8(1)})
    with pytest.raises(MismatchError, match="the one that is not does not state it"):
        rows_of(pair)
    change(pair / other, {f"{RECEIVER}/transferFunction": h})
    if which == "m.mdf":
        convert(pair / which, "/measurement/data", lambda data: (data / h).astype(data.dtype))
        assert_same(rows_of(pair)[0], expected)
    else:
        found, _ = rows_of(pair)
        assert_same(found, expected / h[Calibration.from_mdf(pair / "sm.mdf").selection])


@pytest.mark.parametrize(("name", "shape"), [("transferFunction", (817, 3)), ("inductionFactor", (2,))])
def test_a_chain_of_another_shape_is_not_compared_but_said(pair, name, shape):
    expected, _ = rows_of(pair)
    change(pair / "m.mdf", {f"{RECEIVER}/{name}": np.ones(shape)})
    with pytest.warns(FileWarning, match=f"receiver/{name} has shape .*: it is not compared with other files"):
        assert_same(rows_of(pair)[0], expected)


def test_a_transfer_function_with_a_hole_is_named(pair):
    h = chain(4)
    used = np.flatnonzero(Calibration.from_mdf(pair / "sm.mdf").selection[0])
    change(pair / "sm.mdf", {f"{RECEIVER}/transferFunction": h})
    broken = 2 * h
    broken[0, used[3]] = 0
    change(pair / "m.mdf", {f"{RECEIVER}/transferFunction": broken})
    with pytest.raises(MismatchError, match=r"unknown in 1 selected rows, such as channel 0 at .* kHz"):
        rows_of(pair)


def test_an_offset_field_is_doubted_and_says_where_the_images_are(pair):
    change(pair / "sm.mdf", {OFFSET: np.zeros((1, 1, 3))})
    change(pair / "m.mdf", {OFFSET: [[[0.0, 5e-3, 0.0]]]})
    with pytest.warns(MPIFastWarning, match=r"offset field 0 x 5 x 0 mT, but .* images lie 0 x 5 x 0 mm"):
        rows_of(pair)


@pytest.mark.parametrize("strength", [0.0, 1e-9])
def test_a_drive_channel_without_drive_is_none(pair, strength):
    """An amplifier that is off may also state a nanotesla."""
    expected, _ = rows_of(pair)
    change(
        pair / "m.mdf",
        {
            f"{DRIVE}/divider": [[102], [96], [99]],
            f"{DRIVE}/strength": [[[12e-3], [12e-3], [strength]]],
            f"{DRIVE}/phase": np.full((1, 3, 1), np.pi / 2),
            f"{DRIVE}/waveform": np.array([[b"sine"]] * 3),
            f"{DRIVE}/numChannels": 3,
        },
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(rows_of(pair)[0], expected)
    change(pair / "m.mdf", {f"{DRIVE}/cycle": 53856 / 2.5e6})
    with pytest.warns(FileWarning, match="counts channels without drive"):
        assert_same(rows_of(pair)[0], expected)


def test_a_saved_calibration_keeps_every_fact(pair, tmp_path):
    change(pair / "sm.mdf", {f"{RECEIVER}/transferFunction": chain(5), OFFSET: np.zeros((1, 1, 3))})
    calibration = Calibration.from_mdf(pair / "sm.mdf")
    calibration.save(tmp_path / "c.h5")
    loaded = Calibration.load(tmp_path / "c.h5")
    for name, value in vars(calibration.acquisition).items():
        np.testing.assert_array_equal(getattr(loaded.acquisition, name), value, err_msg=name)
    assert (loaded.noise_known, loaded.transfer_function_corrected) == (True, False)
    with SystemMatrixFile(pair / "sm.mdf") as file:
        assert to_plain(from_plain(to_plain(file.acquisition))) == to_plain(file.acquisition)


def test_what_an_earlier_release_saved_is_compared_as_far_as_it_goes(pair):
    from dataclasses import replace

    from mpi_fast.calibration_file import _from_facts

    calibration = Calibration.from_mdf(pair / "sm.mdf")
    a = calibration.acquisition
    facts = {"divider": [102, 96], "strength": [12e-3, 12e-3], "bandwidth": a.bandwidth, "num_samples": 1632}
    old = replace(calibration, acquisition=_from_facts(facts | {"num_channels": 3}))
    change(pair / "m.mdf", {GRADIENT: np.diag([-3.0, -3.0, 6.0])})
    with MeasurementFile(pair / "m.mdf") as file, pytest.warns(MPIFastWarning, match="calibrate again"):
        MeasuredRows(file, old)
    change(pair / "m.mdf", {f"{DRIVE}/strength": [[[10e-3], [12e-3]]]})
    with MeasurementFile(pair / "m.mdf") as file, pytest.raises(MismatchError, match="strength 10 x 12 mT"):
        MeasuredRows(file, old)


def test_clipped_samples_in_a_file_flag_their_frame(tmp_path, folder):
    """Raw integers, because a transform would hide the plateau; averaged frames inherit the flag."""
    calibration = Calibration.from_mdf(folder / "sm.mdf")
    with MeasurementFile(folder / "m.mdf") as file:
        spectra, a = np.concatenate(list(file.frames())), file.acquisition
    volts = np.fft.irfft(spectra, 1632)
    raw = np.round(volts / np.abs(volts).max() * 8000).astype(np.int16)
    raw[3, 1] = np.clip(raw[3, 1], -2000, 2000)
    write_measurement(tmp_path / "m.mdf", raw, acquisition=a, background_corrected=True)
    for average, expected in ((1, [0, 0, 0, 2, 0]), (2, [0, 2])):
        with MeasurementFile(tmp_path / "m.mdf") as file:
            rows = MeasuredRows(file, calibration, average=average)
            (_,) = list(rows)
            np.testing.assert_array_equal(rows.flags, expected)
            np.testing.assert_array_equal(rows.numbers, average * np.arange(len(expected)))


def test_acquisition_of_a_simulation_states_what_is_compared():
    a = acquisition_of(Scanner())
    assert a.gradients.shape == (1, 1, 3, 3)
