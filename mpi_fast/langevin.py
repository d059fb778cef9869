"""The Langevin function ``L(a) = coth(a) - 1/a`` as a sum of Gaussians.

``L(a) / a = 2 sum_n 1 / (a^2 + n^2 pi^2)`` is a mixture of Gaussians of positive weight (Bernstein's theorem):

    L(a) / a = integral of theta(s) exp(-s^2 a^2) ds,    theta(s) = 4 s sum_n exp(-n^2 pi^2 s^2)

The integrand is smooth, so a Gauss-Legendre rule converges exponentially. A Gaussian of a vector's length is a product
over its components, which makes the magnetisation of a whole grid fast to compute, see `lissajous`.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LAST = 1.5  # theta(1.5) is 1e-9 of its maximum; Gaussians of larger s are also narrow
TERMS = np.arange(1.0, 9.0)[:, None]  # terms of the series of theta; each series needs three in its range


def theta(s: Array) -> Array:
    """Weight of the Gaussian ``exp(-s^2 a^2)`` in ``L(a) / a``, for s (n,) > 0."""
    series = 4 * s * np.exp(-((TERMS * np.pi * s) ** 2)).sum(axis=0)
    inverted = 2 / np.sqrt(np.pi) * (1 + 2 * np.exp(-((TERMS / s) ** 2)).sum(axis=0)) - 2 * s  # Jacobi's identity
    return np.asarray(np.where(s > 0.5, series, inverted))


def gaussian_sum(largest: float) -> tuple[Array, Array]:
    """Exponents e and weights w with ``a sum_q w_q exp(-e_q a^2) = L(a)`` to 1e-7 for all ``0 <= a <= largest``.

    Nodes lie densely where s is about ``1 / largest`` and thin out exponentially above, as the integrand's features do;
    their number grows with the logarithm of ``largest``: 22 for 20, 29 for 100.
    """
    largest = max(largest, 4.0)
    scale = 3.0 / largest
    count = 14 + int(np.ceil(4 * np.log(largest)))
    node, weight = np.polynomial.legendre.leggauss(count)
    end = np.arcsinh(LAST / scale)
    place = (node + 1) / 2 * end
    s = scale * np.sinh(place)
    return s**2, weight / 2 * end * scale * np.cosh(place) * theta(s)
