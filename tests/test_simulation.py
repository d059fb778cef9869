"""The simulated scanner against the physics it claims to follow."""

from dataclasses import replace

import numpy as np
import pytest

from mpi_fast.errors import InputError
from mpi_fast.simulation import Scanner, langevin_over_argument


def test_langevin_matches_its_definition_and_series():
    a = np.concatenate([np.geomspace(1e-4, 0.5, 50), np.linspace(0.5, 60, 50)])
    exact = np.array([(1 / np.tanh(v) - 1 / v) / v if v > 0.05 else 1 / 3 - v**2 / 45 + 2 * v**4 / 945 for v in a])
    found = langevin_over_argument((a**2).astype(np.float32))
    np.testing.assert_allclose(found, exact, rtol=2e-5)
    assert langevin_over_argument(np.zeros(1, np.float32))[0] == pytest.approx(1 / 3)


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
    t = np.arange(scanner.num_samples) / scanner.base_frequency
    position = np.array([1.5 * 2e-3, -1.0 * 2e-3])
    field = np.array(
        [
            scanner.gradient[d] * position[d]
            + scanner.drive_amplitude[d] * np.cos(2 * np.pi * scanner.base_frequency / scanner.dividers[d] * t)
            for d in range(2)
        ]
    )
    moment = scanner.saturation_magnetisation * np.pi / 6 * scanner.core_diameter**3
    a = moment / (1.380649e-23 * scanner.temperature) * np.linalg.norm(field, axis=0)
    magnetisation = (1 / np.tanh(a) - 1 / a) * field / np.linalg.norm(field, axis=0)
    iron = 0.1 * 1e3 * 44.7e-6 / 3 * (2e-3 * 2e-3 * 1e-3) * scanner.saturation_magnetisation
    spectrum = np.fft.rfft(np.asarray(scanner.receive.coupling) @ magnetisation, axis=-1)
    expected = -4e-7 * np.pi * iron * 2j * np.pi * scanner.frequencies * spectrum
    expected = expected * scanner.receive.transfer(scanner.frequencies)
    found = scanner.system_matrix()[:, :, row * 4 + column]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


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
    [{"grid": (0, 19)}, {"core_diameter": -1e-9}, {"gradient": (0.0, 1.0)}, {"dividers": (96, 96)}, {"sub_voxels": 0}],
)
def test_impossible_scanners_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Scanner(**wrong)
