"""Gaussian priors and posteriors for tests of samplers, with denoiser and flow in closed form."""

import numpy as np
import pytest

from mpi_fast.philox import standard_normal
from mpi_fast.samplers import SAMPLERS, dpm_solver_2m, get_sampler, heun
from mpi_fast.schedule import VE, VP, SubVP

N = 6
SIGMA_MIN, SIGMA_MAX = 0.01, 10.0
EIGENVALUES = np.array([0.05, 0.2, 0.5, 1.0, 1.5, 2.0])
MEAN = np.array([0.5, -0.3, 0.2, 0.8, 0.0, 1.0])
ODE = {"dpm": dpm_solver_2m, "heun": heun}
each_ode = pytest.mark.parametrize("solver", ODE.values(), ids=ODE)
each_sampler = pytest.mark.parametrize("name", SAMPLERS)
each_sde = pytest.mark.parametrize("sde", [VE(), VP(), SubVP()], ids=["ve", "vp", "sub-vp"])


class Gaussian:
    """The prior N(mean, covariance), and its denoiser D(x; sigma) = m + C (C + sigma^2 I)^-1 (x - m)."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = mean, covariance
        self.eigenvalues, self.basis = np.linalg.eigh(covariance)

    def posterior(self, A, y, noise):
        """The posterior distribution after a measurement y = A x + N(0, noise^2)."""
        precision = np.linalg.inv(self.covariance)
        covariance = np.linalg.inv(precision + A.T @ A / noise**2)
        return Gaussian(covariance @ (precision @ self.mean + A.T @ y / noise**2), covariance)

    def _in_basis(self, gains, x):
        return self.mean + ((x - self.mean) @ self.basis * gains) @ self.basis.T

    def denoise(self, x, sigma):
        gains = self.eigenvalues / (self.eigenvalues + sigma**2)
        return self._in_basis(gains, x.astype(np.float64)).astype(x.dtype)

    def flow(self, x):
        """The probability-flow ODE from sigma_max to sigma_min, solved exactly, and D at its end."""
        v = self.eigenvalues
        ode = np.sqrt((v + SIGMA_MIN**2) / (v + SIGMA_MAX**2))
        return self._in_basis(v / (v + SIGMA_MIN**2) * ode, x)


def correlated_prior():
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((N, N)))
    return Gaussian(MEAN, rotation * EIGENVALUES @ rotation.T)


def measured_posterior():
    """Two informative rows and a weak one. As in MPI, the prior determines most dimensions."""
    rng = np.random.default_rng(4)
    A = rng.standard_normal((3, N)) * [[1.0], [1.0], [0.05]]
    return correlated_prior().posterior(A, A @ rng.standard_normal(N), noise=0.2)


PROBLEMS = {
    "diagonal": Gaussian(MEAN, np.diag(EIGENVALUES)),
    "correlated": correlated_prior(),
    "posterior": measured_posterior(),
}
each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def philox_noise(samples, seed=0, voxels=N, dtype=np.float32):
    return lambda k: standard_normal(seed, samples, k, voxels).astype(dtype)


def denoise_voxels(x, sigma):
    """A non-linear denoiser (a two-point prior at +-1) that is bitwise independent of the batch."""
    return np.tanh(x / sigma**2).astype(x.dtype)


def sample(name, denoise, noise, steps, sde=VE()):  # noqa: B008 (frozen)
    """Images (batch, N) drawn by the sampler of this name."""
    return get_sampler(name)(denoise, noise, sde, steps)
