"""The network, given the signals: what the samplers call to denoise.

Before each evaluation the noisy images are combined with the signals (`guidance.Likelihood`) into the network's input;
after it, the denoised images take a step towards the signals, if asked to.
"""

from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.guidance import Likelihood, Spread, tweedie

Array = NDArray[np.float32]
Guidance = Literal["proximal", "gradient", "none"]
GUIDANCE: tuple[str, ...] = get_args(Guidance)
STRENGTH = 0.5  # of the proximal guidance: best on validation frames


class Evaluator(Protocol):
    """A network bound to buffers for F frames with S samples each: fill ``condition``, encode, fill the rest, denoise.

    Attributes
    ----------
    condition : (F, CONDITION_CHANNELS, ny, nx) float32
        What the signals alone say: see `Likelihood.condition`.
    image : (F * S, 3, ny, nx) float32
        Estimate, its deviation, x_t.
    sigma : (F * S,) float32
        Noise level of the sampler.
    """

    @property
    def condition(self) -> Array: ...  # noqa: D102

    @property
    def image(self) -> Array: ...  # noqa: D102

    @property
    def sigma(self) -> Array: ...  # noqa: D102

    def encode(self) -> None:
        """Take note of ``condition``."""
        ...

    def denoise(self) -> Array:
        """Denoised images (F * S, 1, ny, nx) of ``image``; a buffer that the next call overwrites."""
        ...


class ConditionedDenoiser:
    """D(x; sigma | y) for F frames with S samples each, as `samplers.Denoiser`.

    Parameters
    ----------
    likelihood : Likelihood
        Signals of the frames, for images of root-mean-square about one.
    evaluator : Evaluator
        The network, bound to F frames with S samples.
    guidance : str
        What is done to the network's output: ``proximal``; ``gradient``, a step of gradient ascent on the
        log-likelihood, for comparison; or ``none``.
    strength : float
        Of ``proximal``: its spread r_t relative to ``sigma / sqrt(1 + sigma^2)``. Of ``gradient``: the step relative to
        the longest stable one.
    """

    def __init__(
        self, likelihood: Likelihood, evaluator: Evaluator, guidance: Guidance = "proximal", strength: float = STRENGTH
    ) -> None:
        if guidance not in GUIDANCE:
            raise InputError(f"guidance '{guidance}': expected one of {', '.join(GUIDANCE)}")
        if not strength > 0:
            raise InputError(f"guidance strength {strength}: expected a positive number")
        self._likelihood, self._evaluator = likelihood, evaluator
        self._guidance, self._strength = guidance, strength
        frames, voxels = len(likelihood.y), likelihood.basis.shape[0]
        self._shape = frames, len(evaluator.image) // frames, voxels
        self._images = evaluator.image.reshape(*self._shape[:2], 3, voxels)
        self._work = np.empty(self._shape, dtype=np.float32)

        evaluator.condition[...] = likelihood.condition().reshape(evaluator.condition.shape)
        evaluator.encode()

    def __call__(self, x: NDArray[np.floating[Any]], sigma: Spread) -> Array:
        """Denoise images (F * S, N) of noise level sigma, one or (F,); the result is overwritten by the next call."""
        shrink, spread = tweedie(sigma)
        noisy = x.reshape(self._shape)
        each = np.asarray(shrink, dtype=np.float32).reshape(-1, 1, 1)
        np.multiply(noisy, each, out=self._work, casting="same_kind")
        self._images[:, :, 0] = self._likelihood.combine(self._work, spread, out=self._work)
        self._images[:, :, 1] = self._likelihood.deviation(spread)[:, None]
        self._images[:, :, 2] = noisy
        self._evaluator.sigma.reshape(self._shape[:2])[:] = np.reshape(sigma, (-1, 1))
        denoised = self._evaluator.denoise().reshape(self._shape)
        if self._guidance == "proximal":
            denoised = self._likelihood.combine(denoised, self._strength * spread, out=self._work)
        elif self._guidance == "gradient":
            denoised = np.add(denoised, self._ascent(denoised, spread), out=self._work)
        return denoised.reshape(x.shape)

    def _ascent(self, denoised: Array, spread: Spread) -> Array:
        """A gradient step whose length the most curved direction of log-likelihood and prior allows."""
        likelihood = self._likelihood
        curvature = (likelihood.singular_values[0] / likelihood.noise) ** 2 + np.asarray(spread, np.float32) ** -2
        return np.asarray(likelihood.gradient(denoised) * (np.float32(self._strength) / curvature)[:, None, None])
