"""The noise has the requested SNR, and each kind has its properties."""

import numpy as np
import pytest
from scipy import stats

from mpi_fast.errors import InputError
from mpi_fast.noise import NOISE_KINDS, add_noise, complex_noise, row_profile

FREQUENCIES = np.fft.rfftfreq(1632, 1 / 2.5e6)


@pytest.mark.parametrize("kind", NOISE_KINDS)
@pytest.mark.parametrize("snr", [-5.0, 15.0, 40.0])
def test_every_frame_has_the_snr_asked_for(kind, snr):
    rng = np.random.default_rng(0)
    clean = (rng.standard_normal((5, 300)) + 1j * rng.standard_normal((5, 300))) * np.geomspace(1e-6, 1e3, 5)[:, None]
    noisy = add_noise(clean, snr, rng, kind, row_profile(FREQUENCIES)[200:500])
    found = 20 * np.log10(np.linalg.norm(clean, axis=1) / np.linalg.norm(noisy - clean, axis=1))
    np.testing.assert_allclose(found, snr, atol=0.02)


def test_a_frame_of_zeros_stays_one():
    assert not add_noise(np.zeros((2, 50), complex), 10.0, np.random.default_rng(0)).any()


def test_white_noise_is_circular_gaussian_of_unit_power():
    noise = complex_noise((200, 500), np.random.default_rng(1))
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(1, abs=0.02)
    assert abs(np.mean(noise**2)) < 0.02
    assert stats.kstest(noise.real.ravel()[:5000], stats.norm(scale=np.sqrt(0.5)).cdf).pvalue > 0.01


def test_coloured_noise_follows_its_profile():
    profile = row_profile(FREQUENCIES, (2.5e6 / 102,))
    assert np.mean(profile**2) == pytest.approx(1)
    noise = complex_noise((2000, len(profile)), np.random.default_rng(2), "coloured", profile)
    np.testing.assert_allclose(np.sqrt(np.mean(np.abs(noise) ** 2, axis=0)), profile, rtol=0.15)
    harmonic = np.argmin(np.abs(FREQUENCIES - 10 * 2.5e6 / 102))
    assert profile[harmonic] > 2 * profile[harmonic + 3]


def test_spiky_noise_has_outliers_that_white_noise_has_not():
    rng = np.random.default_rng(3)
    outliers = [np.mean(np.abs(complex_noise((300, 300), rng, kind)) > 5) for kind in ("white", "spiky")]
    assert outliers[0] == 0
    assert outliers[1] > 1e-3


def test_drift_is_shared_by_neighbouring_frames():
    noise = complex_noise((400, 300), np.random.default_rng(4), "drift")
    overlap = np.abs(np.sum(noise[1:].conj() * noise[:-1], axis=1)) / 300
    assert overlap.mean() > 0.1  # independent frames: 0.05
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(1, rel=0.5)


def test_unknown_kinds_and_missing_profiles():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="pink"):
        complex_noise((2, 3), rng, "pink")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="profile"):
        complex_noise((2, 3), rng, "coloured")
    with pytest.raises(InputError, match="SNR"):
        add_noise(np.ones((2, 3), complex), np.nan, rng)


@pytest.mark.parametrize("snr", [float("nan"), float("-inf"), -7000.0, 301.0])
def test_ratios_beyond_the_limit_are_refused(snr):
    with pytest.raises(InputError, match="expected a number from -300 to 300"):
        add_noise(np.ones((1, 3), complex), snr, np.random.default_rng(0))
