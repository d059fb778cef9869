"""``mpi-fast info``: describe this installation, or files."""

import zipfile
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from mpi_fast.bundle import packaged
from mpi_fast.cli.array_input import SUFFIXES
from mpi_fast.cli.options import External, JsonFile, Untrusted
from mpi_fast.console import check_outputs, console, facts_table, friendly, write_json
from mpi_fast.description import described
from mpi_fast.errors import FileFormatError, InputError, ModelError
from mpi_fast.grids import shown
from mpi_fast.machine import machine
from mpi_fast.summary import counted

if TYPE_CHECKING:
    from mpi_fast.calibration import Calibration
    from mpi_fast.mdf import MeasurementFile, SystemMatrixFile


def info(
    files: Annotated[
        list[Path] | None, typer.Argument(help="MDF files, arrays, saved calibrations, bundles, checkpoints.")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", help="Picture of the resolution of a calibration.")] = None,
    quality: Annotated[
        bool,
        typer.Option("--quality/--no-quality", help="Simulate frames of a calibration to predict image quality."),
    ] = True,
    json_file: JsonFile = None,
    external: External = False,
    untrusted: Untrusted = False,
) -> None:
    """Show versions, hardware and the default model, or describe files; for calibrations, also the resolution."""
    from mpi_fast.mdf import access

    with friendly(), access(external=external, untrusted=untrusted):
        check_outputs(png, json_file, inputs=tuple(files or ()))
        if png:
            from mpi_fast import plots

            plots.require(png)
        facts: dict[str, dict[str, Any]] = {}
        outlooks = []
        for path in files or ():
            calibration = _saved(path)
            facts[str(path)] = about(path) if calibration is None else _calibration(calibration)
            console.print(facts_table(str(path), facts[str(path)]))
            if calibration is not None:
                from mpi_fast.cli.outlook import Outlook

                outlooks.append(Outlook.of(calibration, quality))
                facts[str(path)] |= outlooks[-1].facts()
                for table in outlooks[-1].tables(str(path)):
                    console.print(table)
        if png:
            if len(outlooks) != 1:
                raise InputError(f"--png: a picture of one saved calibration; {len(outlooks)} are among these files")
            plots.save(outlooks[0].figure(), png)
            console.print(f"wrote {png}", soft_wrap=True)
        if not files:
            facts = {"this machine": machine(), "the package's model": _packaged()}
            for title, content in facts.items():
                console.print(facts_table(title, content))
        if json_file:
            write_json(json_file, facts)


def about(path: Path) -> dict[str, Any]:
    """Describe a file or folder and its contents.

    Raises
    ------
    FileFormatError, ModelError
        If its kind is unknown, or if it is damaged.
    """
    if path.suffix.lower() in SUFFIXES:
        return _arrays(path)
    from mpi_fast.formats import only_written

    if only_written(path):
        raise FileFormatError(
            f"{path}: such files are written, but not read: the .mdf file that it was made of has all that it holds"
        )
    if path.is_dir():
        return _bundle(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return _checkpoint(path)
    from mpi_fast.calibration_file import is_calibration
    from mpi_fast.mdf import Datasets

    if is_calibration(path):
        from mpi_fast.calibration import Calibration

        return _calibration(Calibration.load(path))
    with closing(Datasets(path)) as datasets:
        kind = next((name for name in _READERS if datasets.has(name)), None)
    return _arrays(path) if kind is None else _READERS[kind](path)


def _arrays(path: Path) -> dict[str, Any]:
    """Describe a file of MATLAB or NumPy, or HDF5 that is neither MDF nor a calibration."""
    from mpi_fast.arrays import contents

    variables = contents(path)
    if not variables:
        raise FileFormatError(f"{path}: holds no arrays, and is neither MDF nor a calibration")
    return {"kind": "arrays, for calibrate --grid or reconstruct", **variables}


def _packaged() -> dict[str, Any]:
    try:
        return _bundle(packaged())
    except ModelError as error:
        return {"missing": str(error)}


def _bundle(path: Path | str) -> dict[str, Any]:
    from mpi_fast.bundle import Bundle
    from mpi_fast.tensorrt_library import listed

    bundle = Bundle.open(path)
    sizes = {name: f"{len(bundle.read(name)) / 2**20:.2f} MiB, hash checked" for name in bundle.manifest["files"]}
    try:
        described = _described(bundle.manifest)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{bundle.path}: the manifest's description of the files is damaged: {error!r}") from error
    return {
        "kind": "model bundle",
        "path": str(bundle.path),
        "noise levels": f"{bundle.sigma_range[0]:g} to {bundle.sigma_range[1]:g}",
        "TensorRT engines": "\n".join(str(one) for one in listed(bundle)) or "none",
        **sizes,
        **described,
    }


def _described(manifest: dict[str, Any]) -> dict[str, Any]:
    """Facts of a manifest about its files, beyond those checked when a bundle is opened."""
    parity = manifest.get("parity", ())
    return {
        "parameters": manifest.get("parameters", "unknown"),
        "precision": "fp32, fp16" if any(".fp16." in name for name in manifest["files"]) else "fp32",
        "frozen for one scanner": "\n".join(_graph(one) for one in manifest.get("frozen", ())) or "none",
        **{f"cost: {name}": _cost(one) for name, one in manifest.get("statistics", {}).items()},
        **{f"difference from its checkpoint: {name}": _worst(rows) for name, rows in _by_artefact(parity).items()},
        **{f"provenance: {name}": value for name, value in manifest.get("provenance", {}).items()},
    }


def _graph(entry: dict[str, Any]) -> str:
    return f"{entry['file']}, {entry['source']}: {entry['rows']} rows, rank {entry['rank']}"


def _cost(entry: dict[str, Any]) -> str:
    """Cost of one frame, as a text."""
    return (
        f"of {entry['of']}: {entry['nodes']} operators ({entry['nodes_before']} before simplification), "
        f"{entry['parameters']} parameters, "
        f"{entry['flops'] / 1e6:.4g} MFLOP, {entry['activation_bytes'] / 2**20:.2f} MiB of activations"
    )


def _by_artefact(parity: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in parity:
        rows.setdefault(one["artefact"], []).append(one)
    return rows


def _worst(rows: Sequence[dict[str, Any]]) -> str:
    """Largest difference over all comparisons of one artefact, and its effect on images."""
    changes = [one["psnr_change_db"] for one in rows if one.get("psnr_change_db") is not None]
    images = f", images {min(changes):+.4f} dB PSNR" if changes else ""
    return f"{max(float(one['relative']) for one in rows):.2g} relative{images}"


def _checkpoint(path: Path) -> dict[str, Any]:
    """Describe a PyTorch checkpoint, a zip archive that is checked but not unpickled here."""
    from mpi_fast.training.archive import read_archive

    size = len(read_archive(path)[0])
    return {
        "kind": "checkpoint of a network (torch)",
        "size": f"{size / 2**20:.2f} MiB, CRCs checked",
        "to use it": f"python -m mpi_fast.export {path}, then --model {path.with_suffix('')}",
    }


def _saved(path: Path) -> "Calibration | None":
    """The calibration in a file, if it is a saved one."""
    import h5py

    if path.suffix.lower() in SUFFIXES or not (path.is_file() and h5py.is_hdf5(path)):
        return None
    from mpi_fast.calibration import Calibration
    from mpi_fast.calibration_file import is_calibration

    return Calibration.load(path) if is_calibration(path) else None


def _calibration(calibration: "Calibration") -> dict[str, Any]:
    facts = {f"fact: {name}": value for name, value in calibration.facts.items()}
    return {"kind": "calibration saved by mpi-fast", **described(calibration), **facts}


def _reconstruction(path: Path) -> dict[str, Any]:
    from mpi_fast.formats import Series

    with Series.open(path) as series:
        largest = [float(np.nanmax(series.image[part], initial=0.0)) for part in series.chunks()]
        flags = series.found.get("flags")
        return {
            "kind": "MDF reconstruction",
            "images": f"{len(series)} of {shown(series.grid.shape)} voxels",
            "largest value": f"{max(largest, default=0.0):.4g}",
            "flagged frames": "not stored" if flags is None else counted(flags.tolist()),
            **_deviations(path),
        }


def _system_matrix(path: Path) -> dict[str, Any]:
    from mpi_fast.mdf import SystemMatrixFile

    with SystemMatrixFile(path) as file:
        return {
            "kind": "MDF system matrix",
            "grid": "{} x {} x {} voxels".format(*file.size),
            "field of view": "{:.4g} x {:.4g} x {:.4g} mm".format(*(1e3 * size for size in file.volume_extent)),
            "order of voxels": file.voxel_order,
            "background frames": len(file.background_index),
            "SNR of the rows": "not stored" if file.snr is None else f"stored, best {file.snr.max():.4g}",
            **_signals(file),
        }


def _measurement(path: Path) -> dict[str, Any]:
    from mpi_fast.mdf import MeasurementFile

    with MeasurementFile(path) as file:
        frames = {"frames": file.num_frames, "background frames": file.num_background_frames}
        return {"kind": "MDF measurement", **frames, **_signals(file)}


def _signals(file: "SystemMatrixFile | MeasurementFile") -> dict[str, Any]:
    """Facts that system matrices and measurements share."""
    acquisition = file.acquisition
    strength = acquisition.strength.reshape(len(acquisition.strength), -1)[0]
    tones = zip(strength, acquisition.divider.reshape(-1), strict=True)
    drive = (f"{1e3 * s:.4g} mT at {acquisition.base_frequency / d / 1e3:.5g} kHz" for s, d in tones if d)
    stored, highest = len(file.frequency_index), acquisition.bandwidth / 1e6
    return {
        "periods per frame": acquisition.periods_per_frame,
        "averages": acquisition.num_averages,
        "receive channels": acquisition.num_channels,
        "samples per period": acquisition.num_samples,
        "frequencies": f"{stored} stored of {acquisition.num_frequencies}, up to {highest:.4g} MHz",
        "drive fields": ", ".join(drive),
        "period": f"{1e6 * acquisition.cycle:.5g} us",
        "background corrected": file.background_corrected,
        "transfer function corrected": file.transfer_function_corrected,
        "scale": file.scale.reason,
        "odd": "\n".join(file.notes) or "nothing",
        **_deviations(file.path),
    }


def _deviations(path: Path) -> dict[str, Any]:
    from mpi_fast.mdf import validate

    return {"deviations from MDF v2.1": "\n".join(validate(path)) or "none"}


# The first of these datasets in a file determines its kind.
_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "/reconstruction/data": _reconstruction,
    "/calibration/size": _system_matrix,
    "/measurement/data": _measurement,
}
