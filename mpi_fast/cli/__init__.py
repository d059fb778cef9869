"""The command line, ``mpi-fast``: one command per module, all of them thin.

A command reads its options, calls the library, and shows what came back; whatever takes long to import is imported
inside it, so that ``mpi-fast --help`` answers at once. Nothing imports the command line.
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
from mpi_fast.console import log_to_screen

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
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it and exit.")
    ] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Also show the log: what is done, and how.")] = False,
) -> None:
    """Real-time image reconstruction for magnetic particle imaging.

    First steps: demo; then calibrate and reconstruct with files of your own, or of
    simulate; info says what is in a file.
    """
    if verbose:
        log_to_screen()


for command in (demo, simulate, calibrate, reconstruct, live, merge, convert, train, compare, bench, info):
    app.command(cls=ListsCommand if command is compare else None)(command)


def main() -> None:
    """Run the command line."""
    app()
