"""Non-negative least squares around an image: a non-negative image that explains the signals and is close to it.

``min ||A x - y||^2 + mu ||x - c||^2`` subject to x >= 0. Its conditions of optimality (Lawson and Hanson, "Solving
least squares problems", 1974, chapter 23) say that ``x = max(c + A^T w, 0)`` for the one w that minimises

    d(w) = ||max(c + A^T w, 0)||^2 / 2 + mu ||w||^2 / 2 - <y, w>

without any constraint. This function is convex, piecewise quadratic, and has only R dimensions. Newton's method with a
line search ends after five to twenty steps, when the set of positive voxels no longer changes, with the exact solution.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
STEPS, HALVINGS = 100, 30


def nnls(forward: Array, y: Array, mu: float, centre: Array | None = None) -> Array:
    """Solve for one frame: forward (R, N), y (R,), centre (N,), zero by default -> (N,); see the module description."""
    middle = np.zeros(forward.shape[1]) if centre is None else centre

    def dual(w: Array) -> float:
        return float((np.maximum(middle + w @ forward, 0.0) ** 2).sum() / 2 + mu * (w @ w) / 2 - y @ w)

    identity = np.eye(len(forward))
    w, positive = np.zeros_like(y), np.ones(forward.shape[1], dtype=bool)
    for _ in range(STEPS):
        part = forward[:, positive]
        newton = np.linalg.solve(part @ part.T + mu * identity, y - part @ middle[positive])
        if ((middle + newton @ forward > 0) == positive).all():
            w = newton
            break
        lengths = 0.5 ** np.arange(HALVINGS)
        value = dual(w)
        w = next((at for at in (w + length * (newton - w) for length in lengths) if dual(at) < value), newton)
        positive = middle + w @ forward > 0
    return np.maximum(middle + w @ forward, 0.0)
