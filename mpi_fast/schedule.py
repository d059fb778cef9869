"""SDEs and noise schedules: three noising processes, one denoiser.

The SDEs of Song et al. ("Score-based generative modeling through stochastic differential equations", ICLR
2021) are linear, ``dx = f(t) x dt + g(t) dw``, so each turns an image x_0 into

    x_t = s(t) (x_0 + sigma(t) n),    n ~ N(0, I).

They differ in the signal scale s and in the growth of the noise sigma, but a network learns the same for all.
One denoiser D(x; sigma) of the EDM kind (Karras et al., "Elucidating the design space of diffusion-based
generative models", NeurIPS 2022, section 2 and table 1) serves them all, for any t:

    score(x, t) = grad_x log p_t(x) = (s D(x / s; sigma) - x) / (s sigma)^2

and s, sigma determine f and g (their appendix B.1):

    f = s'/s,    g^2 = d(s^2 sigma^2)/dt - 2 f s^2 sigma^2 = s^2 d(sigma^2)/dt

Time t is without unit and ends at 1; sigma is in network units, in which images have a standard deviation of
about 1.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mpi_fast.errors import InputError

SIGMA_MIN: Final = 0.01
"""Default lowest noise level: invisible, and above the rounding of float16 networks."""
SIGMA_MAX: Final = 10.0
"""Default highest noise level: ten times the image's standard deviation, so next to nothing of it is left."""

RHO: Final = 7.0
"""Of the Karras grid: larger values put more levels at low noise; 1 spaces them evenly."""


@dataclass(frozen=True)
class SDE(ABC):
    """A linear noising process ``dx = f(t) x dt + g(t) dw`` for t_min <= t <= t_max.

    Attributes
    ----------
    sigma_min, sigma_max : float
        Noise levels sigma(t_min) and sigma(t_max), relative to the scaled image: the same two numbers mean
        the same images for every process.

    Raises
    ------
    InputError
        Unless 0 < sigma_min < sigma_max < infinity.
    """

    sigma_min: float = SIGMA_MIN
    sigma_max: float = SIGMA_MAX

    def __post_init__(self) -> None:
        _check_range(self.sigma_min, self.sigma_max)

    @property
    def t_max(self) -> float:
        """Time of the most noise."""
        return 1.0

    @property
    @abstractmethod
    def t_min(self) -> float:
        """Time of the least noise, where samplers stop."""

    @abstractmethod
    def scale(self, t: float) -> float:
        """Signal scale s(t)."""

    @abstractmethod
    def sigma(self, t: float) -> float:
        """Noise level sigma(t), the standard deviation of the noise in x_t / s(t)."""

    @abstractmethod
    def drift(self, t: float) -> float:
        """Drift coefficient f(t) of ``f(t) x dt``."""

    @abstractmethod
    def diffusion(self, t: float) -> float:
        """Diffusion coefficient g(t) of ``g(t) dw``."""


@dataclass(frozen=True)
class VE(SDE):
    """Variance exploding: noise grows geometrically, the image keeps its scale (Song et al. 2021, eq. 30).

    sigma(t) = sigma_min (sigma_max / sigma_min)^t. At t_min = 0 the noise is sigma_min, not none.
    """

    @property
    def t_min(self) -> float:
        """Time of the least noise."""
        return 0.0

    def scale(self, t: float) -> float:
        """Signal scale s(t) = 1."""
        return 1.0

    def sigma(self, t: float) -> float:
        """Noise level sigma(t) = sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * math.pow(self.sigma_max / self.sigma_min, t)

    def drift(self, t: float) -> float:
        """Drift coefficient f(t) = 0."""
        return 0.0

    def diffusion(self, t: float) -> float:
        """Diffusion coefficient g(t) = sigma(t) sqrt(2 ln(sigma_max / sigma_min))."""
        return self.sigma(t) * math.sqrt(2.0 * math.log(self.sigma_max / self.sigma_min))


@dataclass(frozen=True)
class _LinearBeta(SDE):
    """Common part of VP and sub-VP: beta(t) rises linearly, and s(t) = exp(-B(t)/2) with B(t) = int_0^t beta.

    Song et al. fix beta_min = 0.1, beta_max = 20 and stop at t = 1e-3 or 1e-5, which gives each process a
    different noise range. Here the range is fixed, and the other parameters follow from it: B(t_max) from sigma_max
    gives beta_max, B(t_min) from sigma_min gives t_min. With the defaults beta_max is 9.1 for both, t_min 0.00096 for
    VP and 0.037 for sub-VP.

    Attributes
    ----------
    beta_min : float
        beta(0), as in the paper.

    Raises
    ------
    InputError
        Unless 0 < beta_min < 2 B(t_max), without which beta would not stay positive.
    """

    beta_min: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        limit = 2.0 * self._integral_at(self.sigma_max)
        if not 0.0 < self.beta_min < limit:
            raise InputError(f"{type(self).__name__}: beta_min is {self.beta_min}, expected 0 < beta_min < {limit:.6g}")

    @abstractmethod
    def _integral_at(self, sigma: float) -> float:
        """B at which the noise level is sigma: the inverse of `sigma` as a function of B."""

    @property
    def _slope(self) -> float:
        """Growth of beta per unit of time, such that B(1) = beta_min + slope / 2 is B at sigma_max."""
        return 2.0 * (self._integral_at(self.sigma_max) - self.beta_min)

    @property
    def t_min(self) -> float:
        """Time of the least noise: beta_min t + slope t^2 / 2 = B, solved without cancellation."""
        target = self._integral_at(self.sigma_min)
        return 2.0 * target / (self.beta_min + math.sqrt(self.beta_min**2 + 2.0 * self._slope * target))

    def beta(self, t: float) -> float:
        """Rate beta(t) = beta_min + t (beta_max - beta_min)."""
        return self.beta_min + t * self._slope

    def integral(self, t: float) -> float:
        """B(t), the integral of beta from 0 to t."""
        return t * (self.beta_min + 0.5 * t * self._slope)

    def scale(self, t: float) -> float:
        """Signal scale s(t) = exp(-B(t) / 2)."""
        return math.exp(-0.5 * self.integral(t))

    def drift(self, t: float) -> float:
        """Drift coefficient f(t) = -beta(t) / 2."""
        return -0.5 * self.beta(t)


@dataclass(frozen=True)
class VP(_LinearBeta):
    """Variance preserving: the image fades as the noise grows (Song et al. 2021, equations 11 and 29).

    The noise in x_t has the variance s^2 sigma^2 = 1 - e^-B, hence sigma^2 = e^B - 1.
    """

    def _integral_at(self, sigma: float) -> float:
        return math.log1p(sigma**2)

    def sigma(self, t: float) -> float:
        """Noise level sigma(t) = sqrt(e^B(t) - 1)."""
        return math.sqrt(math.expm1(self.integral(t)))

    def diffusion(self, t: float) -> float:
        """Diffusion coefficient g(t) = sqrt(beta(t))."""
        return math.sqrt(self.beta(t))


@dataclass(frozen=True)
class SubVP(_LinearBeta):
    """Sub-variance preserving: VP's fading with less noise (Song et al. 2021, equations 12 and 29).

    The noise in x_t has the standard deviation s sigma = 1 - e^-B, hence sigma = e^(B/2) - e^(-B/2) = 2
    sinh(B/2).
    """

    def _integral_at(self, sigma: float) -> float:
        return 2.0 * math.asinh(0.5 * sigma)

    def sigma(self, t: float) -> float:
        """Noise level sigma(t) = 2 sinh(B(t) / 2)."""
        return 2.0 * math.sinh(0.5 * self.integral(t))

    def diffusion(self, t: float) -> float:
        """Diffusion coefficient g(t) = sqrt(beta(t) (1 - e^(-2 B(t))))."""
        return math.sqrt(-self.beta(t) * math.expm1(-2.0 * self.integral(t)))


SDES: Final[dict[str, type[SDE]]] = {"ve": VE, "vp": VP, "sub-vp": SubVP}
"""The processes by the names a user writes."""


def karras_sigmas(steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> npt.NDArray[np.float64]:
    """Lay out noise levels for few-step solvers (Karras et al. 2022, equation 5).

    Parameters
    ----------
    steps : int
        Noise levels at which the network is evaluated, at least 1.
    sigma_min, sigma_max : float
        The lowest and highest of them, in network units. With one step there is only sigma_max.

    Returns
    -------
    float64 array (steps + 1,)
        sigma_max = sigma_0 > ... > sigma_(steps - 1) = sigma_min > sigma_steps = 0.

    Raises
    ------
    InputError
        Unless steps >= 1 and 0 < sigma_min < sigma_max < infinity.
    """
    _check_steps(steps)
    _check_range(sigma_min, sigma_max)
    ramp = np.linspace(0.0, 1.0, steps)
    high, low = sigma_max ** (1.0 / RHO), sigma_min ** (1.0 / RHO)
    sigmas = np.append((high + ramp * (low - high)) ** RHO, 0.0)
    sigmas[0] = sigma_max  # root and power cancel only up to rounding
    if steps > 1:
        sigmas[-2] = sigma_min
    return sigmas


def time_grid(sde: SDE, steps: int) -> npt.NDArray[np.float64]:
    """Lay out the times of the SDE samplers, evenly (as Song et al. 2021).

    Even steps of t are even steps of ln sigma for VE. The last time is where the samplers denoise and stop.

    Parameters
    ----------
    sde : SDE
        The process.
    steps : int
        Number of times, at least 1.

    Returns
    -------
    float64 array (steps,)
        t_max, ..., t_min, decreasing; [t_max] for one step.

    Raises
    ------
    InputError
        Unless steps >= 1.
    """
    _check_steps(steps)
    return np.linspace(sde.t_max, sde.t_min, steps)


def _check_steps(steps: int) -> None:
    if not isinstance(steps, int | np.integer) or steps < 1:
        raise InputError(f"steps is {steps!r}, expected an integer, at least 1")


def _check_range(sigma_min: float, sigma_max: float) -> None:
    if not 0.0 < sigma_min < sigma_max < math.inf:  # also refuses NaN
        raise InputError(f"sigma_min is {sigma_min}, sigma_max {sigma_max}, expected 0 < sigma_min < sigma_max")
