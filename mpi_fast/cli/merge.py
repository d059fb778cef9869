"""``mpi-fast merge``: join reconstructions of parts of a measurement."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from mpi_fast.cli.options import External
from mpi_fast.console import check_outputs, console, friendly, progress_bar


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="PART.mdf...", help="Files by reconstruct --frames A:B.")],
    output: Annotated[
        list[Path],
        typer.Option("-o", "--output", help="File to write; its suffix selects the format. May be repeated."),
    ],
    external: External = False,
) -> None:
    """Merge reconstructions of different frames of one measurement, given in any order."""
    from mpi_fast import formats
    from mpi_fast.mdf import access

    with friendly(), access(external=external), ExitStack() as stack:
        check_outputs(*output, inputs=tuple(parts))
        files = [file for one in output for file in formats.check(one, acquired=True)]
        check_outputs(*files, inputs=tuple(parts))
        from mpi_fast.mdf import ReconstructionFile
        from mpi_fast.shards import images_of, in_order, provenance_of

        ordered = in_order([stack.enter_context(ReconstructionFile(path)) for path in parts])
        first = ordered[0]
        header = formats.Header(first.grid, first.acquisition, provenance_of(ordered))
        count = sum(len(part.image) for part in ordered)
        with formats.writing(output, header) as writer, progress_bar("frames") as bar:
            task = bar.add_task("merging", total=count)
            for part in ordered:
                for result, numbers, times in images_of(part):
                    writer.append(result, numbers, times)
                    bar.advance(task, len(result))
        console.print(f"{count} frames of {len(parts)} files")
        console.print("wrote " + ", ".join(map(str, files)), soft_wrap=True)
