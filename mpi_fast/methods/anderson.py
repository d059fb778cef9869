"""Anderson acceleration of a fixed-point iteration, for a batch of independent states.

Walker and Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal. 2011: the next state is the
combination of the last states for which the same combination of their residuals is smallest.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
MEMORY = 5
RIDGE = 1e-10  # relative, on the normal equations of the residuals


def fixed_point(
    step: Callable[[Array], Array],
    start: Array,
    iterations: int = 25,
    tolerance: float = 1e-3,
    memory: int = MEMORY,
) -> tuple[Array, NDArray[np.float64], int]:
    """Iterate ``z = step(z)`` until every state of the batch has converged.

    Parameters
    ----------
    step : callable
        Maps states (B, D) to states (B, D), each row independently.
    start : (B, D)
        Initial states.
    iterations : int
        Largest number of evaluations of ``step``.
    tolerance : float
        Limit of ``||step(z) - z|| / ||step(z)||``. A converged state no longer changes, so that it does not depend on
        the rest of the batch.
    memory : int
        Number of combined states; 1 is the plain iteration.

    Returns
    -------
    state : (B, D)
        ``step(z)`` of the last evaluation.
    residual : (B,) float64
        Relative residual of each state.
    evaluations : int
        Number of evaluations of ``step``.
    """
    batch = len(start)
    kept: list[tuple[Array, Array]] = []
    z = start
    state, residual, moving = start.copy(), np.full(batch, np.inf), np.ones(batch, dtype=bool)
    evaluations = 0
    for evaluations in range(1, iterations + 1):  # noqa: B007 (returned)
        image = step(z)
        size = np.maximum(np.linalg.norm(image, axis=1), np.finfo(image.dtype).tiny)
        state = np.where(moving[:, None], image, state)
        residual = np.where(moving, np.linalg.norm(image - z, axis=1) / size, residual)
        moving &= residual > tolerance
        if not moving.any():
            break
        kept = [*kept, (z, image)][-memory:]
        z = _combine(kept)
    return state, residual, evaluations


def _combine(kept: list[tuple[Array, Array]]) -> Array:
    """``sum alpha_i step(z_i)`` with ``alpha = argmin ||sum alpha_i (step(z_i) - z_i)||``, ``sum alpha_i = 1``."""
    images = np.stack([image for _, image in kept], axis=1)
    residuals = np.stack([image - z for z, image in kept], axis=1).astype(np.float64)
    gram = residuals @ residuals.transpose(0, 2, 1)
    ridge = RIDGE * np.maximum(
        np.trace(gram, axis1=1, axis2=2), 1e-200
    )  # zero residuals give the mean; 1 / ridge is finite
    gram += ridge[:, None, None] * np.eye(len(kept))
    alpha = np.linalg.solve(gram, np.ones((len(gram), len(kept), 1)))
    alpha /= alpha.sum(axis=1, keepdims=True)
    return np.asarray((alpha * images).sum(axis=1), dtype=images.dtype)
