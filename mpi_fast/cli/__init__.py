"""The command line, ``mpi-fast``: one module for each command.

A command reads its options, calls the library, and shows the result. Modules that are slow to import are imported
inside the command, so that ``mpi-fast --help`` answers at once. No other module imports the command line.
"""

from typing import Annotated

import typer

from mpi_fast import __version__
from mpi_fast.cli.bench import bench
from mpi_fast.cli.calibrate import calibrate
from mpi_fast.cli.compare import ListsCommand, compare
from mpi_fast.cli.convert import convert
from mpi_fast.cli.demo import demo
from mpi_fast.cli.info import info
from mpi_fast.cli.live import live
from mpi_fast.cli.merge import merge
from mpi_fast.cli.reconstruct import reconstruct
from mpi_fast.cli.simulate import simulate
from mpi_fast.cli.train import train
from mpi_fast.console import log_to_screen, show_every_name

app = typer.Typer(
    name="mpi-fast",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mpi-fast {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the log of every step.")] = False,
) -> None:
    """Real-time image reconstruction for magnetic particle imaging.

    Start with demo. Then use calibrate and reconstruct with your own files, or with
    those that simulate writes. info describes a file.
    """
    if verbose:
        log_to_screen()


for command in (demo, simulate, calibrate, reconstruct, live, merge, convert, train, compare, bench, info):
    app.command(cls=ListsCommand if command is compare else None)(command)


def main() -> None:
    """Run the command line."""
    show_every_name()
    app()
