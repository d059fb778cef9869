"""Every picture of the README and the pages, by code: ``python docs/draw.py``, or ``make pictures``.

They lie in ``docs/pictures``, small enough to be kept with the text. Those of the examples are what the examples draw.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from mpi_fast import Calibration, Reconstructor
from mpi_fast.experiment import MeasuredMatrix, Receiver, measure_matrix
from mpi_fast.methods import create
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

FOLDER = Path(__file__).parent / "pictures"
EXAMPLES = Path(__file__).parents[1] / "examples"
COLOURS = 64  # of a frame of the film; pictures have more
STRENGTHS = 1e-3, 1e-2, 1e-1, 1.0  # of ART: the one closest to the truth is shown


@dataclass(frozen=True)
class Lab:
    """One simulated scanner, calibrated, for all pictures."""

    matrix: MeasuredMatrix
    calibration: Calibration
    reconstruct: Reconstructor

    @classmethod
    def simulated(cls) -> "Lab":
        """A scanner of a white, steady noise; its matrix measured at 20 dB."""
        matrix = measure_matrix(Scanner(), 20.0, np.random.default_rng(0))
        calibration = matrix.calibrate()
        return cls(matrix, calibration, Reconstructor(calibration, threads=1))

    def measure(self, images: NDArray[np.float32], snr_db: float) -> NDArray[np.complex64]:
        """Spectra of images."""
        rng = np.random.default_rng(1)
        return Receiver(self.matrix, self.calibration.selection, snr_db, rng, steady=True).frames(images)

    def art(self, signals: NDArray[np.complex64], truth: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images of the regularised Kaczmarz method, at the strength that comes closest to the truth."""
        tried = [create("art", self.calibration, strength=s, iterations=10)(signals).image for s in STRENGTHS]
        return max(tried, key=lambda images: float(psnr(images, truth).mean()))


def bolus(lab: Lab) -> None:
    """The README's: a bolus on its way through a vessel, as truth, signals, ART, and ours with its uncertainty."""
    frames, size = 28, 19
    y, x = np.mgrid[:size, :size].astype(float)
    phase = np.linspace(-0.1, 1.1, frames)
    images = np.zeros((frames, size, size), np.float32)
    for place in np.linspace(0, 1, 60):  # a winding vessel, filled from behind
        row, column = 9 + 4.2 * np.sin(2 * np.pi * place), 3.2 + 12.6 * place
        tube = np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * 0.8**2))
        filled = np.exp(-(((phase - place) / 0.16) ** 2))
        images = np.maximum(images, filled[:, None, None] * tube).astype(np.float32)
    signals = lab.measure(images, 20.0)
    result = lab.reconstruct(signals)
    shown = {"truth": images, "ART": lab.art(signals, images), "mpi-fast": result.image, "its uncertainty": result.std}
    samples = np.fft.irfft(np.where(lab.calibration.selection, signals, 0), lab.calibration.num_samples)[:, 0, 400:800]

    figure = Figure(figsize=(8.0, 1.95), dpi=80)
    tiles = figure.subplots(1, 5)
    wave = tiles[0].plot(samples[0], color="#404040", linewidth=0.6)[0]
    largest = float(np.abs(samples).max())
    tiles[0].set(ylim=(-largest, largest), title="signal", box_aspect=1)
    drawn = [
        tile.imshow(movie[0], cmap="magma" if title == "its uncertainty" else "viridis", vmin=0, vmax=top)
        for tile, (title, movie), top in zip(tiles[1:], shown.items(), (1, 1, 1, float(result.std.max())), strict=True)
        if tile.set_title(title)
    ]
    for tile in tiles:
        tile.set(xticks=[], yticks=[])
        tile.title.set_fontsize(9)
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.86, wspace=0.05)
    pages = []
    for number in range(frames):
        wave.set_ydata(samples[number])
        for image, movie in zip(drawn, shown.values(), strict=True):
            image.set_data(movie[number])
        pages.append(_rendered(figure))
    palette = pages[frames // 2].quantize(COLOURS)
    pages = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    pages[0].save(FOLDER / "bolus.gif", save_all=True, append_images=pages[1:], duration=120, loop=0, optimize=True)


def scanner(lab: Lab) -> None:
    """How a scanner sees: the path of the field-free point, the signal of one particle cloud, and its spectrum."""
    one = lab.matrix.scanner
    time = np.arange(one.num_samples) / one.base_frequency
    path = [
        1e3 * amplitude / abs(gradient) * np.cos(2 * np.pi * one.base_frequency / divider * time)
        for amplitude, gradient, divider in zip(one.drive_amplitude, one.gradient, one.dividers, strict=True)
    ]
    voxel = 9 * one.grid[1] + 12
    spectrum = lab.matrix.truth[0, :, voxel]
    signal = np.fft.irfft(np.where(one.frequencies >= 80e3, spectrum, 0), one.num_samples)
    figure = Figure(figsize=(8.4, 2.5), dpi=80, layout="constrained")
    first, second, third = figure.subplots(1, 3)
    first.plot(*path, linewidth=0.4, color="#3b528b")
    first.plot(
        *(1e3 * size * (at - (n - 1) / 2) for size, at, n in ((2e-3, 12, 19), (2e-3, 9, 19))), "o", color="#d43d51"
    )
    first.set(xlim=(-19, 19), ylim=(-19, 19), xlabel="x / mm", ylabel="y / mm", title="path of the point", aspect=1)
    second.plot(1e6 * time, 1e3 * signal / np.abs(signal).max(), linewidth=0.4, color="#3b528b")
    second.set(xlabel="time / us", yticks=[], title="signal of the red voxel")
    strength = np.abs(spectrum)
    third.semilogy(1e-3 * one.frequencies, np.maximum(strength / strength.max(), 1e-7), linewidth=0.4, color="#3b528b")
    third.set(xlim=(0, 600), xlabel="frequency / kHz", title="its spectrum: one column of A")
    _save(figure, "scanner.png")


def matrix(lab: Lab) -> None:
    """Rows of the system matrix as images: what each frequency sees of the field of view."""
    calibration = lab.calibration
    order = np.argsort(-calibration.weights * np.linalg.norm(calibration.matrix, axis=1))
    figure = Figure(figsize=(8.4, 1.4), dpi=80, layout="constrained")
    for tile, row in zip(figure.subplots(1, 8), order[np.linspace(0, len(order) - 1, 8).astype(int)], strict=True):
        tile.imshow(calibration.matrix[row].real.reshape(calibration.grid), cmap="RdBu_r")
        frequency = calibration.frequencies[np.nonzero(calibration.selection)[1][row]]
        tile.set(xticks=[], yticks=[], title=f"{1e-3 * frequency:.0f} kHz")
        tile.title.set_fontsize(8)
    _save(figure, "matrix.png")


def measured(lab: Lab) -> None:
    """Singular values beside the noise: how many numbers of an image a frame really tells."""
    values = lab.calibration.singular_values.astype(float)
    images = generate(["shape", "vessels"], 8, lab.calibration.grid, np.random.default_rng(2))
    figure = Figure(figsize=(6.0, 2.8), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.semilogy(values, color="#3b528b", label="singular values of A")
    for snr_db, colour in ((15.0, "#d43d51"), (25.0, "#f5a35c"), (35.0, "#8a8a8a")):
        reduced = lab.calibration.reduce(lab.calibration.rows(lab.measure(images, snr_db)))
        size = np.sqrt(np.square(images.reshape(len(images), -1)).mean(axis=1))
        noise = float(np.median(reduced.noise / size))
        axes.axhline(
            noise, color=colour, linewidth=0.9, label=f"noise at {snr_db:g} dB: {(values > noise).sum()} above"
        )
    axes.set(xlabel=f"component, of {lab.calibration.num_voxels} voxels", ylabel="strength")
    axes.legend(fontsize=8)
    _save(figure, "measured.png")


def answers(lab: Lab) -> None:
    """One frame, and what becomes of it."""
    truth = generate("shape", 1, lab.calibration.grid, np.random.default_rng(4))
    truth /= truth.max()
    signals = lab.measure(truth, 20.0)
    reduced = lab.calibration.reduce(lab.calibration.rows(signals))
    plain = (lab.calibration.basis @ (reduced.y[0] / lab.calibration.singular_values)).reshape(1, *lab.calibration.grid)
    result = lab.reconstruct(signals)
    tiles = {
        "truth": truth,
        "inverse of A": plain,
        "ART": lab.art(signals, truth),
        "mpi-fast": result.image,
        "its uncertainty": result.std,
    }
    figure = Figure(figsize=(8.4, 1.9), dpi=80, layout="constrained")
    for axes, (title, images) in zip(figure.subplots(1, 5), tiles.items(), strict=True):
        sure = title == "its uncertainty"
        axes.imshow(images[0], cmap="magma" if sure else "viridis", vmin=0, vmax=float(images.max()) if sure else 1)
        quality = "" if sure or title == "truth" else f"\nPSNR {float(psnr(images, truth)[0]):.1f} dB"
        axes.set(xticks=[], yticks=[], title=title + quality)
        axes.title.set_fontsize(9)
    _save(figure, "answers.png")


def examples() -> None:
    """What the examples draw."""
    for script in sorted(EXAMPLES.glob("*.py")):
        if f"{script.stem}.png" not in script.read_text(encoding="utf-8"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, str(script.resolve())], cwd=folder, check=True)
            with Image.open(Path(folder) / f"{script.stem}.png") as picture:
                picture.thumbnail((900, 900))
                picture.convert("RGB").quantize(256).save(FOLDER / f"{script.stem}.png", optimize=True)


def _rendered(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _save(figure: Figure, name: str) -> None:
    _rendered(figure).quantize(256).save(FOLDER / name, optimize=True)


def main() -> None:
    """Draw all of them."""
    FOLDER.mkdir(exist_ok=True)
    lab = Lab.simulated()
    for draw in (bolus, scanner, matrix, measured, answers):
        draw(lab)
    examples()


if __name__ == "__main__":
    main()
