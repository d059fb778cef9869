"""Options that several commands share, and parsers of option values."""

import math
import re
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from mpi_fast.errors import InputError
from mpi_fast.limits import LARGEST_GRID, LIMITS, MOST_EVALUATIONS

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
    typer.Option(min=1, max=1024, show_default="all cores", help="Threads of the network.", rich_help_panel=NETWORK),
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


def parse_plane(text: str | None) -> tuple[str, int] | None:
    """``z=9`` -> ("z", 9)."""
    if text is None:
        return None
    match = re.fullmatch(r"([xyz])=(\d+)", text.strip())
    if not match:
        raise InputError(f"--plane {text}: expected an axis and a number from 0, such as z=9")
    return match[1], int(match[2])


def parse_range(text: str | None, option: str) -> slice:
    """``10:20`` -> slice(10, 20); both ends are optional; ``7`` is one item; None selects all."""
    if text is None:
        return slice(None)
    match = re.fullmatch(r"(\d*)(:?)(\d*)", text.strip())
    if not match or not (match[1] or match[2]):
        raise InputError(f"{option} {text}: expected a range such as 0:100, 5: or 7")
    start = int(match[1] or 0)
    if not match[2]:
        return slice(start, start + 1)
    stop = int(match[3]) if match[3] else None
    if stop is not None and stop <= start:
        raise InputError(f"{option} {text}: an empty range; the end is not included")
    return slice(start, stop)


def parse_grid(text: str, axes: Container[int] = (2, 3)) -> tuple[int, ...]:
    """``19x21`` -> (19, 21) rows and columns; ``19x21x23`` -> (19, 21, 23) planes, rows and columns."""
    sizes = re.split("[x,]", text.strip())
    grid = tuple(int(size) for size in sizes if re.fullmatch(r"\d{1,4}", size, re.ASCII))
    if len(grid) != len(sizes) or len(grid) not in axes or not 1 <= min(grid) <= max(grid) <= LARGEST_GRID:
        of_volumes = ", or planes x rows x columns, such as 19x19x19," if 3 in axes else ","
        raise InputError(f"--grid {text}: expected rows x columns, such as 19x19{of_volumes} of at most {LARGEST_GRID}")
    if math.prod(grid) > LARGEST_GRID**2:
        raise InputError(f"--grid {text}: {math.prod(grid)} voxels; at most {LARGEST_GRID**2} were expected")
    return grid


def parse_integers(text: str | None, option: str, smallest: int = 0, largest: int = 10**9) -> list[int] | None:
    """``0,1`` -> [0, 1]."""
    if text is None:
        return None
    items = [item.strip() for item in text.split(",")]
    if not all(item.isdecimal() and len(item) < 20 and smallest <= int(item) <= largest for item in items):
        raise InputError(f"{option} {text}: expected whole numbers from {smallest} to {largest}, with commas between")
    return [int(item) for item in items]


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
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--average {text}: expected a number of frames from 1, or all")
    return int(text)
