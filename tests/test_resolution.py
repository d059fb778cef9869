"""The diagonal of the resolution matrix, and grids that are far finer than the resolution."""

import numpy as np
import pytest

from mpi_fast import resolution as module
from mpi_fast.calibration import Calibration
from mpi_fast.cli.outlook import too_fine
from mpi_fast.errors import InputError
from mpi_fast.experiment import measure_matrix
from mpi_fast.preprocessing import RowFilter
from mpi_fast.resolution import resolution
from mpi_fast.simulation import Scanner

SIDE = 0.038  # m, field of view


def calibration_of(matrix, grid, field_of_view=(0.03, 0.03)):
    """The calibration of a matrix (M, N) without noise."""
    return Calibration.from_arrays(matrix[None], None, grid, field_of_view, rows=RowFilter(snr_threshold=0))


def simulated(grid):
    scanner = Scanner(grid=grid, voxel_size=tuple(SIDE / count for count in grid))
    return measure_matrix(scanner, 20.0, np.random.default_rng(0)).calibrate()


def test_it_is_the_diagonal_of_what_a_linear_estimate_makes_of_points():
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((12, 20)) + 1j * rng.standard_normal((12, 20))
    matrix *= np.exp(-np.arange(12))[:, None]
    calibration = calibration_of(matrix, (4, 5))
    found = resolution(calibration, 20.0)
    stacked = np.concatenate([matrix.real, matrix.imag]) * calibration.weights[0]
    # Images of root-mean-square one have four times the signal energy of white ones (`likelihood.SIGNAL_PER_IMAGE`).
    noise = 4 * np.square(stacked).sum() / len(stacked) / 100
    gram = stacked.T @ stacked
    expected = np.linalg.solve(gram + noise * np.eye(20), gram)
    np.testing.assert_allclose(found.diagonal.ravel(), np.diag(expected), atol=2e-5)
    assert found.effective_rank == pytest.approx(np.trace(expected), rel=1e-4)
    assert found.voxel_size == pytest.approx((0.0075, 0.006))


def test_voxels_that_are_measured_one_by_one_are_resolved_and_others_are_not():
    seen = np.eye(30)[:15]
    found = resolution(calibration_of(seen + 0j, (5, 6)), 60.0)
    np.testing.assert_allclose(found.diagonal.ravel(), [1.0] * 15 + [0.0] * 15, atol=1e-5)
    assert found.cell == pytest.approx(1.0, abs=1e-5)
    assert found.effective_rank == pytest.approx(15, abs=1e-3)


@pytest.mark.parametrize("each", [2, 3])
def test_points_that_voxels_share_are_cells_of_so_many_voxels(each):
    """Every measured number is the sum of a square of voxels."""
    blocks = np.kron(np.eye(5), np.ones(each))  # (5, 5 each)
    found = resolution(calibration_of(np.kron(blocks, blocks) + 0j, (5 * each, 5 * each)), 60.0)
    assert found.cell == pytest.approx(each, rel=1e-4)
    assert found.cell_size == pytest.approx((0.006, 0.006), rel=1e-4)


def test_more_is_resolved_at_a_higher_snr_and_parts_of_voxels_say_the_same(monkeypatch):
    calibration = simulated((19, 19))
    found = [resolution(calibration, snr) for snr in (5.0, 15.0, 25.0, 35.0)]
    assert (np.diff([one.diagonal for one in found], axis=0) >= 0).all()
    assert np.all(np.diff([one.cell for one in found]) < 0)
    assert found[-1].effective_rank < calibration.rank
    monkeypatch.setattr(module, "PART", 50)
    np.testing.assert_allclose(resolution(calibration, 25.0).diagonal, found[2].diagonal, rtol=1e-5)


def test_a_volume_has_a_map_of_its_grid():
    scanner = Scanner.volume(grid=(5, 6, 7), voxel_size=(3.8e-3, 6.3e-3, 5.4e-3), dividers=(16, 15, 12), sub_voxels=1)
    calibration = measure_matrix(scanner, 30.0, np.random.default_rng(0)).calibrate(RowFilter(2.0))
    found = resolution(calibration)
    assert found.diagonal.shape == (5, 6, 7)
    assert 0 < found.diagonal.min() < found.diagonal.max() < 1
    inside, rim = found.diagonal[2, 2:4, 3], found.diagonal[0, 0, 0]
    assert inside.min() > 1.5 * rim  # outside of the trajectory


def test_no_number_is_no_snr():
    with pytest.raises(InputError, match="SNR nan dB: expected a number"):
        resolution(simulated((8, 8)), float("nan"))


# -- grids that are too fine ------------------------------------------------------------------------------------------


def test_a_grid_is_too_fine_where_voxels_outnumber_what_is_measured():
    """With one scanner and one field of view, the resolution depends on the scanner, not on the number of voxels."""
    usual, halved, fine = (resolution(simulated((count, count))) for count in (19, 30, 64))
    assert too_fine(usual) is None
    said = too_fine(fine)
    assert said is not None
    assert said.startswith("64 x 64 voxels are far finer than what is measured: at 25 dB a point is seen 2.5 x 2.5 mm")
    assert said.endswith("30 x 30 voxels would hold as much")
    assert "\n" not in said
    assert too_fine(halved) is None  # the recommended grid
    assert fine.cell_size == pytest.approx(halved.cell_size, rel=0.1)
    assert fine.effective_rank < 1.3 * usual.effective_rank
