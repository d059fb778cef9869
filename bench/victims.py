"""Small files of every kind that mpi-fast reads, their damage, and the expected results.

`check` raises an error of the package, or returns if all values are plausible. Any other exception is a fault. After
random damage to files of mpi-fast itself, the values read must be those written.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from hypothesis import strategies as st
from mutations import (
    BYTES,
    FOLDER,
    HDF5,
    TREE,
    Step,
    damage_bytes,
    damage_folder,
    damage_hdf5,
    damage_json,
    damage_tree,
)

from mpi_fast.bundle import PLANE, VOLUME, Bundle, sealed, write_bundle
from mpi_fast.calibration import Calibration
from mpi_fast.calibration_file import seal
from mpi_fast.cli.info import about
from mpi_fast.mdf import Acquisition, MeasurementFile, write_measurement, write_system_matrix
from mpi_fast.methods.tikhonov import Tikhonov
from mpi_fast.pairing import MeasuredRows
from mpi_fast.pipelines.graph import Prior
from mpi_fast.preprocessing import RowFilter
from mpi_fast.training.checkpoint import FORMAT, load_trained
from mpi_fast.training.network import PosteriorConfig, PosteriorNetwork

WEIGHTS = b"weights"  # content of the checkpoint of a bundle
GRID, CHANNELS, SAMPLES = (3, 4), 2, 32
CLOSE = 1e-3  # of the largest voxel: an insignificant flipped bit may change an image by this


@dataclass(frozen=True)
class Victim:
    """A kind of file.

    Attributes
    ----------
    build : callable
        Writes such a file into a folder and returns its path.
    steps : strategy
        Draws one step of damage: the name of a function of damage, and a step of `mutations` for it.
    damage : callable
        Applies a step to a path.
    check : callable
        Reads a path and checks the values; its second argument tells whether all damage was to bytes.
    """

    build: Callable[[Path], Path]
    steps: st.SearchStrategy[Step]
    damage: Callable[[Path, Step], None]
    check: Callable[[Path, bool], None]


def named(name: str, steps: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    return steps.map(lambda step: [name, *step])


def same_images(found: Any, expected: Any) -> None:
    error = np.abs(found - expected).max()
    assert error <= CLOSE * np.abs(expected).max(), f"the image is off by {error / np.abs(expected).max():.2g}"


def sane(images: Any) -> None:
    assert images.shape[1:] == GRID, images.shape
    broken = ~np.isfinite(images).reshape(len(images), -1)
    assert (broken.all(axis=1) == broken.any(axis=1)).all(), "an image with NaN in some voxels"
    assert not broken.any(), "an image of NaN, and no error"


# -- MDF --------------------------------------------------------------------------------------------------------------


def acquisition() -> Acquisition:
    return Acquisition(
        base_frequency=2.5e6,
        divider=np.array([[102], [96]]),
        strength=np.full((1, 2, 1), 0.012),
        phase=np.full((1, 2, 1), np.pi / 2),
        gradient=np.diag([-1.0, -1.0, 2.0]),
        bandwidth=SAMPLES / 2 / 652.8e-6,
        num_samples=SAMPLES,
        num_channels=CHANNELS,
        periods_per_frame=1,
        cycle=652.8e-6,
        num_averages=1000,
    )


@cache
def spectra() -> tuple[Any, Any]:
    """Foreground and background of a small matrix."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((2, CHANNELS, SAMPLES // 2 + 1, 12 + 4))
    both = (values[0] + 1j * values[1]).astype(np.complex64)
    return both[..., :12] * 10, both[..., 12:]


def build_matrix(folder: Path) -> Path:
    path = folder / "matrix.mdf"
    foreground, background = spectra()
    write_system_matrix(
        path,
        foreground,
        size=(4, 3, 1),
        field_of_view=(0.04, 0.03, 0.01),
        acquisition=acquisition(),
        background=background,
        background_index=np.array([0, 1, 6, 15]),
        snr=np.full((CHANNELS, SAMPLES // 2 + 1), 9.0),
    )
    return path


@cache
def calibration() -> Calibration:
    foreground, background = spectra()
    frequencies, rows = acquisition().frequencies, RowFilter(min_frequency=0)
    return Calibration.from_arrays(foreground, frequencies, GRID, (0.03, 0.04), background=background, rows=rows)


@cache
def signals() -> Any:
    images = np.random.default_rng(1).uniform(0, 1, (3, 12))
    return (images @ calibration().matrix.T).astype(np.complex64)


def check_matrix(path: Path, only_bytes: bool) -> None:
    found = Calibration.from_mdf(path, min_frequency=0)
    rows = np.resize(signals(), (3, found.num_rows))
    images = Tikhonov(found)(rows).image
    assert images.shape == (3, *found.grid), images.shape
    assert np.isfinite(images).all()
    about(path)


def build_measurement(folder: Path) -> Path:
    path = folder / "measurement.mdf"
    volts = np.random.default_rng(2).standard_normal((5, 1, CHANNELS, SAMPLES)).astype(np.float32)
    write_measurement(path, volts[:3], acquisition=acquisition(), background=volts[3:])
    return path


def check_measurement(path: Path, only_bytes: bool) -> None:
    with MeasurementFile(path) as file:
        rows = MeasuredRows(file, calibration())
        for chunk in rows:
            sane(Tikhonov(calibration())(chunk).image)
    about(path)


# -- files of mpi-fast ------------------------------------------------------------------------------------------------


def build_calibration(folder: Path) -> Path:
    calibration().save(folder / "scanner.h5")
    return folder / "scanner.h5"


def damage_calibration(path: Path, step: Step) -> None:
    if step[0] == "bytes":
        damage_bytes(path, step[1:])
    else:
        damage_hdf5(path, step[2:])
        if step[1]:
            seal(path)


def check_calibration(path: Path, only_bytes: bool) -> None:
    found = Calibration.open(path)
    images = Tikhonov(found)(np.resize(signals(), (3, found.num_rows))).image
    if only_bytes:
        same_images(images, Tikhonov(calibration())(signals()).image)
    assert images.shape == (3, *found.grid)
    assert np.isfinite(images).all()
    about(path)


INPUTS: dict[str, list[Any]] = {
    "y": ["f", "r"],
    "noise": ["f"],
    "singular_values": ["r"],
    "basis": ["z", "y", "x", "r"],
    "noisy": ["f", "z", "y", "x"],
    "precision": ["f"],
}


def identity(inputs: dict[str, list[Any]]) -> bytes:
    """An ONNX model with the inputs of the network; its output is its last input but one, the noisy image."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    given = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
    *_, noisy, precision = inputs
    shapes = {"image": inputs[noisy], "std": inputs[noisy], "quantiles": [*inputs[precision], 2]}
    nodes = [
        helper.make_node("Identity", [noisy], ["image"]),
        helper.make_node("Identity", [noisy], ["std"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[-1]),
        helper.make_node("Unsqueeze", [precision, "axis"], ["quantile"]),
        helper.make_node("Concat", ["quantile", "quantile"], ["quantiles"], axis=-1),
    ]
    results = [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(nodes, "g", given, results)
    opset = [helper.make_opsetid("", 18)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString())


@cache
def models() -> dict[str, bytes]:
    return {name: identity(INPUTS) for name in (PLANE, VOLUME)}


def build_bundle(folder: Path) -> Path:
    cost = {"of": "a plane", "nodes_before": 9, "nodes": 5, "parameters": 3, "flops": 100, "activation_bytes": 2**20}
    scanner = {"rows": 9, "rank": 3, "source": "scanner.h5", "scanner": "0" * 64, "evaluations": 2}
    manifest = {
        "sigma_range": [0.02, 10.0],
        "frozen": [{"file": "frozen.onnx", **scanner}],
        "checkpoint": {"file": "model.pt", "sha256": hashlib.sha256(WEIGHTS).hexdigest()},
        "statistics": {PLANE: cost},
        "parity": [{"artefact": PLANE, "relative": 1e-6, "psnr_change_db": 0.0}],
        "provenance": {"command": "by a test"},
    }
    return write_bundle(folder / "model", manifest, {**models(), "model.pt": WEIGHTS}).path


def damage_bundle(path: Path, step: Step) -> None:
    kind, number, *rest = step
    if kind == "bytes":
        files = sorted(one for one in path.iterdir() if one.is_file() and not one.is_symlink())
        if files:
            damage_bytes(files[number % len(files)], rest)
    elif kind == "folder":
        damage_folder(path, [number, *rest])
    elif (path / "manifest.json").is_file() and not (path / "manifest.json").is_symlink():
        damage_json(path / "manifest.json", rest, sealed if number else lambda tree: tree)


def check_bundle(path: Path, only_bytes: bool) -> None:
    bundle = Bundle.open(path)
    if only_bytes:
        assert bundle.sigma_range == (0.02, 10.0)
        assert {name: bundle.read(name) for name in models()} == models()
    about(path)
    for grid in (GRID, (2, *GRID)):
        noisy = np.ones((2, prod(grid)), np.float32)
        same_images(Prior(bundle, grid, threads=1).of_frames(2)(noisy, 1.0), noisy)
    bundle.checkpoint()


TINY = PosteriorConfig(blocks=1, width=4, inner=4, embedding=4)


@cache
def trained() -> dict[str, Any]:
    torch.manual_seed(0)
    plain = {"format": FORMAT, "method": "posterior", "grid": [*GRID], "network": TINY.to_dict()}
    numbers = {"sigma_range": [0.02, 9.0], "state": PosteriorNetwork(TINY).state_dict()}
    return {**plain, **numbers, "provenance": {"seed": 0, "minutes": 0.5}}


def build_checkpoint(folder: Path) -> Path:
    torch.save(trained(), folder / "model.pt")
    return folder / "model.pt"


def damage_checkpoint(path: Path, step: Step) -> None:
    if step[0] == "bytes":
        damage_bytes(path, step[1:])
        return
    try:
        content = torch.load(path, weights_only=True)
        damage_tree(content, step[1:])
        torch.save(content, path)
    except Exception:  # content that torch cannot write cannot be in a file
        return


def check_checkpoint(path: Path, only_bytes: bool) -> None:
    found = load_trained(path)
    if only_bytes:
        assert (found.grid, found.sigma_range, found.method) == (GRID, (0.02, 9.0), "posterior")
        state = found.network.state_dict()
        assert all(torch.equal(state[name], value) for name, value in trained()["state"].items())
    about(path)


def any_of(hdf5: Path, step: Step) -> None:
    (damage_bytes if step[0] == "bytes" else damage_hdf5)(hdf5, step[1:])


_MDF = st.one_of(named("bytes", BYTES), named("hdf5", HDF5), named("hdf5", HDF5))
_SEALED = st.tuples(st.just("hdf5"), st.integers(0, 1), HDF5).map(lambda step: [*step[:2], *step[2]])
_IN_FOLDER = st.tuples(st.just("bytes"), st.integers(0, 2), BYTES).map(lambda step: [*step[:2], *step[2]])
_MANIFEST = st.tuples(st.just("json"), st.integers(0, 1), TREE).map(lambda step: [*step[:2], *step[2]])

VICTIMS = {
    "measurement": Victim(build_measurement, _MDF, any_of, check_measurement),
    "matrix": Victim(build_matrix, _MDF, any_of, check_matrix),
    "calibration": Victim(
        build_calibration, st.one_of(named("bytes", BYTES), _SEALED), damage_calibration, check_calibration
    ),
    "bundle": Victim(
        build_bundle, st.one_of(_IN_FOLDER, _MANIFEST, named("folder", FOLDER)), damage_bundle, check_bundle
    ),
    "checkpoint": Victim(
        build_checkpoint, st.one_of(named("bytes", BYTES), named("tree", TREE)), damage_checkpoint, check_checkpoint
    ),
}


def mutations(kind: str) -> st.SearchStrategy[list[Step]]:
    """One to three steps of damage to a kind of file."""
    return st.lists(VICTIMS[kind].steps, min_size=1, max_size=3)


def damaged(kind: str, original: Path, folder: Path, steps: list[Step]) -> Path:
    """A damaged copy in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / original.name
    shutil.copytree(original, path) if original.is_dir() else shutil.copy(original, path)
    for step in sorted(
        steps, key=lambda step: step[0] == "bytes"
    ):  # damage to bytes comes last: a damaged HDF5 file cannot be edited
        VICTIMS[kind].damage(path, step)
    return path


def check(kind: str, path: Path, steps: list[Step]) -> None:
    """Read a file and check its values, see the description of this module."""
    VICTIMS[kind].check(path, all(step[0] == "bytes" for step in steps))
