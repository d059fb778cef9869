"""Launcher of guided_step.cu and its reference: all that happens between two evaluations of the network."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.guidance import Likelihood, tweedie
from mpi_fast.kernels.launch import (
    SHARED_LIMIT,
    STORAGE,
    THREADS,
    Array,
    Device,
    Kernel,
    Scalar,
    expect,
    product_floats,
    scalar_define,
    strides,
)
from mpi_fast.kernels.prepare import Basis
from mpi_fast.kernels.table import STEP
from mpi_fast.symmetry import symmetries

GROUPS = (4, 2, 1)  # samples that a block may take


@dataclass(frozen=True)
class State:
    """Samples of F frames between two evaluations, S each, on a device.

    Attributes
    ----------
    x, saved : (F, S, N) float32
        The noisy image over its signal scale, in the end the denoised one; what the sampler remembers.
    image : (F * S, 3, N) or, with ``channels_last``, (F * S, N, 3), of type ``scalar``
        The network's input: estimate, its deviation, x; in the row's symmetry.
    sigma : (F * S,) float32
        Its noise level.
    scalar : str
        Type of the network's tensors.
    channels_last : bool
        Their layout.
    """

    x: Array
    saved: Array
    image: Array
    sigma: Array
    scalar: Scalar = "float32"
    channels_last: bool = False


def guided_step(
    device: Device,
    basis: Basis,
    table: Array,
    number: int,
    seed: int,
    y: Array,
    noise: Array,
    denoised: Array | None,
    state: State,
    group: int | None = None,
) -> None:
    """Enqueue one step of every sample.

    Parameters
    ----------
    device, basis
        Where, and the calibration there.
    table : (steps, 104) uint8
        Rows of `table.step_table` or `table.consensus_table`, as bytes.
    number : int
        Row of the table.
    seed : int
        Of the noise, 0 <= seed < 2**64.
    y, noise : (F, R), (F,) float32
        As `prepare.prepare` writes them.
    denoised : (F * S, N) of the network's type, or None at row 0
        Its output, in the symmetry of its input.
    state : State
        Read and written.
    group : int, optional
        Samples per block, 1, 2 or 4; default: what fills the device. Results do not depend on it.

    Raises
    ------
    InputError
        For shapes and types that do not fit, and for grids too large for a block's shared memory.
    """
    voxels, rank = basis.shape
    frames, samples = (int(n) for n in state.x.shape[:2])
    channels = (voxels, 3) if state.channels_last else (3, voxels)
    scalar = STORAGE[state.scalar]
    expect(
        "guided_step",
        {
            "table": (table, (len(table), STEP.itemsize), np.uint8),
            "y": (y, (frames, rank), np.float32),
            "noise": (noise, (frames,), np.float32),
            "x": (state.x, (frames, samples, voxels), np.float32),
            "saved": (state.saved, (frames, samples, voxels), np.float32),
            "image": (state.image, (frames * samples, *channels), scalar),
            "sigma": (state.sigma, (frames * samples,), np.float32),
        },
    )
    if denoised is not None:
        expect("guided_step", {"denoised": (denoised, (frames * samples, voxels), scalar)})
    elif number:
        raise InputError(f"guided_step: no denoised images at row {number}, expected them at every row but the first")
    if not 0 <= number < len(table) or not 0 <= seed < 2**64:
        raise InputError(f"guided_step: row {number} of a table of {len(table)}, seed {seed}")
    group = group or group_of(frames, samples, voxels, rank, device.multiprocessors)
    device.launch(
        Kernel("guided_step", (*scalar_define(state.scalar), ("SAMPLES", str(group)))),
        (-(-samples // group), frames),
        THREADS,
        shared_bytes(group, voxels, rank),
        (
            table,
            np.int32(number),
            np.uint64(seed),
            np.int32(samples),
            np.int32(voxels),
            np.int32(basis.columns),
            np.int32(rank),
            np.float32(np.sqrt(voxels / basis.power)),
            basis.basis,
            basis.transposed,
            basis.singular_values,
            y,
            noise,
            np.uintp(0) if denoised is None else denoised,
            state.x,
            state.saved,
            state.image,
            *strides(voxels, 3, state.channels_last),
            state.sigma,
        ),
    )


def shared_bytes(group: int, voxels: int, rank: int) -> int:
    """Shared memory of a block that takes ``group`` samples."""
    partial = max(product_floats(rank, 2 * group), product_floats(voxels, 2 * group + 1))
    return 4 * (2 * group * (voxels + rank) + rank + partial)


def group_of(frames: int, samples: int, voxels: int, rank: int, multiprocessors: int) -> int:
    """Samples per block: as many as share a read of V and still leave no multiprocessor without a block.

    None that half as many would do for: a block that takes four computes four, whatever there are.

    Raises
    ------
    InputError
        When not even one sample fits into shared memory.
    """
    fitting = [g for g in GROUPS if g < 2 * samples and shared_bytes(g, voxels, rank) <= SHARED_LIMIT]
    if not fitting:
        raise InputError(
            f"guided_step: {voxels} voxels and rank {rank} need {shared_bytes(1, voxels, rank)} bytes of shared memory "
            f"for one sample, expected at most {SHARED_LIMIT}"
        )
    filling = [group for group in fitting if frames * -(-samples // group) >= multiprocessors]
    return min(filling[0] if filling else 1, fitting[0])


def reference(
    likelihood: Likelihood,
    row: np.void,
    denoised: NDArray[np.floating[Any]],
    x: NDArray[np.floating[Any]],
    saved: NDArray[np.floating[Any]],
    noise: NDArray[np.floating[Any]],
    grid: tuple[int, int],
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """What `guided_step` writes: x, saved (F, S, N) and image (F, S, 3, N), in the precision of its arguments.

    Parameters
    ----------
    likelihood : Likelihood
        y, S, V and the noise of the frames.
    row : STEP
        Of the table.
    denoised, x, saved, noise : (F, S, N)
        The network's output, the state, and the row's draw of noise.
    grid : (ny, nx)
        Image size.
    """
    (_, shrink, spread, guide_spread, kept), where = of_frames(likelihood, row), symmetries(grid)
    kept = kept[:, None, None]
    raw = denoised[..., where[row["came"]]]
    denoised = raw + kept * row["reflection"] * (raw - x)
    if row["guide_uniform"]:
        curvature = (likelihood.singular_values[0] * guide_spread) ** 2 + likelihood.noise**2
        ascent = likelihood.y[:, None] - (denoised @ likelihood.basis) * likelihood.singular_values
        ascent = (ascent * likelihood.singular_values) @ likelihood.basis.T
        denoised = denoised + ascent * (row["guide_strength"] * guide_spread**2 / curvature)[:, None, None]
    elif row["guide_strength"]:
        denoised = likelihood.combine(denoised, guide_spread)
    new = row["x_from_denoised"] * denoised + row["x_from_saved"] * saved + row["x_from_noise"] * noise
    new = new + kept * (row["x_from_x"] * x + row["x_from_raw"] * raw)
    if any(row[f"saved_from_{name}"] for name in ("x", "denoised", "saved")):
        saved = row["saved_from_x"] * x + row["saved_from_denoised"] * denoised + row["saved_from_saved"] * saved
    estimate, deviation = shrink[:, None, None] * new, np.broadcast_to(spread[:, None, None], new.shape)
    if row["sees"]:
        estimate = likelihood.combine(estimate, spread)
        deviation = np.broadcast_to(likelihood.deviation(spread)[:, None], new.shape)
    image = np.stack([estimate, deviation, new], axis=2)
    shown = np.empty_like(image)
    shown[..., where[row["goes"]]] = image
    return new, saved, shown


class Levels(NamedTuple):
    """What a row has for each frame, (F,) all: see `consensus.level_of` and `consensus.kept_of`."""

    sigma: NDArray[np.floating[Any]]
    shrink: NDArray[np.floating[Any]]
    spread: NDArray[np.floating[Any]]
    guide_spread: NDArray[np.floating[Any]]
    kept: NDArray[np.floating[Any]]


def of_frames(likelihood: Likelihood, row: np.void) -> Levels:
    """The row's own numbers, or what follows from the frames' noise."""
    if not row["level_factor"]:
        given = (*(row[name] for name in ("sigma", "shrink", "spread", "guide_spread")), 1.0)
        return Levels(*(np.full(len(likelihood.noise), number) for number in given))
    unit = np.sqrt(likelihood.basis.shape[0] / np.square(likelihood.singular_values, dtype=np.float64).sum())
    level = row["level_factor"] * np.sqrt(likelihood.noise * unit)
    sigma = np.clip(level, row["level_lowest"], row["level_highest"])
    shrink, spread = tweedie(sigma)
    widening = 1 + row["level_widening"] * np.maximum(sigma - row["level_doubtful"], 0)
    kept = 1 - row["level_damping"] * np.maximum(sigma - row["level_noisy"], 0)
    return Levels(sigma, shrink, row["spread"] * spread, row["guide_spread"] * sigma * widening, kept)
