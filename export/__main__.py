"""``python -m mpi_fast.export model.pt [-o BUNDLE]``: export a checkpoint as a bundle, if it equals the original.

``default`` instead of a file is the checkpoint of the package. If a bundle is given instead of a checkpoint, graphs are
added to it. ``--tensorrt`` adds TensorRT engines; for an existing bundle this does not need PyTorch. Existing contents
of a bundle of the same checkpoint are kept, unless they are made anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mpi_fast.bundle import PACKAGED, Bundle
from mpi_fast.console import check_outputs, console, friendly, progress_bar, spinner, write_json
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.tensorrt_library import capability_name, listed

PRECISIONS = ("fp32", "fp16")


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=f"model.pt, as mpi-fast train writes it; or {PACKAGED}, the checkpoint that comes with the package; "
            "or a bundle, to which --precision, --calibration and --tensorrt add graphs and engines.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", show_default="its name without .pt", help="Bundle to write.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision inside the graphs: fp32, or fp32,fp16 for both.")] = "fp32",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Also freeze this scanner (by mpi-fast calibrate): a graph from selected rows to images."),
    ] = None,
    triton: Annotated[
        Path | None, typer.Option(help="Also write a model repository for NVIDIA Triton here; needs --calibration.")
    ] = None,
    tensorrt: Annotated[bool, typer.Option("--tensorrt", help="Also build TensorRT engines.")] = False,
    sm: Annotated[
        str,
        typer.Option(show_default="that of the GPU here", help="Compute capabilities to build for, such as 89,120."),
    ] = "",
    batch: Annotated[str, typer.Option(help="Batches of frames to build them for.")] = "1,8,64",
    tf32: Annotated[bool, typer.Option(help="Allow them to round float32 products to TF32.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what the screen shows to this file.")] = None,
) -> None:
    """Export a trained network to ONNX, compare it with the original, and write a bundle if they agree."""
    with friendly():
        checkpoint = Bundle.open(model).checkpoint() if model == PACKAGED else Path(model)
        check_outputs(json_file, inputs=(checkpoint, *([calibration] if calibration else [])))
        names = tuple(precision.split(","))
        if "fp32" not in names or not set(names) <= set(PRECISIONS):
            raise InputError(f"precision '{precision}': expected fp32 or fp32,fp16")
        if triton and not calibration:
            raise InputError("--triton writes the model of one scanner: it needs --calibration")
        engines = chosen_engines(sm, batch, tf32) if tensorrt else None
        adding, graphs = checkpoint.is_dir(), bool(calibration) or "fp16" in names
        if adding and output:
            raise InputError(f"-o {output}: not possible for a bundle: the export is added to {checkpoint} itself")
        if adding and not (engines or graphs):
            raise InputError(f"{checkpoint} is a bundle: expected --calibration, --precision fp32,fp16 or --tensorrt")
        if adding and not graphs:
            bundle = Bundle.open(checkpoint)
        else:
            with spinner("exporting and comparing"):
                bundle = make_bundle(
                    Bundle.open(checkpoint).checkpoint() if adding else checkpoint,
                    checkpoint if adding else output or Path(model).with_suffix(""),
                    precision=names,
                    calibration_file=calibration,
                    triton=triton,
                    only_missing=adding,
                )
        if engines:
            bundle = engines(bundle)
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
    triton: Path | None = None,
    only_missing: bool = False,
) -> Bundle:
    """Export a checkpoint; if a check of `parity` fails, nothing is written.

    Parameters
    ----------
    checkpoint_file, output : Path
        ``model.pt``, and the bundle to write.
    precision : tuple of str
        Precisions inside the graphs: ``fp32``, and optionally ``fp16``.
    calibration_file : Path, optional
        Saved calibration for a frozen graph.
    triton : Path, optional
        Triton model repository to write, for the calibration.
    only_missing : bool
        Keep existing graphs for every calibration.

    Raises
    ------
    MPIFastError
        If PyTorch is not installed, a file is invalid, or an artefact does not equal the original.
    """
    try:
        from mpi_fast.export.building import Request, build
    except ImportError as error:
        raise MPIFastError(
            f"export needs torch, onnx and onnxscript: pip install 'mpi-fast[train]' ({error})"
        ) from error
    return build(Request(checkpoint_file, output, precision, calibration_file, triton, only_missing))


def chosen_engines(sm: str, batch: str, tf32: bool) -> Callable[[Bundle], Bundle]:
    """A function that adds engines to a bundle, with a progress bar. Refuses impossible options before the export.

    Raises
    ------
    InputError
        For capabilities that are not numbers or that no installed TensorRT supports, and for batches that are not
        positive.
    MPIFastError
        If TensorRT or onnx is not installed.
    """
    capabilities, batches = _numbers("--sm", sm), _numbers("--batch", batch)
    if not batches:
        raise InputError("--batch is empty: expected positive numbers, such as 1,8,64")
    try:
        from mpi_fast.export.tensorrt import add_engines, choose, sources
    except ImportError as error:
        raise MPIFastError(f"building engines needs onnx: pip install onnx ({error})") from error
    trt, wanted = choose(capabilities)

    def add(bundle: Bundle) -> Bundle:
        with progress_bar("engines") as progress:
            task = progress.add_task("", total=len(sources(bundle)) * len(wanted))
            finished: list[str] = []

            def watch(file: str, done: int, total: int) -> None:
                if file not in finished:
                    finished.append(file)
                progress.update(task, description=file, completed=len(finished) - 1 + done / total)

            return add_engines(bundle, trt, wanted, batches, tf32, watch)

    return add


def _numbers(option: str, text: str) -> tuple[int, ...]:
    """Numbers of a list such as 1,8,64, sorted and without duplicates."""
    try:
        numbers = sorted({int(one) for one in text.split(",") if one})
    except ValueError:
        numbers = [0]
    if any(number < 1 for number in numbers):
        raise InputError(f"{option} {text}: expected positive numbers, separated by commas")
    return tuple(numbers)


def tables(bundle: Bundle) -> list[Table]:
    """Parity, statistics and engines of a bundle, for the screen."""
    statistics = bundle.manifest.get("statistics", {})
    parity = Table("artefact", "compared on", "largest", "relative", "PSNR", "allowed", title=f"{bundle.path}: parity")
    for row in bundle.manifest.get("parity", ()):
        change = row.get("psnr_change_db")
        psnr = "" if change is None else f"{change:+.4f} dB"
        parity.add_row(
            row["artefact"], row["what"], f"{row['largest']:.1e}", f"{row['relative']:.1e}", psnr, row["allowed"]
        )
    costs = Table("file", "MiB", "nodes", "parameters", "MFLOP", "activations", title="per frame")
    for name, cost in statistics.items():
        costs.add_row(
            name,
            f"{bundle.manifest['files'][name]['bytes'] / 2**20:.2f}",
            f"{cost['nodes_before']} -> {cost['nodes']}",
            f"{cost['parameters']}",
            f"{cost['flops'] / 1e6:.4g}",
            f"{cost['activation_bytes'] / 2**20:.2f} MiB",
        )
    engines = Table("engine", "TensorRT", "GPU", "precision", "batches", "layers", "scratch", title="engines")
    for facts in listed(bundle):
        engines.add_row(
            facts.file,
            f"{facts.package} {facts.version}",
            capability_name(facts.capability),
            facts.precision + (", TF32" if facts.tf32 else ""),
            "\n".join(map(str, facts.batches)),
            "\n".join(str(sum(layers.values())) for layers in facts.layers),
            "\n".join(f"{size / 2**20:.0f} MiB" for size in facts.workspace),
        )
    operators = Table("file", "operators", title="operators")
    for name, cost in statistics.items():
        operators.add_row(name, ", ".join(f"{count} {kind}" for kind, count in cost["operators"].items()))
    return [parity, costs, operators, *([engines] if engines.rows else [])]


if __name__ == "__main__":
    typer.run(export)
