"""Helpers of all commands: printing, errors without tracebacks, checks of outputs, JSON files."""

import io
import json
import logging
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from mpi_fast.atomic import atomic_path, check_target
from mpi_fast.errors import InputError, MPIFastError, MPIFastWarning, OutputError
from mpi_fast.progress import ProgressBar
from mpi_fast.termination import Terminated, ending_signals


class _Screen(Console):
    """A screen whose reader may close the pipe, or whose disk may be full, because the results are in files.

    Attributes
    ----------
    lost : OSError, or None
        Why something could not be printed.
    """

    lost: OSError | None = None

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; after a failure the work continues without a screen."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self.lost = error
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Print no more, and continue the work."""
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, (sys.stderr if self.stderr else sys.stdout).fileno())
        os.close(null)


# Without markup, because printed file names may contain [brackets].
console = _Screen(highlight=False, markup=False)
stderr = _Screen(stderr=True, highlight=False, markup=False, soft_wrap=True)
BY_SIGNAL = 128  # the exit code is this plus the number of the signal, as in shells


@contextmanager
def friendly() -> Iterator[None]:
    """Print errors of the package and the system as one line with exit code 2, and warnings as notes.

    Signals that end the process end it cleanly, with one line and the exit code that shells use.
    """
    try:
        with ending_signals(), warnings.catch_warnings():
            warnings.simplefilter("always", MPIFastWarning)
            shown = warnings.showwarning
            warnings.showwarning = lambda message, category, *place, **more: (
                note(str(message)) if issubclass(category, MPIFastWarning) else shown(message, category, *place, **more)
            )
            yield
            lost, console.lost = console.lost, None
            if lost:
                raise OutputError(
                    f"standard output: cannot be written: {lost.strerror}; files that were written are complete"
                )
    except MPIFastError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{_place(error)}{error.strerror or error}")
    except MemoryError:
        _fail("not enough memory")
    except Terminated as error:
        stderr.print(f"ended by {error}", style="red")
        raise typer.Exit(BY_SIGNAL + error.number) from None
    except KeyboardInterrupt:  # raised by a library, or if signals are handled elsewhere
        stderr.print("interrupted", style="red")
        raise typer.Exit(BY_SIGNAL + signal.SIGINT) from None


def _place(error: OSError) -> str:
    """What an error of the system is about, if this is known."""
    if error.filename:
        return f"{error.filename}: "
    try:
        Path.cwd()
    except FileNotFoundError:  # every relative name then fails, without a name in the error
        return "the current folder has been removed: "
    return ""


def _fail(message: str) -> None:
    stderr.print(f"error: {' '.join(message.split())}", style="red")
    raise typer.Exit(2) from None


def note(message: str) -> None:
    """Print a note on stderr, separate from the results."""
    stderr.print(f"note: {message}", style="yellow")


def show_every_name() -> None:
    """Print characters that the encoding of the output lacks, as in names of files, by their code points."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def log_to_screen() -> None:
    """Show the log of the package on stderr."""
    from rich.logging import RichHandler

    logger = logging.getLogger("mpi_fast")
    logger.addHandler(RichHandler(console=stderr, show_path=False, log_time_format="%H:%M:%S"))
    logger.setLevel(logging.INFO)


def progress_bar(unit: str = "") -> ProgressBar:
    """A progress bar on stderr that disappears when done; without a terminal, a line now and then."""
    return ProgressBar(stderr, unit)


def spinner(message: str) -> Progress:
    """Show an activity of unknown duration: ``with spinner("calibrating"): ...``."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )
    progress.add_task(message, total=None)
    return progress


@contextmanager
def stages() -> Iterator[Callable[[str, float | None], None]]:
    """A progress bar for each stage of a long activity: ``with stages() as report: report("basis", 0.5)``.

    A share of None means a stage of unknown duration.
    """
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bars:

        def report(stage: str, share: float | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=None)
            if share is not None:
                bars.update(tasks[stage], total=1.0, completed=share)

        yield report


def check_outputs(*outputs: Path | None, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse outputs that could not be written, or would replace an input, before any work is done."""
    seen = {os.path.realpath(path) for path in inputs}
    for path in outputs:
        if path is None:
            continue
        folder = check_target(path).parent
        if not os.access(folder, os.W_OK):
            raise InputError(f"{path}: cannot be written: no permission to write in {folder}")
        if os.path.realpath(path) in seen:
            raise InputError(f"{path}: is an input or another output of this command; not replaced")
        seen.add(os.path.realpath(path))


def facts_table(title: str, facts: Mapping[str, Any]) -> Table:
    """A table of names and values, one pair per line."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name, str(value), style=None)
    return table


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write results to a file, which appears when it is complete. NaN and infinities become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Convert NumPy's and our own types to JSON types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int | str | None) else str(value)
