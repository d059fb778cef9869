"""Launches of kernels that sum over the columns of V in each voxel, see voxel_sums.cuh."""

from collections.abc import Sequence
from typing import Any

from mpi_fast.kernels.launch import Device, Kernel

VOXELS, THREADS = 32, 256  # voxels and threads of a thread block


def sums_shared(sums: int) -> int:
    """Shared memory of a thread block with this number of sums for each voxel, in bytes."""
    return 4 * THREADS * sums


def launch_sums(
    device: Device, kernel: Kernel, voxels: int, groups: tuple[int, int], sums: int, arguments: Sequence[Any]
) -> None:
    """Enqueue a kernel that uses voxel_sums.cuh.

    Parameters
    ----------
    device : Device
        Device that runs the kernel.
    kernel : Kernel
        The kernel.
    voxels : int
        Number of voxels N.
    groups : (int, int)
        Number of groups of sums, each of which reads V, and number of groups of frames.
    sums : int
        Number of sums for each voxel in a group.
    arguments : sequence
        Arguments of the kernel.
    """
    grid = -(-voxels // VOXELS) * groups[0], groups[1]
    device.launch(kernel, grid, THREADS, sums_shared(sums), arguments)
