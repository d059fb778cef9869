"""Scanners reduced to the matrices that simulate frames, many scanners of one grid side by side.

    y = T x + sigma L xi                 T = U^T A_true (R, N),  L L^T = covariance of the reduced noise
    ||residual||^2 = ||E x||^2 + sigma^2 chi^2(2M - R)

A batch of thousands of signals therefore takes only a few products of small matrices on any device.
"""

from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.reduction import reduce_matrix
from mpi_fast.training.abstract import random_operator
from mpi_fast.training.scanners import random_calibration, random_scanner

SKETCH = 32  # number of random projections of the signal outside the calibration's range
SPIKES = 8  # number of rows in which spikes of noise may occur


@dataclass
class Operators:
    """Reduced scanners of one grid, stacked and padded with zeros to a common rank R, float32 on one device.

    Attributes
    ----------
    singular_values, basis : (P, R), (P, N, R)
        S and V of each calibration.
    signal : (P, R, N)
        T: the reduced signal of an image, by the true system matrix.
    noise_factor : (P, R, R)
        L, the factor of the noise covariance.
    spikes : (P, SPIKES, R)
        Effect on y of unit noise in single rows.
    outside : (P, SKETCH, N)
        E: ``||E x||^2`` is the energy of an image's signal outside the calibration's range, approximated by random
        projections.
    rank, freedom : (P,)
        R and 2M - R of each scanner.
    """

    singular_values: Tensor
    basis: Tensor
    signal: Tensor
    noise_factor: Tensor
    spikes: Tensor
    outside: Tensor
    rank: Tensor
    freedom: Tensor

    def to(self, device: torch.device) -> "Operators":
        """The same operators on another device."""
        return Operators(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __len__(self) -> int:
        return len(self.rank)


Reduced = dict[str, NDArray[np.float32]]


def _reduced(
    rng: np.random.Generator,
    u: NDArray[np.float64],
    singular_values: NDArray[np.floating],
    basis: NDArray[np.floating],
    truth: NDArray[np.floating],
    deviation: NDArray[np.float64],
) -> Reduced:
    """One of `Operators`, unpadded, from U (2M, R), S, V, the true whitened rows (2M, N) and their noise (2M,)."""
    deviation = deviation / np.sqrt(np.mean(deviation**2))
    signal = u.T @ truth
    sketch = rng.standard_normal((SKETCH, len(truth))) / np.sqrt(SKETCH)
    rows = rng.integers(0, len(u), SPIKES)
    reduced = {
        "singular_values": singular_values,
        "basis": basis,
        "signal": signal,
        "noise_factor": np.linalg.cholesky((u.T * deviation**2) @ u),
        "spikes": u[rows] * deviation[rows, None],
        "outside": sketch @ truth - (sketch @ u) @ signal,
        "rank": np.float32(u.shape[1]),
        "freedom": np.float32(len(u) - u.shape[1]),
    }
    return {name: np.asarray(value, dtype=np.float32) for name, value in reduced.items()}


def reduced_scanner(seed: tuple[int, ...], grid: tuple[int, ...], voxel: tuple[float, ...] | None = None) -> Reduced:
    """One random scanner with a field-free point, simulated and calibrated as a real one; see `random_scanner`."""
    rng = np.random.default_rng(seed)
    while True:
        try:
            calibration, truth, deviation = random_calibration(rng, random_scanner(rng, grid, voxel))
            break
        except InputError:  # no row of this scanner is above its noise
            continue
    return reduced_known(rng, calibration, truth, deviation)


def reduced_known(
    rng: np.random.Generator,
    calibration: Calibration,
    truth: NDArray[np.complex64],
    deviation: NDArray[np.float64],
) -> Reduced:
    """A scanner in the form of `scanners.random_calibration`."""
    whitened = truth * calibration.weights[:, None]
    unwhitened = calibration.projection / calibration.weights
    u = np.concatenate([unwhitened.real, -unwhitened.imag], axis=1).T
    spread = np.tile(deviation * calibration.weights, 2)
    stacked = np.concatenate([whitened.real, whitened.imag])
    return _reduced(rng, u, calibration.singular_values, calibration.basis, stacked, spread)


def reduced_abstract(seed: tuple[int, ...], grid: tuple[int, ...], voxel: tuple[float, ...]) -> Reduced:
    """One of `abstract.KINDS`, calibrated with noise."""
    rng = np.random.default_rng(seed)
    while True:
        truth = random_operator(rng, grid, voxel)
        strength = np.linalg.norm(truth, 2) / np.sqrt(truth.shape[0])
        truth = truth * (np.exp(rng.uniform(np.log(10), np.log(1e4))) / strength)
        noisy = truth + rng.standard_normal(truth.shape)
        half = len(truth) // 2
        try:
            u, s, v = reduce_matrix(noisy[:half] + 1j * noisy[half:], np.zeros((1, truth.shape[1])))
            break
        except InputError:
            continue
    return _reduced(rng, u, s, v, truth, np.exp(rng.normal(0.0, rng.uniform(0.0, 0.3), len(truth))))


def stack(each: list[Reduced]) -> Operators:
    """Reduced scanners of one grid, padded to the largest rank among them."""
    rank = int(max(one["rank"] for one in each))
    padded = {"singular_values": (0,), "basis": (1,), "signal": (0,), "noise_factor": (0, 1), "spikes": (1,)}

    def stacked(name: str) -> Tensor:
        arrays, axes = [one[name] for one in each], padded.get(name, ())
        shape = [rank if axis in axes else size for axis, size in enumerate(arrays[0].shape)]
        whole = np.zeros((len(arrays), *shape), dtype=np.float32)
        for index, array in enumerate(arrays):
            part = whole[index : index + 1]  # a view, also for single numbers
            part[(slice(None), *map(slice, array.shape))] = array
        return torch.from_numpy(whole)

    return Operators(**{f.name: stacked(f.name) for f in fields(Operators)})


def workers(count: int) -> Executor:
    """Processes of one thread each, because several threads are slower for small matrices.

    A single worker is a thread of this process.
    """
    if count == 1:
        return ThreadPoolExecutor(1)
    context = get_context("spawn")  # a fork would copy locks that torch's threads hold
    return ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread)


def _one_thread() -> None:
    threadpool_limits(1)
    torch.set_num_threads(1)


def make_operators(count: int, seed: int, grid: tuple[int, int], processes: int = 2) -> Operators:
    """Simulate, calibrate and reduce ``count`` random scanners of one grid; scanner i depends only on (seed, i)."""
    seeds = [(seed, index) for index in range(count)]
    with workers(processes) as pool:
        return stack(list(pool.map(reduced_scanner, seeds, [grid] * count, chunksize=4)))
