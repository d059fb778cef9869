"""Options that several commands share, and parsers of option values."""

import math
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from mpi_fast.errors import InputError
from mpi_fast.limits import LARGEST_GRID, LIMITS, MOST_EVALUATIONS, MOST_THREADS

LARGEST = 10**9  # whole number that options take, unless they have a limit of their own
# Headings of the help for rarely needed options.
ARRAYS, NETWORK, UNTRUSTED = "MATLAB and NumPy arrays", "Network and machine", "Untrusted files"

JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the printed results to this file.")]
Model = Annotated[str, typer.Option(help="Model: the folder of a bundle, or default.", rich_help_panel=NETWORK)]
Evaluations = Annotated[
    int,
    typer.Option(min=1, max=MOST_EVALUATIONS, help="Network evaluations for each frame.", rich_help_panel=NETWORK),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1, max=MOST_THREADS, show_default="all cores", help="Threads of the network.", rich_help_panel=NETWORK
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=NETWORK)]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine", help="Engine that evaluates the network: auto, onnx or tensorrt.", rich_help_panel=NETWORK
    ),
]
External = Annotated[
    bool,
    typer.Option(
        "--external", help="Follow links and references to files in other folders.", rich_help_panel=UNTRUSTED
    ),
]
Untrusted = Annotated[
    bool,
    typer.Option(
        "--untrusted",
        help="First read the files in a child process with limited time and memory.",
        rich_help_panel=UNTRUSTED,
    ),
]
Workers = Annotated[
    int, typer.Option(min=1, max=1024, help="Number of processes that share the frames.", rich_help_panel=NETWORK)
]
OnCluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="auto|ADDRESS", help="Distribute the frames over a Ray cluster.", rich_help_panel=NETWORK
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=LIMITS["seed"], help="Seed of all random numbers.")]
Plane = Annotated[str | None, typer.Option(metavar="AXIS=N", help="Plane of a 3D matrix, such as z=9, counted from 0.")]
Region = Annotated[
    list[str] | None,
    typer.Option("--region", metavar="NAME=X0:X1,Y0:Y1", help="Region for a .csv: a box in mm, or a file of labels."),
]

Variable = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Variable to use if a file has several.", rich_help_panel=ARRAYS),
]
Empty = Annotated[
    str | None,
    typer.Option(
        metavar="N,N", help="Numbers of frames without a sample, which are subtracted.", rich_help_panel=ARRAYS
    ),
]
Axis = Annotated[
    int | None,
    typer.Option(
        min=0,
        show_default="found by its length",
        help="The axis of voxels or frames, from 0.",
        rich_help_panel=ARRAYS,
    ),
]


def whole_number(text: str, smallest: int = 0, largest: int = LARGEST) -> int | None:
    """``12`` -> 12; None for a text that is no whole number in this range. Python refuses to read very long ones."""
    number = int(text) if re.fullmatch(r"\s*\d{1,18}\s*", text, re.ASCII) else -1
    return number if smallest <= number <= largest else None


def parse_plane(text: str | None) -> tuple[str, int] | None:
    """``z=9`` -> ("z", 9)."""
    if text is None:
        return None
    axis, _, index = text.strip().partition("=")
    number = whole_number(index)
    if axis not in ("x", "y", "z") or number is None:
        raise InputError(f"--plane {text}: expected an axis and a number from 0, such as z=9")
    return axis, number


def parse_range(text: str | None, option: str) -> slice:
    """``10:20`` -> slice(10, 20); both ends are optional; ``7`` is one item; None selects all."""
    if text is None:
        return slice(None)
    first, colon, last = text.strip().partition(":")
    start, stop = whole_number(first or "0"), whole_number(last or "0")
    if start is None or stop is None or not (first or colon):
        raise InputError(f"{option} {text}: expected a range such as 0:100, 5: or 7, up to {LARGEST}")
    if not colon:
        return slice(start, start + 1)
    if last and stop <= start:
        raise InputError(f"{option} {text}: an empty range; the end is not included")
    return slice(start, stop if last else None)


def parse_grid(text: str, axes: Container[int] = (2, 3)) -> tuple[int, ...]:
    """``19x21`` -> (19, 21) rows and columns; ``19x21x23`` -> (19, 21, 23) planes, rows and columns."""
    sizes = re.split("[x,]", text.strip())
    grid = tuple(size for size in (whole_number(one, 1, LARGEST_GRID) for one in sizes) if size is not None)
    if len(grid) != len(sizes) or len(grid) not in axes:
        of_volumes = ", or planes x rows x columns, such as 19x19x19," if 3 in axes else ","
        raise InputError(f"--grid {text}: expected rows x columns, such as 19x19{of_volumes} of at most {LARGEST_GRID}")
    if math.prod(grid) > LARGEST_GRID**2:
        raise InputError(f"--grid {text}: {math.prod(grid)} voxels; at most {LARGEST_GRID**2} were expected")
    return grid


def parse_integers(text: str | None, option: str, smallest: int = 0, largest: int = LARGEST) -> list[int] | None:
    """``0,1`` -> [0, 1]."""
    if text is None:
        return None
    items = text.split(",")
    numbers = [number for number in (whole_number(item, smallest, largest) for item in items) if number is not None]
    if len(numbers) != len(items):
        raise InputError(f"{option} {text}: expected whole numbers from {smallest} to {largest}, with commas between")
    return numbers


def parse_numbers(text: str, option: str, axes: int = 2) -> tuple[float, ...]:
    """``12`` -> (12.0, 12.0) and ``12,14`` -> (12.0, 14.0): along x and y; with three ``axes``, z as well."""
    try:
        values = [float(item) for item in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, axes):
        several = "three for x, y and z, such as 12,14,10" if axes == 3 else "two for x and y, such as 12,14"
        raise InputError(f"{option} {text}: expected one number, or {several}")
    return tuple(values) if len(values) == axes else tuple(values) * axes


def with_commas(arguments: Iterable[str], options: Container[str]) -> list[str]:
    """``--snr 5 15 25 --seed 1`` -> ``--snr 5,15,25 --seed 1``, for list options."""
    joined: list[str] = []
    values: int | None = None  # number of values so far of the current list option
    for argument in arguments:
        is_value = not argument.startswith("-") or re.fullmatch(r"-[\d.][\d.,-]*", argument)
        if values is not None and is_value:
            joined[-1:] = [f"{joined[-1]},{argument}"] if values else [joined[-1], argument]
            values += 1
        else:
            joined.append(argument)
            values = 0 if argument in options else None
    return joined


def parse_average(text: str) -> int | Literal["all"]:
    """``10`` -> 10, ``all`` -> "all"."""
    if text == "all":
        return "all"
    number = whole_number(text, 1)
    if number is None:
        raise InputError(f"--average {text}: expected a number of frames from 1 to {LARGEST}, or all")
    return number
