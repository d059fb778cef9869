"""``mpi-fast simulate``: files of a simulated scanner, to try things out without one."""

import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import typer

from mpi_fast.cli.options import JsonFile, Seed, parse_grid, parse_numbers
from mpi_fast.console import check_outputs, console, facts_table, friendly, progress_bar, spinner, write_json
from mpi_fast.errors import InputError

if TYPE_CHECKING:
    from mpi_fast.noise import NoiseKind


def simulate(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder for system-matrix.mdf, measurement.mdf, truth.mdf.")
    ] = None,
    matrix: Annotated[Path | None, typer.Option(help="System matrix to write.")] = None,
    measurement: Annotated[
        Path | None, typer.Option(help="Measurement to write; its true images go beside it.")
    ] = None,
    core: Annotated[float, typer.Option(help="Core diameter of the particles in nm.")] = 24.0,
    gradient: Annotated[str, typer.Option(help="Selection-field gradient in T/m, or two for x,y.")] = "-1",
    drive: Annotated[str, typer.Option(help="Drive-field amplitude in mT, or two for x,y.")] = "12",
    grid: Annotated[str, typer.Option(help="Voxels, rows x columns.")] = "19x19",
    voxel: Annotated[str, typer.Option(help="Voxel size in mm, or two for x,y.")] = "2",
    calibration_snr: Annotated[float, typer.Option(help="SNR of the matrix above 80 kHz in dB.")] = 20.0,
    phantoms: Annotated[str, typer.Option(help="Phantom families, with commas between.")] = "tumours",
    frames: Annotated[int, typer.Option(min=1, max=10**6, help="Frames, each of another phantom.")] = 8,
    snr: Annotated[float, typer.Option(help="SNR of each frame over the rows calibrate selects, in dB.")] = 20.0,
    noise: Annotated[str, typer.Option(help="white, coloured, spiky or drift.")] = "white",
    background_frames: Annotated[int, typer.Option(min=0, max=10**6, help="Background frames, 0 for none.")] = 32,
    spectra: Annotated[bool, typer.Option("--spectra", help="Store spectra, not samples over time.")] = False,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Simulate a 2D scanner: its system matrix, measurements of phantoms and their true images, as MDF files."""
    with friendly(), ExitStack() as undo:
        if folder is not None:
            if not folder.exists():
                undo.callback(_remove_empty, folder)
            folder.mkdir(exist_ok=True)
            matrix, measurement = matrix or folder / "system-matrix.mdf", measurement or folder / "measurement.mdf"
        if matrix is None and measurement is None:
            raise InputError("nothing to write: expected a folder, or --matrix and --measurement with file names")
        truth = None
        if measurement is not None:
            truth = folder / "truth.mdf" if folder else measurement.with_name(measurement.stem + ".truth.mdf")
        check_outputs(matrix, measurement, truth, json_file)
        from mpi_fast.experiment import Receiver, acquisition_of, measure_matrix, metadata_of, save_frames, save_matrix
        from mpi_fast.mdf import Grid, write_reconstruction
        from mpi_fast.noise import NOISE_KINDS
        from mpi_fast.phantoms import generate
        from mpi_fast.simulation import Scanner

        command = " ".join(["mpi-fast", *sys.argv[1:]])
        if noise not in NOISE_KINDS:
            raise InputError(f"--noise {noise}: expected one of {', '.join(NOISE_KINDS)}")
        (dx, dy), shape = (1e-3 * size for size in parse_numbers(voxel, "--voxel")), parse_grid(grid, axes=(2,))
        ax, ay = (1e-3 * amplitude for amplitude in parse_numbers(drive, "--drive"))
        scanner = Scanner(shape, (dy, dx), parse_numbers(gradient, "--gradient"), (ax, ay), core_diameter=1e-9 * core)
        # One generator for each purpose: the phantoms of a seed do not depend on how noisy the matrix was.
        of_matrix, of_phantoms, of_noise = (np.random.default_rng([seed, purpose]) for purpose in range(3))
        with spinner("simulating the system matrix"):
            images = generate(phantoms.split(","), frames, shape, of_phantoms, dy / dx)
            measured = measure_matrix(scanner, calibration_snr, of_matrix)
            calibration = measured.calibrate()
            kind, background = cast("NoiseKind", noise), background_frames > 0
            feed = {"feed_through": background, "steady": True}
            receiver = Receiver(measured, calibration.selection, snr, of_noise, kind, **feed)
            if matrix is not None:
                save_matrix(matrix, measured, command)
        if measurement is not None and truth is not None:
            with progress_bar("frames") as bar:
                advance = partial(bar.advance, bar.add_task("measuring", total=frames))
                save = partial(save_frames, time_domain=not spectra, description=command, report=advance)
                save(measurement, receiver, images, background_frames)
            plane = Grid.regular(*scanner.plane)
            write_reconstruction(truth, images, plane, acquisition_of(scanner), metadata=metadata_of(scanner, command))
        shown = {
            "scanner": f"{core:g} nm core, {gradient} T/m, {drive} mT, {1e6 * scanner.cycle:.1f} us a period",
            "grid": f"{grid} voxels of {voxel} mm",
            "matrix": f"{calibration.num_rows} rows of SNR >= 5, rank {calibration.rank}",
            "measurement": f"{frames} frames of {phantoms}, {background_frames} background frames",
            "noise": f"{noise}, {snr:g} dB",
            "seed": seed,
        }
        console.print(facts_table("simulated", shown))
        written = [path for path in (matrix, measurement, truth) if path is not None]
        console.print("wrote " + ", ".join(map(str, written)), soft_wrap=True)
        if json_file:
            write_json(json_file, {**shown, "written": written})


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it holds what was written
        folder.rmdir()
