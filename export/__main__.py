"""``python -m mpi_fast.export model.pt [-o BUNDLE]``: a checkpoint becomes a bundle, proven equal or not written."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mpi_fast.bundle import Bundle, write_bundle
from mpi_fast.console import console, friendly, write_json


def export(
    checkpoint: Annotated[Path, typer.Argument(help="model.pt, as mpi-fast train writes it.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Bundle to write [default: the name less .pt].")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what the screen shows to this file.")] = None,
) -> None:
    """Export a trained network to ONNX, compare it with the original, and write a bundle if they agree."""
    with friendly():
        bundle, parity = make_bundle(checkpoint, output or checkpoint.with_suffix(""))
        table = Table("compared on", "relative difference", title=f"{bundle.path}: parity with {checkpoint.name}")
        for row in parity:
            table.add_row(str(row["what"]), f"{row['relative']:.1e}")
        console.print(table)
        sizes = {name: entry["bytes"] for name, entry in bundle.manifest["files"].items()}
        console.print(
            f"wrote {bundle.path}: " + ", ".join(f"{name} {size / 2**20:.1f} MB" for name, size in sizes.items())
        )
        if json_file:
            write_json(json_file, bundle.manifest)


def make_bundle(checkpoint_file: Path, output: Path) -> tuple[Bundle, list[dict[str, str | float]]]:
    """Export a checkpoint; see `parity.compare` for what makes it fail, in which case nothing is written."""
    from mpi_fast.errors import MPIFastError

    try:
        from mpi_fast.export.onnx import encoder_onnx, score_onnx
        from mpi_fast.export.parity import compare
        from mpi_fast.training.checkpoint import load_checkpoint
    except ImportError as error:
        raise MPIFastError(
            f"export needs torch, onnx and onnxscript: pip install 'mpi-fast[train]' ({error})"
        ) from error

    checkpoint = load_checkpoint(checkpoint_file)
    contents = {"encoder.onnx": encoder_onnx(checkpoint), "score.onnx": score_onnx(checkpoint)}
    manifest = {
        "grid": list(checkpoint.grid),
        "sigma_range": list(checkpoint.sigma_range),
        "parameters": sum(p.numel() for p in checkpoint.network.parameters()),
        "network": checkpoint.network.config.to_dict(),
        "provenance": checkpoint.provenance,
    }
    with tempfile.TemporaryDirectory() as folder:  # the comparison runs what a user will run: a bundle on disk
        trial = write_bundle(Path(folder) / "trial", manifest, contents)
        parity = [one.to_dict() for one in compare(checkpoint, trial)]
    return write_bundle(output, {**manifest, "parity": parity}, contents), parity


if __name__ == "__main__":
    typer.run(export)
