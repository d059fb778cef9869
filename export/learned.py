"""``python -m mpi_fast.export.learned dernet.pt``: export a learned method as one ONNX file."""

from pathlib import Path
from typing import Annotated

import typer

from mpi_fast.atomic import atomic_path
from mpi_fast.console import check_outputs, console, friendly
from mpi_fast.errors import MPIFastError


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of mpi-fast train --method dernet or deq.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", show_default="the name with .onnx", help="File to write.")
    ] = None,
) -> None:
    """Export a learned method, if it equals the original; needs torch and onnx, of the extra "train"."""
    with friendly():
        path = output or checkpoint.with_suffix(".onnx")
        check_outputs(path, inputs=(checkpoint,))
        try:
            from mpi_fast.export.learned_onnx import learned_onnx
            from mpi_fast.training.checkpoint import load_trained
        except ImportError as error:
            raise MPIFastError(
                f"export needs torch, onnx and onnxscript: pip install 'mpi-fast[train]' ({error})"
            ) from error
        content = learned_onnx(load_trained(checkpoint))
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(content)
        console.print(f"wrote {path}: {len(content) / 2**20:.2f} MB", soft_wrap=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(export)
    app()
