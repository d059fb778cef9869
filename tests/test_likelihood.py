"""The likelihood, compared with dense float64 linear algebra and with its copy in the network."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_fast.errors import InputError
from mpi_fast.likelihood import Likelihood, signal_presence, signal_scale


def random_likelihood(frames=3, voxels=30, rank=12, seed=0) -> Likelihood:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((voxels, rank)))[0]
    return Likelihood(
        y=rng.standard_normal((frames, rank)).astype(np.float32),
        singular_values=np.geomspace(5, 0.01, rank).astype(np.float32),
        basis=basis.astype(np.float32),
        noise=rng.uniform(0.05, 2, frames).astype(np.float32),
    )


@settings(max_examples=30, deadline=None)
@given(spread=st.floats(1e-3, 20), seed=st.integers(0, 1000), rank=st.integers(1, 30))
def test_proximal_step_is_the_dense_solution(spread, seed, rank):
    """argmin ||S V^T x - y||^2 / sigma^2 + ||x - m||^2 / r^2."""
    likelihood = random_likelihood(rank=rank, seed=seed)
    mean = np.random.default_rng(seed).standard_normal((3, 30)).astype(np.float32)
    combined = likelihood.combine(mean, spread)
    operator = (likelihood.singular_values[:, None] * likelihood.basis.T).astype(np.float64)
    for f in range(3):
        variance = float(likelihood.noise[f]) ** 2
        precision = operator.T @ operator / variance + np.eye(30) / spread**2
        right = operator.T @ likelihood.y[f].astype(np.float64) / variance + mean[f] / spread**2
        expected = np.linalg.solve(precision, right)
        np.testing.assert_allclose(combined[f], expected, atol=2e-5 * max(1, np.abs(expected).max()))


def test_nothing_measured_leaves_images_as_they_are():
    images, zero = np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32), np.zeros((2, 1), np.float32)
    nothing = Likelihood(zero, zero[0], np.zeros((9, 1), np.float32), np.ones(2, np.float32))
    np.testing.assert_array_equal(nothing.combine(images, 0.5), images)


def test_the_noise_floor_is_what_noise_leaves_in_images():
    likelihood = random_likelihood()
    noise = likelihood.noise[:, None] * np.random.default_rng(0).standard_normal((4000, 3, 12))
    images = (likelihood.gain(1.0) * noise) @ likelihood.basis.T
    found = likelihood.noise_floor(np.square(likelihood.basis).mean(axis=0))
    np.testing.assert_allclose(found, np.sqrt(np.square(images).mean(axis=(0, 2))), rtol=0.03)


def test_scale_follows_the_signals_and_is_floored_by_the_noise():
    rng = np.random.default_rng(0)
    s = np.geomspace(10, 0.1, 50).astype(np.float32)
    y = (s * rng.standard_normal((2000, 50)) * 3).astype(np.float32)
    noise = np.full(2000, 1e-3, np.float32)
    assert np.sqrt(np.mean(signal_scale(y, s, noise) ** 2)) == pytest.approx(1.5, rel=0.05)
    np.testing.assert_allclose(signal_scale(1e6 * y, s, 1e6 * noise), 1e6 * signal_scale(y, s, noise), rtol=1e-5)
    empty = rng.standard_normal((2000, 50)).astype(np.float32)
    scales = signal_scale(empty, s, np.ones(2000, np.float32))
    assert (scales > 0).all()
    assert scales.max() / np.median(scales) < 2


def test_noise_is_no_signal_and_signals_are():
    rng = np.random.default_rng(0)
    noise = np.geomspace(1e-6, 1e6, 4000).astype(np.float32)
    empty = noise[:, None] * rng.standard_normal((4000, 120))
    assert (signal_presence(empty, noise) == 0).mean() > 0.998
    faint = empty + 1.5 * noise[:, None]
    assert (signal_presence(faint, noise) == 1).mean() > 0.95
    assert not signal_presence(np.zeros((3, 5)), np.zeros(3, np.float32)).any()


def test_the_network_combines_alike():
    torch = pytest.importorskip("torch")
    from mpi_fast.training.combination import Signals, gains, signal_changes

    likelihood = random_likelihood(frames=4)
    mean = np.random.default_rng(2).standard_normal((4, 30)).astype(np.float32)
    arrays = likelihood.y, likelihood.noise, likelihood.singular_values, likelihood.basis
    signals = Signals.of(*(torch.from_numpy(array)[None] for array in arrays))
    changed = signal_changes(signals, torch.from_numpy(mean)[None, :, None], gains(signals, torch.full((1, 4, 1), 0.6)))
    np.testing.assert_allclose(mean + changed[0, :, 0].numpy(), likelihood.combine(mean, 0.6), atol=1e-5)


def test_shapes_are_checked():
    ok = random_likelihood()
    with pytest.raises(InputError, match="likelihood"):
        Likelihood(ok.y[:, 1:], ok.singular_values, ok.basis, ok.noise)
    with pytest.raises(InputError, match="noise"):
        Likelihood(ok.y, ok.singular_values, ok.basis, 0 * ok.noise)
