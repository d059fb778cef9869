"""Guidance against dense float64 linear algebra, and the copy of it that training has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_fast.errors import InputError
from mpi_fast.likelihood import Likelihood, signal_presence, signal_scale, tweedie


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
    """argmin ||S V^T x - y||^2 / sigma^2 + ||x - D||^2 / r^2, and the posterior covariance's diagonal."""
    likelihood = random_likelihood(rank=rank, seed=seed)
    mean = np.random.default_rng(seed).standard_normal((3, 2, 30)).astype(np.float32)
    combined, deviation = likelihood.combine(mean, spread), likelihood.deviation(spread)
    operator = (likelihood.singular_values[:, None] * likelihood.basis.T).astype(np.float64)
    for f in range(3):
        variance = float(likelihood.noise[f]) ** 2
        precision = operator.T @ operator / variance + np.eye(30) / spread**2
        for sample in range(2):
            right = operator.T @ likelihood.y[f].astype(np.float64) / variance + mean[f, sample] / spread**2
            expected = np.linalg.solve(precision, right)
            np.testing.assert_allclose(combined[f, sample], expected, atol=2e-5 * max(1, np.abs(expected).max()))
        expected = np.sqrt(np.diag(np.linalg.inv(precision)))
        np.testing.assert_allclose(deviation[f], expected, rtol=2e-3, atol=1e-3 * spread)


def test_combining_in_place_gives_the_same():
    likelihood = random_likelihood()
    mean = np.ones((3, 2, 30), np.float32)
    expected = likelihood.combine(mean, 0.7)
    assert likelihood.combine(mean, 0.7, out=mean) is mean
    np.testing.assert_array_equal(mean, expected)


def test_the_gradient_is_that_of_the_log_likelihood():
    likelihood = random_likelihood()
    image = np.random.default_rng(1).standard_normal((3, 1, 30))

    def log_likelihood(x):
        residual = likelihood.y[:, None] - (x @ likelihood.basis) * likelihood.singular_values
        return -0.5 * np.square(residual).sum(axis=-1) / likelihood.noise[:, None] ** 2

    gradient, step = likelihood.gradient(image.astype(np.float32)), 1e-4
    for voxel in (0, 13, 29):
        shift = np.zeros(30)
        shift[voxel] = step
        numeric = (log_likelihood(image + shift) - log_likelihood(image - shift)) / (2 * step)
        np.testing.assert_allclose(gradient[..., voxel], numeric, rtol=1e-3, atol=1e-4)


def test_prior_and_noisy_image_combine_as_edm_preconditioning():
    for sigma in (0.01, 1.0, 30.0):
        shrink, spread = tweedie(sigma)
        assert shrink == pytest.approx(1 / (1 / 1 + sigma**2))
        assert spread**2 == pytest.approx(1 / (1 + 1 / sigma**2))


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


def test_training_combines_alike():
    torch = pytest.importorskip("torch")
    from mpi_fast.training.data import combine

    likelihood = random_likelihood(frames=4)
    mean = np.random.default_rng(2).standard_normal((4, 30)).astype(np.float32)
    spread = 0.6
    tensors = [torch.from_numpy(a)[None] for a in (likelihood.y, likelihood.singular_values, likelihood.basis)]
    combined, deviation = combine(
        *tensors, torch.from_numpy(likelihood.noise)[None], torch.from_numpy(mean)[None], torch.full((1, 4), spread)
    )
    np.testing.assert_allclose(combined[0], likelihood.combine(mean[:, None], spread)[:, 0], atol=1e-5)
    np.testing.assert_allclose(deviation[0], likelihood.deviation(spread), rtol=1e-4)


def test_shapes_are_checked():
    ok = random_likelihood()
    with pytest.raises(InputError, match="likelihood"):
        Likelihood(ok.y[:, 1:], ok.singular_values, ok.basis, ok.noise)
    with pytest.raises(InputError, match="noise"):
        Likelihood(ok.y, ok.singular_values, ok.basis, 0 * ok.noise)
