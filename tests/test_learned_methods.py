"""The exported networks DERnet and DEQ-MPI."""

import importlib
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
import typer
from small_networks import CONFIGS, GRID
from typer.testing import CliRunner

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MismatchError, ModelError
from mpi_fast.likelihood import Likelihood, signal_scale
from mpi_fast.methods import deq
from mpi_fast.methods.deq import DeqMpi
from mpi_fast.methods.dernet import Dernet
from mpi_fast.noise import add_noise
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner
from mpi_fast.training import data
from mpi_fast.training.checkpoint import Trained
from mpi_fast.training.deq_network import Equilibrium
from mpi_fast.training.recipes import RECIPES

command, learned = (importlib.import_module(f"mpi_fast.export.{name}") for name in ("learned", "learned_onnx"))
RUNTIME = {"dernet": Dernet, "deq": DeqMpi}
METHODS = tuple(CONFIGS)


def trained(method, grid=GRID, std=0.05):
    """A network of random weights."""
    torch.manual_seed(1)
    network = RECIPES[method].build(CONFIGS[method], grid)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=std)
    return Trained(network.eval(), grid, (0.02, 10.0), {"made": "by a test"}, method)


class Measured(NamedTuple):
    calibration: Calibration
    rows: np.ndarray


@pytest.fixture(scope="module")
def measured():
    """Frames of a small scanner at three noise levels."""
    scanner = Scanner(grid=GRID)
    calibration = Calibration.from_arrays(
        scanner.system_matrix(), scanner.frequencies, GRID, scanner.field_of_view, rows=RowFilter(max_frequency=2e5)
    )
    rng = np.random.default_rng(0)
    images = np.maximum(rng.standard_normal((3, GRID[0] * GRID[1])), 0)
    rows = [
        add_noise((image @ calibration.matrix.T)[None], snr, rng)
        for image, snr in zip(images, (5, 15, 25), strict=True)
    ]
    return Measured(calibration, np.concatenate(rows))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exported networks by method."""
    folder = tmp_path_factory.mktemp("models")
    for method in METHODS:
        (folder / f"{method}.onnx").write_bytes(learned.learned_onnx(trained(method)))
    return {method: folder / f"{method}.onnx" for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_the_file_is_the_network(files, method):
    content = files[method].read_bytes()
    assert learned.difference(trained(method), content) < 1e-4
    assert b"/home" not in content
    assert learned.difference(trained(method, std=0.051), content) > 1e-4


def test_torch_is_not_needed(files):
    code = f"""
import sys
sys.modules["torch"] = None
import numpy as np
from mpi_fast.calibration import Calibration
from mpi_fast.methods import create
from mpi_fast.simulation import Scanner
scanner = Scanner(grid={GRID})
matrix = scanner.system_matrix()
calibration = Calibration.from_arrays(matrix, scanner.frequencies, scanner.grid, scanner.field_of_view)
for name, path in {[(name, str(path)) for name, path in files.items()]}:
    assert create(name, calibration, model=path)(matrix.sum(axis=2)[None]).image.any()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dernet_is_its_network_on_frames(files, measured):
    calibration, rows = measured
    reduced = calibration.reduce(rows)
    scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
    given = reduced.y / scale[:, None], reduced.noise / scale, calibration.singular_values, calibration.basis
    with torch.no_grad():
        expected = trained("dernet").network(*(torch.from_numpy(value)[None] for value in given))[0].numpy()
    image = Dernet(calibration, model=files["dernet"])(rows).image
    expected = np.maximum(expected, 0).reshape(image.shape) * scale[:, None, None]
    np.testing.assert_allclose(image, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("method", METHODS)
def test_images_scale_with_their_signals_and_know_no_batch(files, measured, method):
    reconstruct = RUNTIME[method](measured.calibration, model=files[method])
    image = reconstruct(measured.rows).image
    assert image.shape == (3, *GRID)
    assert image.dtype == np.float32
    assert image.min() >= 0
    assert image.max() > 0
    tolerance = 2e-4 * image.max()
    np.testing.assert_allclose(reconstruct(8 * measured.rows).image, 8 * image, atol=8 * tolerance)
    np.testing.assert_allclose(reconstruct(measured.rows[1:2]).image, image[1:2], atol=tolerance)
    assert not reconstruct(0 * measured.rows).image.any()
    assert reconstruct(measured.rows[:0]).image.shape == (0, *GRID)


def test_the_runtime_iterates_to_a_fixed_point(files, measured, monkeypatch):
    """The iteration of the untrained network is ADMM between two convex sets, so a fixed point exists."""
    network = learned.OneScannerStep(Equilibrium(CONFIGS["deq"], GRID)).eval()

    def step(**inputs):
        with torch.no_grad():
            return torch.cat(network(*(torch.from_numpy(value) for value in inputs.values())), dim=1).numpy()

    reconstruct = DeqMpi(measured.calibration, model=files["deq"], iterations=300, tolerance=1e-5)
    monkeypatch.setattr(reconstruct, "_model", step)
    image = reconstruct(measured.rows).image
    assert reconstruct.residual.max() <= 1e-5
    reconstruct.tolerance = 1e-4
    np.testing.assert_allclose(reconstruct(measured.rows).image, image, atol=2e-2 * image.max())
    reconstruct.iterations = 3
    reconstruct(measured.rows)
    assert reconstruct.residual.max() > 1e-4


def test_components_without_signal_say_nothing_beyond_those_of_training(files, measured, monkeypatch):
    """Three layers of width three depend on the next three components, and on none after these."""

    def image(padding):
        monkeypatch.setattr(deq, "PADDING", padding)
        return DeqMpi(measured.calibration, model=files["deq"], iterations=4)(measured.rows).image

    padded = image(3)
    for more in (4, 20):
        np.testing.assert_allclose(image(more), padded, atol=1e-5 * padded.max())
    assert np.abs(image(0) - padded).max() > 1e-4 * padded.max()


@pytest.mark.parametrize("method", METHODS)
def test_files_that_are_refused(tmp_path, files, measured, method):
    other = next(one for one in METHODS if one != method)
    build = RUNTIME[method]
    with pytest.raises(ModelError, match=f"mpi-fast train --method {method}"):
        build(measured.calibration, model=tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match=f"holds '{other}', expected '{method}'"):
        build(measured.calibration, model=files[other])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(files[method].read_bytes()[:2000])
    with pytest.raises(ModelError, match="refuses"):
        build(measured.calibration, model=broken)
    model = onnx.load(files[method])
    for entry in model.metadata_props:
        entry.value = "[9, 9]" if entry.key == "grid" else entry.value
    onnx.save(model, broken)
    with pytest.raises(MismatchError, match="9 x 9 voxels"):
        build(measured.calibration, model=broken)
    onnx.helper.set_model_props(model, {"kind": "mpi-fast method", "method": method})
    onnx.save(model, broken)
    with pytest.raises(ModelError, match="incomplete metadata"):
        build(measured.calibration, model=broken)
    with pytest.raises(InputError, match="noise -1"):
        build(measured.calibration, noise=-1.0, model=files[method])


def test_a_network_that_differs_is_not_exported(files, monkeypatch):
    """The file of other weights simulates an error of the exporter."""
    monkeypatch.setattr(learned, "graph", lambda trained: files[trained.method].read_bytes())
    assert learned.learned_onnx(trained("dernet")) == files["dernet"].read_bytes()
    with pytest.raises(ModelError, match="nothing was written"):
        learned.learned_onnx(trained("dernet", std=0.051))


def test_the_file_is_named_after_the_checkpoint_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr("mpi_fast.training.checkpoint.load_trained", lambda path: trained("dernet"))
    app = typer.Typer()
    app.command()(command.export)
    assert "the name with .onnx" in CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    result = CliRunner().invoke(app, [str(tmp_path / "one.pt")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "one.onnx").is_file()


def test_our_network_is_exported_elsewhere():
    with pytest.raises(ModelError, match=r"'posterior': to export it, python -m mpi_fast\.export"):
        learned.learned_onnx(replace(trained("dernet"), method="posterior"))


def test_exported_networks_explain_each_component_within_its_noise(measured):
    """`Likelihood` and the start of the equilibrium use the same formula."""
    calibration, rows = measured
    reduced = calibration.reduce(rows)
    likelihood = Likelihood(reduced.y, calibration.singular_values, calibration.basis, reduced.noise)
    frames = data.Frames(
        *(torch.from_numpy(value)[None] for value in (reduced.y, reduced.noise)),
        *(torch.from_numpy(value)[None] for value in (calibration.singular_values, calibration.basis)),
        torch.zeros(1, len(rows), calibration.num_voxels),
    )
    start = Equilibrium(CONFIGS["deq"], GRID).start(frames)[0, :, : calibration.num_voxels]
    expected = likelihood.combine(np.zeros((len(rows), calibration.num_voxels), np.float32), 1.0)
    np.testing.assert_allclose(start, expected, atol=1e-5 * np.abs(expected).max())
