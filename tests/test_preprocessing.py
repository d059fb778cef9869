"""Background, row SNR, mixing orders and the choice of rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_fast.errors import InputError
from mpi_fast.preprocessing import RowFilter, background_weights, mixing_orders, row_noise, row_snr

RNG = np.random.default_rng(0)


def subtract(foreground, foreground_order, background, background_order):
    return foreground - background @ background_weights(foreground_order, background_order)


def test_a_drift_that_is_linear_in_time_is_removed_exactly():
    total = 60
    empty = np.isin(np.arange(total) % 10, (0, 1))
    rows = 4
    signal = RNG.standard_normal((rows, total)) + 1j * RNG.standard_normal((rows, total))
    drift = RNG.standard_normal((rows, 1)) + np.arange(total) * RNG.standard_normal((rows, 1))
    order = np.flatnonzero(~empty), np.flatnonzero(empty)
    frames = np.where(empty, 0, signal) + drift
    corrected = subtract(frames[:, order[0]], order[0], frames[:, order[1]], order[1])
    inside = order[0] < 50  # after the last block the background is held
    np.testing.assert_allclose(corrected[:, inside], signal[:, order[0]][:, inside], atol=1e-12)


def test_stored_order_does_not_matter_only_acquisition_order_does():
    foreground, background = RNG.standard_normal((3, 20)) + 0j, RNG.standard_normal((3, 6)) + 0j
    when = RNG.permutation(26)
    order = when[:20], np.sort(when[20:])
    shuffle, again = RNG.permutation(20), RNG.permutation(6)
    straight = subtract(foreground, order[0], background, order[1])
    shuffled = subtract(foreground[:, shuffle], order[0][shuffle], background[:, again], order[1][again])
    np.testing.assert_allclose(shuffled, straight[:, shuffle], atol=1e-14)


def test_one_block_is_subtracted_as_its_mean():
    foreground, background = RNG.standard_normal((2, 5)) + 0j, RNG.standard_normal((2, 3)) + 0j
    corrected = subtract(foreground, np.arange(5), background, np.arange(5, 8))
    np.testing.assert_allclose(corrected, foreground - background.mean(axis=1, keepdims=True))


def test_row_noise_is_unbiased_and_blind_to_drift():
    noise = (RNG.standard_normal((50, 4000)) + 1j * RNG.standard_normal((50, 4000))) * np.arange(1, 51)[:, None]
    drift = np.linspace(0, 300, 4000) * np.exp(1j * np.arange(50))[:, None]
    np.testing.assert_allclose(row_noise(noise + drift), np.arange(1, 51), rtol=0.05)


def test_row_snr_finds_signal_over_noise():
    rows, voxels = 30, 200
    noise = (RNG.standard_normal((rows, 400)) + 1j * RNG.standard_normal((rows, 400))) / np.sqrt(2)
    shape = np.exp(-(np.linspace(-3, 3, voxels) ** 2))  # all rows are strong at the same voxels
    foreground = shape * np.geomspace(1, 1000, rows)[:, None] + 0j
    snr = row_snr(foreground.__getitem__, noise, np.split(np.arange(rows), 3))
    mean_magnitude = np.sqrt(np.pi) / 2
    np.testing.assert_allclose(snr, np.geomspace(1, 1000, rows) / mean_magnitude, rtol=0.15)


@pytest.mark.parametrize("oversampling", [1, 2])
def test_mixing_orders_of_the_openmpi_trajectory(oversampling):
    """V = 1632, dividers 102 and 96: component k = 16 m_x + 17 m_y, however fast the receiver samples."""
    frequencies = np.fft.rfftfreq(1632 * oversampling, 1 / (2.5e6 * oversampling))
    orders = mixing_orders([2.5e6 / 102, 2.5e6 / 96], frequencies)
    assert orders[16] == orders[17] == 1
    assert orders[1] == 2  # 17 - 16
    assert orders[33] == 2
    assert orders[48] == 3
    brute = {
        k: min(abs(a) + abs(b) for a in range(-60, 61) for b in range(-60, 61) if abs(16 * a + 17 * b) == k)
        for k in (5, 100, 137, 400)
    }
    assert {k: orders[k] for k in brute} == brute


def test_selection_by_snr_band_channel_and_order():
    frequencies = np.linspace(0, 1e6, 11)
    snr = np.tile(np.arange(11.0), (3, 1))
    orders = np.arange(11)
    rows = RowFilter(snr_threshold=4, min_frequency=2e5, max_frequency=8e5, channels=[0, 2], max_order=6)
    chosen = rows.select(rows.candidates(frequencies, 3, orders), snr)
    expected = np.zeros((3, 11), bool)
    expected[[0, 2], 4:7] = True
    np.testing.assert_array_equal(chosen, expected)


@given(threshold=st.floats(0, 9), low=st.floats(0, 9e5))
def test_a_stricter_filter_never_adds_rows(threshold, low):
    frequencies, snr = np.linspace(0, 1e6, 11), np.random.default_rng(1).uniform(0, 20, (2, 11))
    snr[0, -1] = 100  # one row always stays
    loose = RowFilter(threshold, low).select(RowFilter(threshold, low).candidates(frequencies, 2), snr)
    strict = RowFilter(threshold + 1, low + 1e4)
    assert not (strict.select(strict.candidates(frequencies, 2), snr) & ~loose).any()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (RowFilter(channels=[3]), "channels"),
        (RowFilter(channels=[]), "channels"),
        (RowFilter(max_order=3), "max_order"),
        (RowFilter(snr_threshold=50), "best of them has SNR 20"),
        (RowFilter(min_frequency=2e6), "lower a threshold"),
    ],
)
def test_filters_that_leave_nothing(rows, message):
    with pytest.raises(InputError, match=message):
        rows.select(rows.candidates(np.linspace(0, 1e6, 11), 2), np.full((2, 11), 20.0))


@pytest.mark.parametrize("name", ["max_order", "max_rows"])
@pytest.mark.parametrize("limit", [0, -3])
def test_limits_below_one_are_refused(name, limit):
    with pytest.raises(InputError, match=f"{name} {limit}: expected 1 or more"):
        RowFilter(**{name: limit})
