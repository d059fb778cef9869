"""Comparison of the simulated scanner with the physics."""

from dataclasses import replace

import numpy as np
import pytest

from mpi_fast.errors import InputError
from mpi_fast.langevin import gaussian_sum
from mpi_fast.simulation import ReceiveChain, Scanner

COUPLING = ReceiveChain(((50.0, 0.5, -1.0), (-0.4, 45.0, 0.7), (1.5, 1.0, 30.0)))


def signals_over_time(scanner, position):
    """Spectra (C, K) of a delta sample at a point (x, y[, z]) by the Langevin function of the field at every sample."""
    t = np.arange(scanner.num_samples) / scanner.base_frequency
    field = np.array(
        [
            gradient * place + amplitude * np.cos(2 * np.pi * scanner.base_frequency / divider * t)
            for gradient, place, amplitude, divider in zip(
                scanner.gradient, position, scanner.drive_amplitude, scanner.dividers, strict=True
            )
        ]
    )
    moment = scanner.saturation_magnetisation * np.pi / 6 * scanner.core_diameter**3
    a = moment / (1.380649e-23 * scanner.temperature) * np.linalg.norm(field, axis=0)
    magnetisation = (1 / np.tanh(a) - 1 / a) * field / np.linalg.norm(field, axis=0)
    volume = np.prod(scanner.voxel_size) * (1e-3 if len(scanner.grid) == 2 else 1.0)
    iron = 0.1 * 1e3 * 44.7e-6 / 3 * volume * scanner.saturation_magnetisation
    spectrum = np.fft.rfft(np.asarray(scanner.receive.coupling) @ magnetisation, axis=-1)
    expected = -4e-7 * np.pi * iron * 2j * np.pi * scanner.frequencies * spectrum
    return expected * scanner.receive.transfer(scanner.frequencies)


@pytest.mark.parametrize("largest", [0.5, 5.0, 50.0, 500.0])
def test_the_langevin_function_is_a_sum_of_gaussians(largest):
    a = np.linspace(0, largest, 5000)[1:]
    exact = np.where(a < 0.05, a / 3 - a**3 / 45, 1 / np.tanh(a) - 1 / a)
    exponents, weights = gaussian_sum(largest)
    assert (weights > 0).all()
    assert len(weights) < 45
    np.testing.assert_allclose(a * (np.exp(-np.outer(a**2, exponents)) @ weights), exact, atol=1e-7)


def test_the_default_scanner_is_the_2d_openmpi_acquisition():
    scanner = Scanner()
    assert scanner.num_samples == 1632
    assert scanner.cycle == pytest.approx(652.8e-6)
    assert scanner.field_of_view == pytest.approx((38e-3, 38e-3))
    assert len(scanner.frequencies) == 817
    assert scanner.frequencies[-1] == pytest.approx(1.25e6)


def test_a_matrix_column_is_the_signal_of_a_particle_computed_by_hand():
    scanner = Scanner(grid=(3, 4), sub_voxels=1)
    column, row = 3, 0  # the voxel at x = +1.5 pitches, y = -1 pitch
    expected = signals_over_time(scanner, (1.5 * 2e-3, -1.0 * 2e-3))
    found = scanner.system_matrix()[:, :, row * 4 + column]
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())


def test_a_volume_s_column_is_the_signal_of_a_particle_computed_by_hand():
    scanner = Scanner.volume(
        grid=(5, 3, 4), voxel_size=(1e-3, 2e-3, 3e-3), dividers=(16, 15, 12), sub_voxels=1, receive=COUPLING
    )
    found = scanner.system_matrix()
    assert found.shape == (3, 240 // 2 + 1, 60)
    for z, y, x in ((0, 2, 3), (2, 1, 0), (4, 0, 1)):
        expected = signals_over_time(scanner, ((x - 1.5) * 3e-3, (y - 1) * 2e-3, (z - 2) * 1e-3))
        np.testing.assert_allclose(found[:, :, (z * 3 + y) * 4 + x], expected, atol=1e-6 * np.abs(expected).max())


def test_rows_too_weak_for_single_precision_over_time_are_right():
    """High harmonics are small differences of large samples over time, but are computed directly here."""
    scanner = Scanner(grid=(1, 3), sub_voxels=1)
    expected, found = signals_over_time(scanner, (2e-3, 0.0)), scanner.system_matrix()[:, :, 2]
    weak = np.abs(expected) < 1e-4 * np.abs(expected).max()
    weak &= np.abs(expected) > 1e-7 * np.abs(expected).max()
    assert weak.sum() > 500
    np.testing.assert_allclose(found[weak], expected[weak], rtol=1e-3)


def test_wanted_frequencies_are_those_of_the_whole_matrix():
    scanner = Scanner.volume(grid=(4, 5, 6), dividers=(16, 15, 12))
    wanted = np.array([7, 100, 3, 52])
    np.testing.assert_allclose(
        scanner.system_matrix(wanted),
        scanner.system_matrix()[:, wanted],
        atol=1e-6 * np.abs(scanner.system_matrix()).max(),
    )
    assert scanner.system_matrix(np.array([], dtype=int)).shape == (3, 0, 120)
    with pytest.raises(InputError, match="0 to 120"):
        scanner.system_matrix(np.array([121]))


def test_the_default_volume_is_the_3d_openmpi_acquisition():
    scanner = Scanner.volume()
    assert scanner.num_samples == 53856
    assert scanner.cycle == pytest.approx(21.5424e-3)
    assert scanner.field_of_view == pytest.approx((19e-3, 38e-3, 38e-3))
    assert scanner.system_matrix(np.arange(1000, 1010)).shape == (3, 10, 6859)


def test_a_flat_volume_with_a_weak_third_drive_is_nearly_the_plane():
    plane = Scanner(
        grid=(5, 6), dividers=(16, 17), receive=ReceiveChain(((1.0, 0.0), (0.0, 1.0)), (1e6, 1e6), 2.0, (0, 0))
    )
    receive = ReceiveChain(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), (1e6, 1e6), 2.0, (0, 0))
    volume = Scanner.volume(
        grid=(1, 5, 6),
        sub_voxels=3,
        drive_amplitude=(12e-3, 12e-3, 1e-9),
        gradient=(-1.0, -1.0, 1e-9),
        receive=receive,
        dividers=(16, 17, 1),
    )
    expected = plane.system_matrix()
    np.testing.assert_allclose(volume.system_matrix(), expected, atol=1e-6 * np.abs(expected).max())


def test_reversing_the_gradient_mirrors_the_grid():
    scanner = Scanner(grid=(9, 6))
    reverse = replace(scanner, gradient=(1.0, 1.0))
    forward = scanner.system_matrix()
    np.testing.assert_allclose(reverse.system_matrix()[..., ::-1], forward, atol=1e-5 * np.abs(forward).max())


def test_sub_voxel_averaging_converges():
    matrices = [Scanner(grid=(5, 5), sub_voxels=n).system_matrix() for n in (1, 2, 4, 8)]
    errors = [np.abs(m - matrices[-1]).max() for m in matrices[:-1]]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_signals_scale_with_concentration():
    scanner = Scanner(grid=(4, 4))
    double = replace(scanner, concentration=2 * scanner.concentration)
    np.testing.assert_allclose(double.system_matrix(), 2 * scanner.system_matrix(), rtol=1e-5)


@pytest.mark.parametrize("grid", [(1, 1), (26, 13), (7, 30)])
def test_any_grid(grid):
    matrix = Scanner(grid=grid, sub_voxels=1, dividers=(16, 17)).system_matrix()
    assert matrix.shape == (3, 16 * 17 // 2 + 1, grid[0] * grid[1])
    assert np.isfinite(matrix).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"grid": (0, 19)},
        {"grid": (19,)},
        {"voxel_size": (1e-3, 1e-3, 1e-3)},
        {"receive": COUPLING},
        {"core_diameter": -1e-9},
        {"gradient": (0.0, 1.0)},
        {"dividers": (96, 96)},
        {"sub_voxels": 0},
    ],
)
def test_impossible_scanners_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong)).replace("receive", "coupling")):
        Scanner(**wrong)
