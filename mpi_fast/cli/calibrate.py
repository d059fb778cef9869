"""``mpi-fast calibrate``: select the rows of a system matrix and reduce it, once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mpi_fast.cli.array_input import calibrate_file, is_array, refuse_options_of_others
from mpi_fast.cli.options import (
    ARRAYS,
    Axis,
    Empty,
    External,
    JsonFile,
    Plane,
    Untrusted,
    Variable,
    parse_integers,
    parse_plane,
)
from mpi_fast.console import check_outputs, console, facts_table, friendly, note, stages, write_json
from mpi_fast.description import described
from mpi_fast.limits import LOWEST_FREQUENCY


def calibrate(
    context: typer.Context,
    matrix: Annotated[
        Path, typer.Argument(metavar="SM.mdf", help="System matrix: MDF v2, or an array in .mat, .npy, .npz.")
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write, for reconstruct --calibration.")
    ] = None,
    plane: Plane = None,
    snr_threshold: Annotated[float, typer.Option(min=0, help="Use rows of at least this signal-to-noise ratio.")] = 5.0,
    min_frequency: Annotated[float, typer.Option(min=0, help="Lowest frequency in Hz.")] = LOWEST_FREQUENCY,
    max_frequency: Annotated[
        float | None, typer.Option(min=0, show_default="any", help="Highest frequency in Hz.")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(metavar="N,N", show_default="all", help="Receive channels, from 0.")
    ] = None,
    max_order: Annotated[int | None, typer.Option(min=1, show_default="any", help="Highest mixing order.")] = None,
    max_rows: Annotated[
        int | None,
        typer.Option(min=5, show_default="6000 for volumes", help="Most rows to use, those of best SNR."),
    ] = None,
    grid: Annotated[
        str | None,
        typer.Option(help="Rows x columns of voxels, such as 8x8, or 19x19x19.", rich_help_panel=ARRAYS),
    ] = None,
    field_of_view: Annotated[
        str | None,
        typer.Option(
            metavar="MM[,...]", help="Size of the grid in mm, or one for each of x,y,z.", rich_help_panel=ARRAYS
        ),
    ] = None,
    variable: Variable = None,
    empty: Empty = None,
    axis: Axis = None,
    fastest: Annotated[
        str,
        typer.Option(
            metavar="x|y",
            help="Coordinate that changes fastest from voxel to voxel; y in MATLAB.",
            rich_help_panel=ARRAYS,
        ),
    ] = "x",
    frequencies: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The variable with the rows' frequencies in Hz.", rich_help_panel=ARRAYS),
    ] = None,
    sampling_rate: Annotated[
        float | None,
        typer.Option(help="Samples per second, for signals over time (real numbers).", rich_help_panel=ARRAYS),
    ] = None,
    json_file: JsonFile = None,
    external: External = False,
    untrusted: Untrusted = False,
) -> None:
    """Select the rows of a system matrix, reduce it, and save the calibration for reconstruct."""
    from mpi_fast.mdf import access

    with friendly(), access(external=external, untrusted=untrusted):
        array = is_array(matrix, variable or grid)
        refuse_options_of_others(context, array=array)
        check_outputs(output, json_file, inputs=(matrix,))
        options: dict[str, Any] = {
            "plane": parse_plane(plane),
            "snr_threshold": snr_threshold,
            "min_frequency": min_frequency,
            "max_frequency": float("inf") if max_frequency is None else max_frequency,
            "channels": parse_integers(channels, "--channels"),
            "max_order": max_order,
            "max_rows": max_rows,
        }
        from mpi_fast.calibration import Calibration
        from mpi_fast.cli.outlook import too_fine
        from mpi_fast.resolution import resolution

        layout: dict[str, Any] = {
            "grid": grid,
            "field_of_view": field_of_view,
            "variable": variable,
            "empty": parse_integers(empty, "--empty") or (),
            "axis": axis,
            "fastest": fastest,
            "frequencies": frequencies,
            "sampling_rate": sampling_rate,
        }
        with stages() as report:
            if array:
                calibration = calibrate_file(matrix, layout, options, report)
            else:
                calibration = Calibration.from_mdf(matrix, **options, report=report)
            if output:
                report("saving", None)
                calibration.save(output)
        facts = described(calibration)
        console.print(facts_table(str(matrix), facts))
        if not calibration.facts.get("background_frames"):
            note("no background frames: all rows have the same weight, and the matrix is assumed to be free of noise")
        if (enough := calibration.facts["enough_snr_rows"]) > calibration.num_rows:
            used = f"the {calibration.num_rows} of best SNR are used"
            note(f"{enough} rows have SNR >= {snr_threshold:g}: {used}; --max-rows allows more")
        if (coarser := too_fine(resolution(calibration))) is not None:
            note(coarser)
        if output:
            console.print(f"wrote {output}", soft_wrap=True)
        if json_file:
            write_json(json_file, {"source": str(matrix), "written": output, **facts})
