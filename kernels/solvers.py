"""Samplers as linear updates: after each evaluation of the network, images change by a linear combination.

For each evaluation, every sampler of `samplers` updates the noisy image x and one saved image. Both become linear
combinations of x, the denoised image, the saved image and new noise. So a kernel needs only these coefficients. Signal
scales s(t) of VP and sub-VP are divided out: here x is x_t / s(t), which is the input of the network.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from mpi_fast.errors import InputError
from mpi_fast.samplers import LANGEVIN_SNR, get_sampler
from mpi_fast.schedule import SDE, karras_sigmas, time_grid


@dataclass(frozen=True)
class Update:
    """Update after one evaluation of the network: coefficients of the new x and of the new saved image.

    Attributes
    ----------
    x, denoised, saved, noise : float
        Coefficients of the new x.
    save_x, save_denoised, save_saved : float
        Coefficients of the new saved image; if all are zero, it does not change.
    draw : int
        Number of the draw of noise.
    """

    x: float = 0.0
    denoised: float = 0.0
    saved: float = 0.0
    noise: float = 0.0
    save_x: float = 0.0
    save_denoised: float = 0.0
    save_saved: float = 0.0
    draw: int = 0


Evaluation = tuple[float, Update]
"""Noise level at which the network is evaluated, and the update that follows."""

FINAL: Final = Update(denoised=1.0)
"""All samplers end by returning a denoised image."""


def posterior_chain(sampler: str, sde: SDE, steps: int) -> list[Evaluation]:
    """All evaluations of the network for posterior samples, in their order.

    The first evaluation uses the signals without a noisy image, so its noise level is infinite. It gives the image D of
    the initial state ``D + sigma_max n``, because even at sigma_max the image in this state affects the samples.

    Parameters
    ----------
    sampler : str
        A name of `samplers.SAMPLERS`.
    sde : SDE
        The noising process; solvers of the ODE use only its range of noise levels.
    steps : int
        Steps of the sampler.

    Raises
    ------
    InputError
        For an unknown sampler, for one without an entry in `SOLVERS`, and for a number of steps out of range.
    """
    get_sampler(sampler)  # raises an error that lists the samplers
    if sampler not in SOLVERS:
        raise InputError(f"sampler {sampler!r} is not for the GPU: expected one of {', '.join(SOLVERS)}")
    solver = list(SOLVERS[sampler](sde, steps))
    level = solver[0][0]
    return [(math.inf, Update(denoised=level / sde.sigma_max, noise=level)), *solver]


def _dpm_solver_2m(sde: SDE, steps: int) -> Iterator[Evaluation]:
    """`samplers.dpm_solver_2m`; the saved image is the last denoised image."""
    levels = karras_sigmas(steps, sde.sigma_min, sde.sigma_max)[:-1].tolist()
    h_previous = math.inf
    for sigma, sigma_next in itertools.pairwise(levels):
        h = math.log(sigma / sigma_next)
        gain, extrapolation = -math.expm1(-h), h / (2.0 * h_previous)
        yield (
            sigma,
            Update(
                x=sigma_next / sigma,
                denoised=gain * (1.0 + extrapolation),
                saved=-gain * extrapolation,
                save_denoised=1.0,
            ),
        )
        h_previous = h
    yield levels[-1], FINAL


def _heun(sde: SDE, steps: int) -> Iterator[Evaluation]:
    """`samplers.heun`; the saved image is x after half of the step, with the slope at its beginning."""
    levels = karras_sigmas(steps, sde.sigma_min, sde.sigma_max)[:-1].tolist()
    for sigma, sigma_next in itertools.pairwise(levels):
        h = sigma_next - sigma
        early, late = h / sigma, h / sigma_next
        yield sigma, Update(x=1.0 + early, denoised=-early, save_x=1.0 + 0.5 * early, save_denoised=-0.5 * early)
        yield sigma_next, Update(saved=1.0, x=0.5 * late, denoised=-0.5 * late)
    yield levels[-1], FINAL


def _euler_maruyama(sde: SDE, steps: int) -> Iterator[Evaluation]:
    """`samplers.euler_maruyama`."""
    times = time_grid(sde, steps).tolist()
    for draw, (t, t_next) in enumerate(itertools.pairwise(times), 1):
        dt = t_next - t
        f, g = sde.drift(t), sde.diffusion(t)
        yield _chain(sde, t, t_next, 1.0 + f * dt, -(g**2) * dt, g * math.sqrt(-dt), draw)
    yield sde.sigma(times[-1]), FINAL


def _predictor_corrector(sde: SDE, steps: int) -> Iterator[Evaluation]:
    """`samplers.predictor_corrector` with one corrector step."""
    times = time_grid(sde, steps).tolist()
    draws = itertools.count(1)
    for t, t_next in itertools.pairwise(times):
        a = sde.scale(t) / sde.scale(t_next)
        g2 = sde.scale(t) ** 2 * (sde.sigma(t) ** 2 - sde.sigma(t_next) ** 2)
        yield _chain(sde, t, t_next, 2.0 - a, g2, math.sqrt(g2), next(draws))
        eps = 2.0 * a**2 * (LANGEVIN_SNR * sde.scale(t_next) * sde.sigma(t_next)) ** 2
        yield _chain(sde, t_next, t_next, 1.0, eps, math.sqrt(2.0 * eps), next(draws))
    yield sde.sigma(times[-1]), FINAL


def _chain(sde: SDE, t: float, t_next: float, keep: float, pull: float, jitter: float, draw: int) -> Evaluation:
    """``keep x + pull score(x, t) + jitter z`` at time t, as an update of x / s, whose s changes to that of t_next."""
    s, sigma, s_next = sde.scale(t), sde.sigma(t), sde.scale(t_next)
    return sigma, Update(
        x=(keep - pull / (s * sigma) ** 2) * s / s_next,
        denoised=pull / (s * sigma**2) / s_next,
        noise=jitter / s_next,
        draw=draw,
    )


SOLVERS: Final[dict[str, Callable[[SDE, int], Iterator[Any]]]] = {
    "dpm": _dpm_solver_2m,
    "heun": _heun,
    "euler-maruyama": _euler_maruyama,
    "predictor-corrector": _predictor_corrector,
}
"""The samplers as updates, by the names of `samplers.SAMPLERS`."""
