"""Flags that follow from samples alone, and bad frames, which do not affect others."""

import numpy as np
import pytest

from mpi_fast import Reconstructor
from mpi_fast.errors import InputError, MPIFastWarning
from mpi_fast.flags import Flag, names_of, of_rows, of_samples
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate

USED = np.ones(2, bool)
RNG = np.random.default_rng(0)


@pytest.fixture
def sine():
    """Two channels of noisy sines, like the drive's feed-through in a receiver: (1, 2, 1632)."""
    t = np.arange(1632) / 1632
    waves = np.stack([np.sin(2 * np.pi * 16 * t), np.cos(2 * np.pi * 17 * t)])[None]
    return waves + 0.01 * RNG.standard_normal(waves.shape)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("side", ["top", "bottom", "both"])
def test_a_plateau_is_clipping(sine, level, side):
    low, high = (-level if side != "top" else -9), (level if side != "bottom" else 9)
    clipped = sine.copy()
    clipped[:, 1] = np.clip(clipped[:, 1], low, high)
    assert of_samples(clipped, USED) == Flag.CLIPPED
    assert of_samples(np.round(clipped * 2000).astype(np.int16), USED) == Flag.CLIPPED
    assert of_samples(clipped, np.array([True, False])) == 0  # in an unused channel


@pytest.mark.parametrize("digits", [20, 100, 2000, 30000])
def test_rounding_is_no_clipping(sine, digits):
    """A sine rounded to few digits has flat tops without clipping."""
    clean = np.round(np.sin(2 * np.pi * 16 * np.arange(1632) / 1632) * digits)
    samples = np.stack([clean, clean])[None].astype(np.int16)
    assert of_samples(samples, USED) == 0
    assert of_samples(np.round(sine * digits).astype(np.int16), USED) == 0
    assert of_samples(sine, USED) == 0


def test_a_signal_at_rest_is_no_clipping():
    """A signal between pulses of one sign, or with noise that rarely reaches the converter's next digit."""
    t = np.arange(1632) % 272
    pulses = np.exp(-(((t - 100) / 5) ** 2)).astype(np.float32)
    rare = np.round(0.3 + 0.1 * RNG.standard_normal(1632))
    assert set(rare) == {0, 1}
    for samples in (pulses, np.round(1000 * pulses), -pulses, rare, -rare):
        assert of_samples(np.stack([samples, samples])[None], USED) == 0


@pytest.mark.parametrize("value", [0.0, 3.5, -1.0])
def test_a_channel_that_never_changes_is_dead(sine, value):
    sine[:, 0] = value
    assert of_samples(sine, USED) == Flag.DEAD
    assert of_samples(sine, np.array([False, True])) == 0
    rows = np.ones((3, 6), complex)
    rows[1, :3] = 0
    np.testing.assert_array_equal(of_rows(rows, np.array([0, 0, 0, 2, 2, 2])), [0, 16, 0])


def test_flags_have_names():
    assert names_of(int(Flag.BAD | Flag.FOREIGN)) == ["bad", "foreign"]
    assert names_of(0) == []


@pytest.fixture(scope="module")
def rows(true_rows):
    images = generate(["tumours", "dots"], 6, seed=21).reshape(6, -1)
    return add_noise(images @ true_rows.T, 25.0, np.random.default_rng(2))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38, 3e30])
def test_one_bad_frame_costs_no_other(calibration, rows, value):
    reconstructor = Reconstructor(calibration, threads=1)
    expected = reconstructor(rows)
    broken = rows.copy()
    broken[2, 7] = value
    with pytest.warns(MPIFastWarning, match=r"1 of 6 frames .* from number 2 of these: NaN, Inf or numbers too large"):
        found = Reconstructor(calibration, threads=1)(broken)
    good = np.arange(6) != 2
    np.testing.assert_array_equal(found.flags, np.where(good, 0, Flag.BAD))
    for name in ("image", "std", "snr_db", "noise_floor", "misfit"):
        values = getattr(found, name)
        assert np.isnan(values[2]).all()
        np.testing.assert_allclose(values[good], getattr(expected, name)[good], rtol=1e-4, atol=1e-6)
    assert np.isfinite(broken[good]).all()  # the caller's array is not changed
    assert not np.isfinite(broken[2, 7]) or broken[2, 7] == np.complex64(value)


@pytest.mark.parametrize("value", [np.nan, 3e30])
def test_who_asks_for_strictness_gets_it(calibration, rows, value):
    rows[1, 0] = value
    with pytest.raises(InputError, match="frame 1"):
        Reconstructor(calibration, on_bad_frame="stop")(rows)
    with pytest.raises(InputError, match="expected mark or stop"):
        Reconstructor(calibration, on_bad_frame="hope")
