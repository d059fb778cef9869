"""``mpi-fast convert``: write reconstructed images in other formats."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mpi_fast.cli.option_inputs import files_of
from mpi_fast.cli.options import External, Region, Untrusted
from mpi_fast.console import check_outputs, console, friendly
from mpi_fast.errors import InputError


def convert(
    images: Annotated[Path, typer.Argument(metavar="IMAGES.mdf", help="Reconstruction in MDF v2, from any program.")],
    output: Annotated[
        list[Path] | None,
        typer.Option("-o", "--output", help="File to write; its suffix selects the format. May be repeated."),
    ] = None,
    region: Region = None,
    external: External = False,
    untrusted: Untrusted = False,
) -> None:
    """Write reconstructed images as NIfTI, Zarr, NumPy, MATLAB, a table of regions, a picture or a film."""
    from mpi_fast import formats
    from mpi_fast.mdf import access

    with friendly(), access(external=external, untrusted=untrusted):
        if not output:
            raise InputError(f"nothing to write: expected -o and a name that ends in {', '.join(formats.FORMATS)}")
        formats.regions.require(region or (), output)
        inputs = images, *files_of(regions=region)
        check_outputs(*output, inputs=inputs)
        files = [file for one in output for file in formats.check(one)]
        if any(file.suffix.lower() == ".mdf" for file in files):
            raise InputError(f"{images}: is MDF already; copy the file")
        check_outputs(*files, inputs=inputs)
        with formats.Series.open(images) as series:
            chosen = replace(series, regions=formats.regions_of(region or (), series.grid))
            for one in output:
                formats.save(one, chosen)
        console.print("wrote " + ", ".join(map(str, files)), soft_wrap=True)
