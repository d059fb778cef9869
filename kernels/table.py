"""The sampler as a table: one row of numbers for each launch of guided_step.cu.

Every sampler of `samplers` is, per evaluation of the network, one linear update of the noisy image x and of one saved
image by x, the denoised image, the saved image and fresh noise. So a row of coefficients is all that a kernel needs to
know of it. Signal scales s(t) of VP and sub-VP are divided out: x here is x_t / s(t), what the network sees.

Row 0 draws the first noise; row k follows evaluation k. The first evaluation is the start (`Reconstructor`): noise is
denoised once, and the posterior mean takes the place of nothing under the sampler's first noise.

The steps towards consensus (`consensus.agree`) are a table of their own, for one image per frame.
"""

import itertools
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mpi_fast.consensus import DAMPING, DOUBTFUL, HIGHEST, LEVEL, LOWEST, NOISY, WIDENING, falling
from mpi_fast.denoiser import GUIDANCE
from mpi_fast.errors import InputError
from mpi_fast.guidance import tweedie
from mpi_fast.kernels.solvers import Update, evaluations
from mpi_fast.schedule import SDE
from mpi_fast.symmetry import symmetries

_FLOATS = (
    *("x_from_x", "x_from_denoised", "x_from_saved", "x_from_noise", "x_from_raw"),
    *("saved_from_x", "saved_from_denoised", "saved_from_saved"),
    *("reflection", "guide_spread", "guide_strength", "guide_uniform"),
    *("sigma", "shrink", "spread", "sees"),
    *("level_factor", "level_lowest", "level_highest"),
    *("level_doubtful", "level_widening", "level_noisy", "level_damping"),
)
_WHOLE = ("draw", "came", "goes")
STEP: Final = np.dtype([*((name, np.float32) for name in _FLOATS), *((name, np.uint32) for name in _WHOLE)])
"""One row: ``struct Step`` of guided_step.cu, 104 bytes."""


def step_table(
    sampler: str, sde: SDE, steps: int, guidance: str = "proximal", strength: float = 0.5
) -> NDArray[np.void]:
    """The rows of a whole reconstruction.

    Parameters
    ----------
    sampler : str
        A name of `samplers.SAMPLERS`.
    sde : SDE
        The noising process; the solvers of the ODE take its range of noise levels only.
    steps : int
        Of the sampler.
    guidance, strength
        See `denoiser.ConditionedDenoiser`.

    Returns
    -------
    (evaluations + 1,) STEP
        ``evaluations`` is the sampler's number and one for the start.

    Raises
    ------
    InputError
        For names that there are not, and numbers out of range.
    """
    if guidance not in GUIDANCE:
        raise InputError(f"guidance '{guidance}': expected one of {', '.join(GUIDANCE)}")
    if not strength > 0 or steps < 1:
        raise InputError(f"guidance strength {strength}, steps {steps}: expected positive numbers")
    solver = evaluations(sampler, sde, steps)
    ratio = solver[0][0] / sde.sigma_max
    chain = [(sde.sigma_max, Update(x=ratio, denoised=ratio)), *solver]

    table = np.zeros(len(chain) + 1, dtype=STEP)
    rows: list[tuple[float, Update]] = [(0.0, Update(noise=sde.sigma_max)), *chain]
    for row, (evaluated, update), following in itertools.zip_longest(table, rows, chain):
        for name in ("x", "denoised", "saved", "noise"):
            row[f"x_from_{name}"] = getattr(update, name)
        for name in ("x", "denoised", "saved"):
            row[f"saved_from_{name}"] = getattr(update, f"save_{name}")
        row["draw"] = update.draw
        if evaluated and guidance != "none":
            spread = tweedie(evaluated)[1]
            row["guide_spread"] = strength * spread if guidance == "proximal" else spread
            row["guide_strength"] = 1.0 if guidance == "proximal" else strength
            row["guide_uniform"] = guidance == "gradient"
        if following:
            row["sigma"], row["sees"] = following[0], 1.0
            row["shrink"], row["spread"] = tweedie(following[0])
    return table


def consensus_table(steps: int, grid: tuple[int, ...]) -> NDArray[np.void]:
    """The rows of `consensus.agree`, in which the network sees no signals.

    Parameters
    ----------
    steps : int
        Evaluations of the network.
    grid : (ny, nx)
        Image size.

    Returns
    -------
    (steps + 1,) STEP
        Row 0 finds x, where to start, and leaves it. The last leaves the image that is agreed on in x.

    Raises
    ------
    InputError
        For no steps at all.
    """
    if steps < 1:
        raise InputError(f"consensus in {steps} steps: expected one or more")
    table = np.zeros(steps + 1, dtype=STEP)
    before, after = table[:-1], table[1:]
    factors, ratio = falling(steps)
    levels = np.append(factors, ratio * factors[-1])  # of the next evaluation; after the last there is none
    scaled = {"factor": LEVEL, "lowest": LOWEST, "highest": HIGHEST, "doubtful": DOUBTFUL, "noisy": NOISY}
    for name, number in scaled.items():
        table[f"level_{name}"] = levels * np.float32(number)
    after["level_widening"], after["level_damping"] = WIDENING / levels[1:], DAMPING / levels[1:]
    before["spread"], before[:1]["x_from_x"] = 1.0, 1.0
    after["reflection"], after["guide_strength"], after["x_from_denoised"] = 1.0, 1.0, 1.0
    after["guide_spread"] = 1.0 / ratio  # the level was that of the row before
    after[:-1]["x_from_x"], after[:-1]["x_from_raw"] = ratio, -ratio
    before["goes"] = after["came"] = np.arange(steps) % len(symmetries(grid))
    return table
