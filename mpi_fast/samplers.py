"""Samplers: from noise to an image that the denoiser finds plausible.

Each sampler is a pure function of a denoiser, a source of noise and a grid of noise levels. The denoiser contains
everything about the reconstruction (the signals, the network); the caller chooses the source of noise.

===================  ===================================  ==============  =========================
Name                 Algorithm                            Draws of noise  Network evaluations (NFE)
===================  ===================================  ==============  =========================
dpm                  DPM-Solver++(2M), Lu et al. 2022     1               steps
heun                 Heun's method, Karras et al. 2022    1               2 steps - 1
euler-maruyama       Euler-Maruyama, Song et al. 2021     steps           steps
predictor-corrector  predictor-corrector, the same paper  2 steps - 1     2 steps - 1
===================  ===================================  ==============  =========================

All of them finish by returning a denoised image: the last step of a solver to noise level zero is exactly
that, and the stochastic ones would otherwise leave noise of level sigma_min behind. Every coefficient is
computed in float64, arrays stay in the dtype of the noise, and elements of a batch are independent: if the
denoiser treats them separately, too, results are bitwise independent of batching. In the loop over steps, only
the denoiser and the noise source allocate memory.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpi_fast.errors import InputError
from mpi_fast.schedule import SDE, karras_sigmas, time_grid

FloatArray = npt.NDArray[np.floating[Any]]

LANGEVIN_SNR: Final = 0.16
"""Signal-to-noise ratio r of a Langevin step of the corrector, as published."""

Denoiser = Callable[[FloatArray, float], FloatArray]
"""D(x, sigma): noisy images x (batch, N), unscaled, of noise level sigma, to denoised images (batch, N).

It must not write to x, nor keep it. What it returns may be a buffer that its next call overwrites: it is
copied here.
"""

Noise = Callable[[int], FloatArray]
"""noise(k): the standard-normal array (batch, N) of draw k.

Draw 0 starts the chain; 1, 2, ... follow in this order, each used once. It may return a buffer that its next
call overwrites, and that buffer is never written to.
"""


def dpm_solver_2m(denoise: Denoiser, noise: Noise, sigmas: npt.ArrayLike) -> FloatArray:
    """Sample by DPM-Solver++(2M): second order at one evaluation per step, the choice for few steps.

    Lu et al., "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models", 2022,
    algorithm 2, with alpha = 1, so that its lambda is -ln sigma.

    Parameters
    ----------
    denoise : Denoiser
        The denoiser D(x; sigma).
    noise : Noise
        The source of noise; only draw 0 is used.
    sigmas : array (steps + 1,)
        Decreasing noise levels, the last one 0; see `karras_sigmas`.

    Returns
    -------
    float array (batch, N)
        The denoised images, in the dtype of the noise.

    Raises
    ------
    InputError
        If the grid does not decrease to 0, or the noise or the denoiser return something that does not fit.
    """
    levels = _levels(sigmas)
    x = _initial(noise, levels[0])
    denoised, previous = np.empty_like(x), np.zeros_like(x)
    h_previous = math.inf  # makes the first step first order, because there is nothing to extrapolate from
    for sigma, sigma_next in itertools.pairwise(levels):
        _evaluate(denoise, x, sigma, out=denoised)
        h = math.log(sigma / sigma_next)  # lambda_i - lambda_(i-1)
        extrapolation = h / (2.0 * h_previous)  # 1 / (2 r_i)
        # D_i = (1 + 1/(2 r_i)) x_theta(i-1) - 1/(2 r_i) x_theta(i-2)
        # x_i = (sigma_i / sigma_(i-1)) x_(i-1) - (e^-h - 1) D_i
        gain = -math.expm1(-h)
        x *= sigma_next / sigma
        previous *= -gain * extrapolation
        x += previous
        np.multiply(denoised, gain * (1.0 + extrapolation), out=previous)
        x += previous
        # D of this step is kept for the next one; the other array is reused.
        previous, denoised, h_previous = denoised, previous, h
    # The step to sigma = 0 has h = infinity: first order, as in the paper's code, where it returns D.
    return _evaluate(denoise, x, levels[-1], out=denoised)


def heun(denoise: Denoiser, noise: Noise, sigmas: npt.ArrayLike) -> FloatArray:
    """Sample the probability-flow ODE by Heun's method: second order, two evaluations per step but the last.

    Karras et al., "Elucidating the design space of diffusion-based generative models", 2022, algorithm 1,
    with s(t) = 1 and sigma(t) = t.

    Parameters
    ----------
    denoise : Denoiser
        The denoiser D(x; sigma).
    noise : Noise
        The source of noise; only draw 0 is used.
    sigmas : array (steps + 1,)
        Decreasing noise levels, the last one 0; see `karras_sigmas`.

    Returns
    -------
    float array (batch, N)
        The denoised images, in the dtype of the noise.

    Raises
    ------
    InputError
        If the grid does not decrease to 0, or the noise or the denoiser return something that does not fit.
    """
    levels = _levels(sigmas)
    x = _initial(noise, levels[0])
    denoised, slope, trial = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    for sigma, sigma_next in itertools.pairwise(levels):
        h = sigma_next - sigma
        # Line 4: d_i = (x_i - D(x_i; t_i)) / t_i
        np.subtract(x, _evaluate(denoise, x, sigma, out=denoised), out=slope)
        slope /= sigma
        # Line 5: the Euler step from t_i to t_(i+1)
        np.multiply(slope, h, out=trial)
        trial += x
        # Lines 7 and 8: d'_i at its end, and the trapezoidal rule x_(i+1) = x_i + h (d_i + d'_i) / 2
        trial -= _evaluate(denoise, trial, sigma_next, out=denoised)
        trial /= sigma_next
        slope += trial
        slope *= 0.5 * h
        x += slope
    # Line 5 to t = 0, where line 6 ends it: x - t (x - D) / t = D
    return _evaluate(denoise, x, levels[-1], out=denoised)


def euler_maruyama(denoise: Denoiser, noise: Noise, sde: SDE, steps: int) -> FloatArray:
    """Sample the reverse-time SDE by Euler-Maruyama, in even steps of time.

    Song et al., "Score-based generative modeling through stochastic differential equations", 2021,
    equation 6.

    Parameters
    ----------
    denoise : Denoiser
        The denoiser D(x; sigma).
    noise : Noise
        The source of noise; draws 0 to steps - 1 are used.
    sde : SDE
        The noising process to reverse.
    steps : int
        Evaluations of the denoiser, the last one at t_min included. First order: it takes hundreds.

    Returns
    -------
    float array (batch, N)
        The denoised images, in the dtype of the noise.

    Raises
    ------
    InputError
        If steps < 1, or the noise or the denoiser return something that does not fit.
    """
    times = time_grid(sde, steps).tolist()
    chain = _Chain(denoise, noise, sde, times[0])
    for t, t_next in itertools.pairwise(times):
        dt = t_next - t  # negative: time runs backwards
        # dx = [f x - g^2 score] dt + g dw
        f, g = sde.drift(t), sde.diffusion(t)
        chain.update(t, keep=1.0 + f * dt, pull=-(g**2) * dt, jitter=g * math.sqrt(-dt))
    return chain.denoised(times[-1])  # the last step: without noise, all the way


def predictor_corrector(denoise: Denoiser, noise: Noise, sde: SDE, steps: int, corrector_steps: int = 1) -> FloatArray:
    """Sample by a reverse-diffusion predictor and a Langevin corrector, with 1000 steps as published for MPI.

    Song et al. 2021, algorithms 2 (VE) and 3 (VP), written once: the forward transition from a time to a
    noisier one is ``x -> a x + G z`` for every linear SDE, with a = 1 in algorithm 2 and
    a = sqrt(1 - beta_i), G^2 = beta_i in algorithm 3.

    The corrector's step differs in one point. Algorithms 4 and 5 take ``eps = 2 alpha (r |z| / |score|)^2``,
    with norms averaged over the batch in the authors' code, so an image would depend on its neighbours. Norms
    of the single image are biased: a step that depends on x and z draws from a density other than p (for a
    Gaussian its variance is ((N + 2) / N)^2 times too large). So both norms are constants here, |z| = sqrt(N)
    and |score| = sqrt(N) / (s sigma), their expectation if all of x were noise. This gives
    ``eps = 2 alpha (r s sigma)^2``, the annealing of Song & Ermon (NeurIPS 2019, algorithm 1). Such a step is
    on average no longer than the paper's, as the expectation of |score|^2 under p_t is at most
    N / (s sigma)^2: it corrects less where the image, not the noise, sets the score, and is stable for r < 1.

    Parameters
    ----------
    denoise : Denoiser
        The denoiser D(x; sigma).
    noise : Noise
        The source of noise; draws 0 to (steps - 1) (1 + corrector_steps) are used.
    sde : SDE
        The noising process to reverse.
    steps : int
        Number of noise levels, at least 1; the sampler denoises and stops at the last one, t_min.
    corrector_steps : int
        Langevin steps after each predictor step, M in the paper.

    Returns
    -------
    float array (batch, N)
        The denoised images, in the dtype of the noise.

    Raises
    ------
    InputError
        If steps < 1 or corrector_steps < 0, or the noise or the denoiser return something that does not fit.
    """
    if corrector_steps < 0:
        raise InputError(f"predictor_corrector: corrector_steps is {corrector_steps}, expected >= 0")
    times = time_grid(sde, steps).tolist()
    chain = _Chain(denoise, noise, sde, times[0])
    for t, t_next in itertools.pairwise(times):
        s, sigma = sde.scale(t), sde.sigma(t)
        s_next, sigma_next = sde.scale(t_next), sde.sigma(t_next)
        a = s / s_next
        g2 = s**2 * (sigma**2 - sigma_next**2)
        # Predictor: x_i = (2 - a) x_(i+1) + G^2 score(x_(i+1), i + 1) + G z
        chain.update(t, keep=2.0 - a, pull=g2, jitter=math.sqrt(g2))
        eps = 2.0 * a**2 * (LANGEVIN_SNR * s_next * sigma_next) ** 2
        for _ in range(corrector_steps):
            # Corrector: x_i = x_i + eps score(x_i, i) + sqrt(2 eps) z
            chain.update(t_next, keep=1.0, pull=eps, jitter=math.sqrt(2.0 * eps))
    return chain.denoised(times[-1])


Sampler = Callable[[Denoiser, Noise, SDE, int], FloatArray]
"""sample(denoise, noise, sde, steps): images (batch, N), by the signature that all samplers share.

The ODE solvers take the range of noise levels from the SDE and need nothing else: the probability-flow trajectories of
all three SDEs are the same up to the signal scale (Karras et al. 2022, equation 4), and the solvers follow them where
it is 1.
"""


def _on_karras_grid(solver: Callable[[Denoiser, Noise, npt.ArrayLike], FloatArray]) -> Sampler:
    """Bind an ODE solver to the Karras grid over an SDE's range of noise levels."""

    def solve(denoise: Denoiser, noise: Noise, sde: SDE, steps: int) -> FloatArray:
        return solver(denoise, noise, karras_sigmas(steps, sde.sigma_min, sde.sigma_max))

    return solve


SAMPLERS: Final[dict[str, Sampler]] = {
    "dpm": _on_karras_grid(dpm_solver_2m),
    "heun": _on_karras_grid(heun),
    "euler-maruyama": euler_maruyama,
    "predictor-corrector": predictor_corrector,
}
"""The algorithms by the names a user writes."""


def get_sampler(name: str) -> Sampler:
    """Look a sampler up by name; raises InputError with all names if it is unknown."""
    if name not in SAMPLERS:
        raise InputError(f"sampler is {name!r}, expected one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


class _Chain:
    """Noisy images x_t under an SDE, updated in place, with a fixed workspace and counted draws of noise."""

    def __init__(self, denoise: Denoiser, noise: Noise, sde: SDE, t: float) -> None:
        self._denoise, self._noise, self._sde = denoise, noise, sde
        # The prior at t_max is taken as N(0, (s sigma)^2): at sigma_max = 10 little is left of the image.
        self._x = _initial(noise, sde.scale(t) * sde.sigma(t))
        self._input, self._denoised = np.empty_like(self._x), np.empty_like(self._x)
        self._draws = itertools.count(1)

    def denoised(self, t: float) -> FloatArray:
        """D(x / s; sigma), in an array that the next call overwrites."""
        np.divide(self._x, self._sde.scale(t), out=self._input)
        return _evaluate(self._denoise, self._input, self._sde.sigma(t), out=self._denoised)

    def update(self, t: float, keep: float, pull: float, jitter: float) -> None:
        """Replace x by ``keep x + pull score(x, t) + jitter z``, the form of every update here.

        With score = (s D - x) / (s sigma)^2 inserted, so that the coefficients are exact and the score, large
        where sigma is small, is never formed in single precision.
        """
        s, sigma = self._sde.scale(t), self._sde.sigma(t)
        term = self.denoised(t)
        self._x *= keep - pull / (s * sigma) ** 2
        term *= pull / (s * sigma**2)
        self._x += term
        draw = next(self._draws)
        np.multiply(_checked(self._noise(draw), term.shape, f"noise({draw})"), jitter, out=term)
        self._x += term


def _levels(sigmas: npt.ArrayLike) -> list[float]:
    """Check a grid of noise levels and return it without its final 0, as floats (which promote no array)."""
    grid = np.asarray(sigmas, dtype=np.float64)
    shaped = grid.ndim == 1 and grid.size >= 2
    if not (shaped and grid[0] < np.inf and grid[-1] == 0 and np.all(np.diff(grid) < 0)):
        raise InputError(f"sigmas is {grid}, expected at least two finite, decreasing numbers, the last one 0")
    return [float(level) for level in grid[:-1]]


def _initial(noise: Noise, level: float) -> FloatArray:
    """Scale draw 0 to the first noise level, in a new array."""
    draw = noise(0)
    if draw.ndim != 2 or draw.dtype.kind != "f":
        raise InputError(f"noise(0) is {draw.dtype} {draw.shape}, expected floating-point (batch, N)")
    return np.multiply(draw, level)


def _evaluate(denoise: Denoiser, x: FloatArray, sigma: float, out: FloatArray) -> FloatArray:
    """Copy D(x; sigma) to `out` and return that: the denoiser's own array may be reused, or even be x itself."""
    np.copyto(out, _checked(denoise(x, sigma), out.shape, "the denoised batch"))
    return out


def _checked(array: FloatArray, shape: tuple[int, ...], name: str) -> FloatArray:
    """Return the array if it has the batch's shape; broadcasting would silently give all samples one image."""
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, expected {shape}")
    return array
