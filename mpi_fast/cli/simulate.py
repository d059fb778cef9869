"""``mpi-fast simulate``: write files of a simulated scanner, for first steps without a real one."""

from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import numpy as np
import typer

from mpi_fast.cli.options import JsonFile, Seed, parse_grid, parse_numbers
from mpi_fast.cli.provenance import command_line
from mpi_fast.console import check_outputs, console, facts_table, friendly, progress_bar, spinner, write_json
from mpi_fast.errors import InputError
from mpi_fast.grids import shown

if TYPE_CHECKING:
    from mpi_fast.noise import NoiseKind
    from mpi_fast.simulation import Scanner

HELD_OUT = "held-out"


def simulate(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder for system-matrix.mdf, measurement.mdf, truth.mdf.")
    ] = None,
    matrix: Annotated[Path | None, typer.Option(help="System matrix to write.")] = None,
    measurement: Annotated[
        Path | None, typer.Option(help="Measurement to write; its true images are written beside it.")
    ] = None,
    core: Annotated[float, typer.Option(help="Core diameter of the particles in nm.")] = 24.0,
    gradient: Annotated[
        str,
        typer.Option(help="Selection-field gradient in T/m along x and y (z: -2 times it), or one for each."),
    ] = "-1",
    drive: Annotated[str, typer.Option(help="Drive-field amplitude in mT, or one for each of x,y.")] = "12",
    grid: Annotated[str, typer.Option(help="Voxels: rows x columns, or planes x rows x columns.")] = "19x19",
    field_of_view: Annotated[
        str | None, typer.Option(metavar="MM", show_default="38, along z 19", help="Size of the grid in mm, or x,y,z.")
    ] = None,
    voxel: Annotated[
        str | None, typer.Option(metavar="MM", help="Instead of it: size of a voxel in mm, or x,y,z.")
    ] = None,
    calibration_snr: Annotated[float, typer.Option(help="SNR of the matrix above 80 kHz in dB.")] = 20.0,
    phantoms: Annotated[
        str, typer.Option(help=f"Phantom families, separated by commas; {HELD_OUT}: all that are not used in training.")
    ] = HELD_OUT,
    frames: Annotated[int, typer.Option(min=1, max=10**6, help="Number of frames, each of another phantom.")] = 8,
    snr: Annotated[float, typer.Option(help="SNR of each frame in dB, over the rows that calibrate selects.")] = 20.0,
    noise: Annotated[str, typer.Option(help="white, coloured, spiky or drift.")] = "white",
    background_frames: Annotated[int, typer.Option(min=0, max=10**6, help="Number of background frames.")] = 32,
    spectra: Annotated[
        bool, typer.Option("--spectra", help="Store spectra instead of samples over time; always so for large volumes.")
    ] = False,
    seed: Seed = 0,
    json_file: JsonFile = None,
) -> None:
    """Simulate a scanner of planes or volumes, and write its system matrix, a measurement and its true images as MDF.

    The matrix of a large volume keeps only its strongest frequencies, up to half a gigabyte.
    """
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
            truth = folder / "truth.mdf" if folder else measurement.parent / (measurement.stem + ".truth.mdf")
        check_outputs(matrix, measurement, truth, json_file)
        from mpi_fast import heldout
        from mpi_fast.experiment import Receiver, acquisition_of, measure_matrix, metadata_of, save_frames, save_matrix
        from mpi_fast.mdf import Grid, write_reconstruction
        from mpi_fast.noise import NOISE_KINDS
        from mpi_fast.phantoms import generate

        command = command_line()
        if noise not in NOISE_KINDS:
            raise InputError(f"--noise {noise}: expected one of {', '.join(NOISE_KINDS)}")
        scanner = _scanner(parse_grid(grid), field_of_view, voxel, gradient, drive, core)
        # One generator for each purpose, so that the phantoms of a seed do not depend on the noise of the matrix.
        of_matrix, of_phantoms, of_noise = (np.random.default_rng([seed, purpose]) for purpose in range(3))
        with spinner("simulating the system matrix"):
            held_out = partial(heldout.phantoms, concentrations=(1.0, 1.0))
            draw = held_out if phantoms == HELD_OUT else partial(generate, phantoms.split(","))
            images = draw(frames, seed=of_phantoms, grid=scanner.grid, aspect=scanner.aspect)
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
                whole = len(measured.frequency_index) == len(scanner.frequencies)
                save = partial(save_frames, time_domain=whole and not spectra, description=command, report=advance)
                save(measurement, receiver, images, background_frames)
            voxels = Grid.regular(scanner.grid, scanner.field_of_view)
            write_reconstruction(truth, images, voxels, acquisition_of(scanner), metadata=metadata_of(scanner, command))
        frequencies = f"{len(measured.frequency_index)} of {len(scanner.frequencies)} frequencies"
        about = {
            "scanner": f"{core:g} nm core, {gradient} T/m, {drive} mT, {1e6 * scanner.cycle:.1f} us a period",
            "grid": f"{shown(scanner.grid)} voxels of {_millimetres(scanner.voxel_size)}",
            "matrix": f"{frequencies}, {calibration.num_rows} rows of SNR >= 5, rank {calibration.rank}",
            "measurement": f"{frames} frames of {phantoms}, {background_frames} background frames",
            "noise": f"{noise}, {snr:g} dB",
            "seed": seed,
        }
        console.print(facts_table("simulated", about))
        written = [path for path in (matrix, measurement, truth) if path is not None]
        console.print("wrote " + ", ".join(map(str, written)), soft_wrap=True)
        if json_file:
            write_json(json_file, {**about, "written": written})


def _scanner(
    grid: tuple[int, ...], field_of_view: str | None, voxel: str | None, gradient: str, drive: str, core: float
) -> "Scanner":
    """The scanner from lengths and fields in the units of the command line."""
    from mpi_fast.simulation import Scanner

    axes = len(grid)
    make = Scanner if axes == 2 else Scanner.volume
    if voxel is not None and field_of_view is not None:
        raise InputError("--voxel and --field-of-view: one of them says the other, expected one")
    if voxel is not None:
        voxel_size = [1e-3 * size for size in parse_numbers(voxel, "--voxel", axes)[::-1]]
    else:
        extent = make().field_of_view
        if field_of_view is not None:
            extent = tuple(1e-3 * size for size in parse_numbers(field_of_view, "--field-of-view", axes)[::-1])
        voxel_size = [size / count for size, count in zip(extent, grid, strict=True)]
    fields = parse_numbers(gradient, "--gradient", axes)
    if axes == 3 and "," not in gradient:  # the three gradients of a magnetic field add up to zero
        fields = *fields[:2], -2 * fields[2]
    return make(
        grid=grid,
        voxel_size=tuple(voxel_size),
        gradient=fields,
        drive_amplitude=tuple(1e-3 * amplitude for amplitude in parse_numbers(drive, "--drive", axes)),
        core_diameter=1e-9 * core,
    )


def _millimetres(lengths: tuple[float, ...]) -> str:
    return " x ".join(f"{1e3 * length:.3g}" for length in lengths) + " mm"


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # the folder is not empty
        folder.rmdir()
