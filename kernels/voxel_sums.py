"""Launches of kernels that sum up columns of V in each voxel, see voxel_sums.cuh."""

from collections.abc import Sequence
from typing import Any

from mpi_fast.kernels.launch import Device, Kernel

VOXELS, THREADS = 32, 256  # of a block


def sums_shared(sums: int) -> int:
    """Shared memory of a block with so many sums for each voxel, in bytes."""
    return 4 * THREADS * sums


def launch_sums(
    device: Device, kernel: Kernel, voxels: int, groups: tuple[int, int], sums: int, arguments: Sequence[Any]
) -> None:
    """Enqueue such a kernel.

    Parameters
    ----------
    device : Device
    kernel : Kernel
    voxels : int
        N.
    groups : (groups, frames)
        Of sums, each of which reads V, and of frames.
    sums : int
        For each voxel and group.
    arguments : sequence
        Of the kernel.
    """
    grid = -(-voxels // VOXELS) * groups[0], groups[1]
    device.launch(kernel, grid, THREADS, sums_shared(sums), arguments)
