"""``mpi-fast train``: train the network, or a network to compare with, from the start or resumed."""

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpi_fast.cli.options import JsonFile, Seed, parse_grid
from mpi_fast.console import check_outputs, console, facts_table, friendly, stderr, write_json
from mpi_fast.errors import InputError
from mpi_fast.optional import optional

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from mpi_fast.training.loop import Progress


def train(
    minutes: Annotated[float, typer.Option(help="Minutes of training, over all resumed runs.")],
    finish: Annotated[
        float, typer.Option(min=0, help="How many of the last minutes have a falling learning rate.")
    ] = 0.0,
    output: Annotated[Path, typer.Option("-o", "--output", help="Checkpoint to write.")] = Path("model.pt"),
    method: Annotated[
        str, typer.Option(help="posterior (our network), or dernet or deq to compare with.")
    ] = "posterior",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    grid: Annotated[
        str | None,
        typer.Option(show_default="19x19", help="Grid of dernet and deq; posterior serves any grid."),
    ] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    scanners: Annotated[
        int | None, typer.Option(min=1, max=100_000, show_default="256", help="Random scanners for dernet and deq.")
    ] = None,
    phantoms: Annotated[
        int | None, typer.Option(min=1, max=10**7, show_default="60000", help="Random phantoms for dernet and deq.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(show_default="that of the method", help="Largest learning rate.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Train a network on simulated scanners; needs PyTorch, which the extra "train" installs."""
    with friendly():
        if not minutes > 0:
            raise InputError(f"--minutes {minutes}: expected a positive number")
        if learning_rate is not None and not 0 < learning_rate < math.inf:
            raise InputError(f"--learning-rate {learning_rate}: expected a positive number")
        check_outputs(output, json_file)
        given = {"grid": grid and parse_grid(grid, axes=(2,)), "scanners": scanners, "phantoms": phantoms}
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if min(chosen.get("grid", (2,))) < 2:
            raise InputError(f"--grid {grid}: expected at least 2 x 2 voxels")
        with optional("training needs torch: pip install 'mpi-fast[train]'"):
            from mpi_fast.training.config import TrainingConfig
            from mpi_fast.training.loop import Progress
            from mpi_fast.training.loop import train as run
            from mpi_fast.training.recipes import RECIPES

        if method not in RECIPES:
            raise InputError(f"--method {method}: expected one of {', '.join(RECIPES)}")
        if chosen and RECIPES[method].open_ended:
            raise InputError(
                f"--{next(iter(chosen))}: {method} is trained on scanners and phantoms of many grids at once"
            )
        if finish and not RECIPES[method].open_ended:
            raise InputError(f"--finish: the learning rate of {method} falls by itself until the last of its minutes")
        network = RECIPES[method].config()
        config = TrainingConfig(
            minutes=minutes, finish=finish, learning_rate=learning_rate, seed=seed, network=network, **chosen
        )
        last: list[Progress] = []
        with _bar() as bar:
            task = bar.add_task("simulating scanners, drawing phantoms", total=None)
            run(config, output, device=device, resume=resume, report=partial(_show, bar, task, 60 * minutes, last))
        for state in last:
            facts = {"steps": state.step, "loss": f"{state.loss:.4g}", "minutes": f"{state.seconds / 60:.2f}"}
            console.print(facts_table("trained", facts))
        export = "mpi_fast.export" if method == "posterior" else "mpi_fast.export.learned"
        console.print(f"wrote {output}; to deploy it: python -m {export} {output}", soft_wrap=True)
        if json_file:
            write_json(json_file, {"written": output, **(vars(last[-1]) if last else {})})


def _bar() -> "Bar":
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def _show(bar: "Bar", task: int, total: float, last: "list[Progress]", progress: "Progress") -> None:
    from rich.progress import TaskID

    last[:] = [progress]
    text = f"step {progress.step}, loss {progress.loss:.4f}"
    bar.update(TaskID(task), description=text, total=total, completed=progress.seconds)
