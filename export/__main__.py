"""``python -m mpi_fast.export model.pt [-o BUNDLE]``: a checkpoint becomes a bundle, proven equal or not written."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mpi_fast.bundle import Bundle
from mpi_fast.console import check_outputs, console, friendly, spinner, write_json
from mpi_fast.errors import InputError, MPIFastError

PRECISIONS = ("fp32", "fp16")


def export(
    checkpoint: Annotated[Path, typer.Argument(help="model.pt, as mpi-fast train writes it.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Bundle to write [default: the name less .pt].")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the step network: fp32, or fp32,fp16 for both.")] = "fp32",
    calibration: Annotated[
        Path | None, typer.Option(help="Also freeze this scanner (by mpi-fast calibrate) into a whole-frame graph.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps inside the whole-frame graphs.", min=1)] = 5,
    samples: Annotated[int, typer.Option(help="Samples inside the whole-frame graphs.", min=1)] = 8,
    triton: Annotated[
        Path | None, typer.Option(help="Also write a model repository for NVIDIA Triton here; needs --calibration.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what the screen shows to this file.")] = None,
) -> None:
    """Export a trained network to ONNX, compare it with the original, and write a bundle if they agree."""
    with friendly():
        check_outputs(json_file, inputs=(checkpoint, *([calibration] if calibration else [])))
        names = tuple(precision.split(","))
        if "fp32" not in names or not set(names) <= set(PRECISIONS):
            raise InputError(f"precision '{precision}': expected fp32 or fp32,fp16")
        if triton and not calibration:
            raise InputError("--triton serves one scanner: it needs --calibration")
        with spinner("exporting and comparing"):
            bundle = make_bundle(
                checkpoint,
                output or checkpoint.with_suffix(""),
                precision=names,
                calibration_file=calibration,
                steps=steps,
                samples=samples,
                triton=triton,
            )
        for table in tables(bundle):
            console.print(table)
        console.print(f"wrote {bundle.path}" + (f" and {triton}" if triton else ""))
        if json_file:
            write_json(json_file, bundle.manifest)


def make_bundle(
    checkpoint_file: Path,
    output: Path,
    *,
    precision: tuple[str, ...] = ("fp32",),
    calibration_file: Path | None = None,
    steps: int = 5,
    samples: int = 8,
    triton: Path | None = None,
) -> Bundle:
    """Export a checkpoint; see `parity.compare` for what makes it fail, in which case nothing is written.

    Parameters
    ----------
    checkpoint_file, output : Path
        ``model.pt``, and the bundle to write.
    precision : tuple of str
        Of the step network: ``fp32``, and ``fp16`` if wanted.
    calibration_file : Path, optional
        Saved calibration to freeze into a graph of its own.
    steps, samples : int
        Of the whole-frame graphs.
    triton : Path, optional
        Triton model repository to write, for the calibration.

    Raises
    ------
    MPIFastError
        When torch is not installed, a file is no good, or an artefact is not equal to the original.
    """
    try:
        from mpi_fast.export.artefacts import Request, build
    except ImportError as error:
        raise MPIFastError(
            f"export needs torch, onnx and onnxscript: pip install 'mpi-fast[train]' ({error})"
        ) from error
    return build(Request(checkpoint_file, output, precision, calibration_file, steps, samples, triton))


def tables(bundle: Bundle) -> list[Table]:
    """Parity and statistics of a bundle, for the screen."""
    parity = Table("artefact", "compared on", "largest", "relative", "PSNR", "allowed", title=f"{bundle.path}: parity")
    for row in bundle.manifest["parity"]:
        change = row["psnr_change_db"]
        psnr = "" if change is None else f"{change:+.4f} dB"
        parity.add_row(
            row["artefact"], row["what"], f"{row['largest']:.1e}", f"{row['relative']:.1e}", psnr, row["allowed"]
        )
    costs = Table("file", "MiB", "nodes", "parameters", "MFLOP", "activations", title="per image or frame")
    for name, entry in bundle.manifest["files"].items():
        cost = bundle.manifest["statistics"].get(name, {})
        costs.add_row(
            name,
            f"{entry['bytes'] / 2**20:.2f}",
            f"{cost['nodes_before']} -> {cost['nodes']}",
            f"{cost['parameters']}",
            f"{cost['flops'] / 1e6:.4g}",
            f"{cost['activation_bytes'] / 2**20:.2f} MiB",
        )
    operators = Table("file", "operators", title="operators")
    for name, cost in bundle.manifest["statistics"].items():
        operators.add_row(name, ", ".join(f"{count} {kind}" for kind, count in cost["operators"].items()))
    return [parity, costs, operators]


if __name__ == "__main__":
    typer.run(export)
