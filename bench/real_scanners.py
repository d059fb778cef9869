"""Images from measured data of two real scanners, by our and other methods: figures and a table for the docs.

    python bench/real_scanners.py [--data ../shared/real] [--output docs]

The data are public, under the MIT licence, and not part of the project; docs/real-scanners.md names their sources. The
relative residual is ``||A x - b|| / ||b||`` over all rows. Kaczmarz has the settings of its authors, 1000 sweeps and a
parameter of 5e-4, on the measured matrix and, as by its authors, on a matrix interpolated to 15 x 15 voxels.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.ndimage import zoom

from mpi_fast import Calibration, Reconstructor, plots
from mpi_fast.arrays import calibrate_array, frames_of, read_array
from mpi_fast.errors import MPIFastWarning
from mpi_fast.methods import create
from mpi_fast.plots.panels import CONCENTRATION, UNCERTAINTY, Row, panels, top
from mpi_fast.preprocessing import RowFilter

Array = NDArray[np.float32]
KACZMARZ = {"strength": 5e-4, "iterations": 1000}
EXACT = 1e-4  # nearly no penalty: the smallest residual of non-negative images
DPI, COLOURS = 80, 128
EMPTY = 0, 10, 20


def relative_residual(calibration: Calibration, images: Array, rows: NDArray[np.complex64]) -> NDArray[np.float64]:
    """Relative residual of the signals of each frame."""
    missing = images.reshape(len(images), -1) @ calibration.matrix.T - rows
    return np.asarray(np.linalg.norm(missing, axis=1) / np.linalg.norm(rows, axis=1))


def interpolated(matrix: NDArray[np.complex128], grid: tuple[int, int]) -> NDArray[np.complex128]:
    """The matrix (rows, 64) of 8 x 8 voxels on another grid, by cubic splines."""
    planes = matrix.reshape(-1, 8, 8)
    factors = 1, grid[0] / 8, grid[1] / 8
    fine = zoom(planes.real, factors, order=3) + 1j * zoom(planes.imag, factors, order=3)
    return np.asarray(fine.reshape(len(matrix), -1))


def array_2026(folder: Path, output: Path) -> None:
    """Five phantoms in a scanner without gradient: a figure, and the relative residuals."""
    measured = read_array(folder / "S.mat")
    calibration = calibrate_array(measured, (8, 8), (0.08, 0.08))
    finer = calibrate_array(interpolated(measured, (15, 15)), (15, 15), (0.08, 0.08))
    frames = np.concatenate([frames_of(read_array(folder / f"b{n}.mat"), calibration) for n in range(1, 6)])
    rows = calibration.rows(frames)
    ours = Reconstructor(calibration)(frames)
    images = {
        "mpi-fast": ours.image,
        "Kaczmarz": create("art", calibration, **KACZMARZ)(frames).image,
        "NNLS": create("nnls", calibration, strength=EXACT)(frames).image,
    }
    remains = {name: relative_residual(calibration, image, rows) for name, image in images.items()}
    theirs = create("art", finer, **KACZMARZ)(frames).image
    remains["Kaczmarz, 15 x 15"] = relative_residual(finer, theirs, finer.rows(frames))
    print("| relative residual | b1 | b2 | b3 | b4 | b5 |\n|---|---|---|---|---|---|")
    for name, values in remains.items():
        print(f"| {name} | " + " | ".join(f"{value:.2%}" for value in values) + " |")
    print("SNR found:", ", ".join(f"{value:.0f} dB" for value in ours.snr_db))
    scaled = [image / image.max(axis=(1, 2), keepdims=True) for image in images.values()]
    std = ours.std / ours.image.max(axis=(1, 2), keepdims=True)
    shown = [
        Row(name, image, CONCENTRATION, 0.0, 1.0, notes=[f"{value:.1%}" for value in remains[name]])
        for name, image in zip(images, scaled, strict=True)
    ]
    shown[-1] = Row("NNLS", scaled[-1], CONCENTRATION, 0.0, 1.0, "of each image's maximum", 3, notes=shown[-1].notes)
    shown.append(Row("std", std, UNCERTAINTY, 0.0, top(std), "of the maximum"))
    titles = [f"b{number}" for number in range(1, 6)]
    figure = panels(shown, calibration.field_of_view, titles)
    plots.save(figure, output / "real-array-2026.png", dpi=DPI, colours=COLOURS)


def head_2018(folder: Path, output: Path) -> None:
    """A sample moved along a line, measured twice: positions of the second scan, with the first as calibration."""
    calibration = calibrate_array(
        read_array(folder / "systemMatrixNew.h5"),
        (3, 9),
        (0.03, 0.09),
        empty=EMPTY,
        sampling_rate=2 * 1953125.0,
        rows=RowFilter(min_frequency=40e3, snr_threshold=3),
    )
    second = frames_of(read_array(folder / "test_systemMatrixNew.h5"), calibration, empty=EMPTY)
    result = Reconstructor(calibration)(second)
    profile = result.image.sum(axis=1)
    profile /= profile.max(axis=1, keepdims=True)
    found = profile.argmax(axis=1) == np.tile(np.arange(9), 3)
    print(f"right in {found.sum()} of 27 frames, wrong: {np.flatnonzero(~found)}; SNR {np.round(result.snr_db)}")
    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    cell = figure.add_subplot()
    shown = cell.imshow(profile.T, cmap=CONCENTRATION, origin="lower", aspect="auto")
    cell.plot(np.arange(27), np.tile(np.arange(9), 3), "+", color="C0", label="where the sample was")
    cell.set_xlabel("frame of the second scan")
    cell.set_ylabel("position along the line")
    cell.legend(fontsize=8, loc="upper right")
    figure.colorbar(shown, label="concentration / its maximum")
    plots.save(figure, output / "real-head-2018.png", dpi=DPI, colours=COLOURS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    root = Path(__file__).parents[1]
    parser.add_argument("--data", type=Path, default=root.parent / "shared" / "real")
    parser.add_argument("--output", type=Path, default=root / "docs" / "pictures")
    options = parser.parse_args()
    warnings.simplefilter("ignore", MPIFastWarning)
    array_2026(options.data / "array-2026", options.output)
    head_2018(options.data / "head-2018", options.output)


if __name__ == "__main__":
    main()
