"""Tikhonov: linear least squares with a quadratic penalty and an automatic choice of its parameter.

``min ||S V^T x - y||^2 + mu ||x||^2`` has the solution ``V diag(S / (S^2 + mu)) y``. With f = S^2 / (S^2 + mu), the
residual of y is ``(1 - f) y``. The residual of the measurement has in addition the part that no image explains, with
the energy ``(2M - R) sigma^2``. There are four rules to find mu for every frame (Hansen, "Rank-deficient and discrete
ill-posed problems", SIAM 1998, chapter 7):

* ``discrepancy`` (Morozov): the residual of y is as large as its noise, ``||(1 - f) y||^2 = R sigma^2``;
* ``gcv``: the minimum of generalised cross-validation, ``||residual||^2 / (2M - sum(f))^2``;
* ``l-curve``: the corner of ``log ||x||`` over ``log ||residual||``, where its curvature is largest;
* ``prior``: ``mu = sigma^2``, which is right for a white image of root-mean-square one.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.likelihood import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_positive

Array = NDArray[np.float64]
Rule = Literal["discrepancy", "gcv", "l-curve", "prior"]
RULES: tuple[str, ...] = get_args(Rule)
CANDIDATES = 10.0 ** np.linspace(-8, 2, 201)  # values of mu, relative to the largest S^2, in steps of 12 %


class Tikhonov(ReducedMethod):
    """Tikhonov regularisation with an automatic parameter.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    rule : str
        Rule to find mu; see the head of this module.
    strength : float
        Factor applied to mu; 1 for the rule as published.
    """

    def __init__(self, calibration: Calibration, rule: Rule = "gcv", strength: float = 1.0) -> None:
        super().__init__(calibration)
        if rule not in RULES:
            raise InputError(f"rule '{rule}': expected one of {', '.join(RULES)}")
        check_positive(strength=strength)
        self.rule, self.strength = rule, strength

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N), clipped at zero."""
        mu = self.strength * self.parameter(likelihood)
        s = likelihood.singular_values.astype(np.float64)
        return np.maximum((likelihood.y * (s / (s**2 + mu[:, None]))) @ likelihood.basis.T, 0.0)

    def parameter(self, likelihood: Likelihood) -> Array:
        """Find mu for each frame, (F,)."""
        variance = likelihood.noise.astype(np.float64) ** 2
        if self.rule == "prior":
            return variance
        s = likelihood.singular_values.astype(np.float64)
        candidates = CANDIDATES * s[0] ** 2
        kept = candidates[:, None] / (s**2 + candidates[:, None])  # 1 - f, (candidates, R)
        power = likelihood.y.astype(np.float64) ** 2
        left = power @ (kept**2).T  # ||(1 - f) y||^2, (F, candidates)
        if self.rule == "discrepancy":
            # The residual grows with mu: take the first candidate whose residual reaches the noise.
            enough = left >= (likelihood.y.shape[1] * variance)[:, None]
            best = np.where(enough.any(axis=1), enough.argmax(axis=1), len(candidates) - 1)
            return np.asarray(candidates[best])
        rows = 2 * self.calibration.num_rows
        residual = left + ((rows - len(s)) * variance)[:, None]
        if self.rule == "gcv":
            return np.asarray(candidates[(residual / (rows - (1 - kept).sum(axis=1)) ** 2).argmin(axis=1)])
        norm = power @ (((1 - kept) / s) ** 2).T  # ||x||^2
        rho, eta = np.log(np.maximum(residual, 1e-300)) / 2, np.log(np.maximum(norm, 1e-300)) / 2
        d_rho, d_eta = np.gradient(rho, axis=1), np.gradient(eta, axis=1)
        bend = d_rho * np.gradient(d_eta, axis=1) - np.gradient(d_rho, axis=1) * d_eta
        curvature = bend / np.maximum(d_rho**2 + d_eta**2, 1e-300) ** 1.5
        return np.asarray(candidates[curvature.argmax(axis=1)])
