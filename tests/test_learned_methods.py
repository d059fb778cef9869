"""DERnet and DEQ-MPI: from training to the file that users run."""

import importlib
import subprocess
import sys
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from mpi_fast.calibration import Calibration
from mpi_fast.cli import app
from mpi_fast.errors import InputError, MismatchError, ModelError
from mpi_fast.guidance import Likelihood, signal_scale
from mpi_fast.methods.anderson import fixed_point
from mpi_fast.methods.deq import DeqMpi
from mpi_fast.methods.dernet import Dernet
from mpi_fast.noise import add_noise
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner
from mpi_fast.training import data
from mpi_fast.training.checkpoint import Trained, load_checkpoint, load_trained
from mpi_fast.training.deq import DeqConfig, Equilibrium
from mpi_fast.training.dernet import DernetConfig
from mpi_fast.training.loop import TrainingConfig, command, train
from mpi_fast.training.recipes import RECIPES
from mpi_fast.training.scanners import make_scanners

learned = importlib.import_module("mpi_fast.export.learned")
GRID = (6, 7)
CONFIGS = {
    "dernet": DernetConfig(filters=3, hidden=8, width=16, inner=16, blocks=1),
    "deq": DeqConfig(features=8, growth=8, blocks=2, layers=2),
}
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


@pytest.fixture(scope="module")
def scanners():
    return make_scanners(2, 5, GRID)


@pytest.fixture(scope="module")
def phantoms():
    return data.training_phantoms(28, 5, GRID)


# -- Anderson acceleration -----------------------------------------------------------------------------------------


def contraction(rng, size=40, rate=0.9):
    """``z -> rate Q tanh(z) + c``, whose fixed point differs from row to row."""
    q, _ = np.linalg.qr(rng.standard_normal((size, size)))
    offset = rng.standard_normal((3, size))
    return lambda z: rate * np.tanh(z) @ q + offset[: len(z)]


def test_anderson_and_the_plain_iteration_find_the_same_fixed_point():
    step = contraction(np.random.default_rng(0))
    start = np.zeros((3, 40))
    plain, residual, slow = fixed_point(step, start, iterations=500, tolerance=1e-10, memory=1)
    assert residual.max() <= 1e-10
    np.testing.assert_allclose(step(plain), plain, atol=1e-8)
    accelerated, residual, fast = fixed_point(step, start, iterations=500, tolerance=1e-10)
    assert residual.max() <= 1e-10
    np.testing.assert_allclose(accelerated, plain, atol=1e-8)
    assert fast < slow


def test_anderson_solves_linear_problems_in_as_many_steps_as_dimensions():
    rng = np.random.default_rng(1)
    matrix, offset = 0.3 * rng.standard_normal((4, 4)), rng.standard_normal((2, 4))
    solution = np.linalg.solve(np.eye(4) - matrix, offset.T).T
    found, _, evaluations = fixed_point(lambda z: z @ matrix.T + offset, np.zeros((2, 4)), 25, 1e-6, memory=6)
    assert evaluations <= 8
    np.testing.assert_allclose(found, solution, rtol=1e-4)


def test_a_state_does_not_depend_on_its_batch():
    step = contraction(np.random.default_rng(2), rate=0.5)
    start = np.zeros((3, 40))
    together, residual, _ = fixed_point(step, start, 60, 1e-6)
    alone, first, _ = fixed_point(step, start[:1], 60, 1e-6)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-12)
    assert residual[0] == pytest.approx(first[0])


# -- networks ------------------------------------------------------------------------------------------------------


def test_turned_frames_are_the_same_signals(scanners, phantoms):
    frames = data.draw_frames(scanners, phantoms, 4, 3, torch.Generator().manual_seed(0))
    turned = data.turned_frames(frames, GRID, torch.Generator().manual_seed(0))
    assert not torch.equal(turned.image, frames.image)
    torch.testing.assert_close(turned.image @ turned.basis, frames.image @ frames.basis)
    torch.testing.assert_close(turned.image.sum(-1), frames.image.sum(-1))


def test_the_untrained_dernet_is_the_posterior_mean(scanners, phantoms):
    frames = next(data.frame_batches(scanners, phantoms, 2, 3, seed=0))
    network = RECIPES["dernet"].build(CONFIGS["dernet"], GRID).eval()
    with torch.no_grad():
        image = network(frames.y, frames.noise, frames.singular_values, frames.basis)
    start = torch.zeros_like(frames.image), torch.ones_like(frames.noise)
    expected, _ = data.combine(frames.y, frames.singular_values, frames.basis, frames.noise, *start)
    torch.testing.assert_close(image, expected, atol=1e-4, rtol=1e-3)


def test_the_untrained_equilibrium_is_non_negative_and_explains_the_signals(scanners, phantoms):
    """Without weights the networks are the projections of ADMM, which converges to where both sets meet."""
    frames = next(data.frame_batches(scanners, phantoms, 2, 3, seed=0))
    network = Equilibrium(CONFIGS["deq"], GRID).eval()
    state, given = network.start(frames), (frames.y, frames.noise, frames.singular_values, frames.basis)
    with torch.no_grad():
        for _ in range(400):
            before, state = state, network(state, *given)
    assert float((state - before).norm() / state.norm()) < 0.02
    image = state[..., : GRID[0] * GRID[1]]
    assert float(image.min()) > -0.1
    missing = (frames.y - (image @ frames.basis) * frames.singular_values[:, None]) / frames.noise[..., None]
    rank = (frames.singular_values > 0).sum(dim=1, keepdim=True)
    assert bool((missing.norm(dim=2) <= 1.2 * rank.sqrt()).all())


@pytest.mark.parametrize("method", METHODS)
def test_networks_learn(scanners, phantoms, method):
    torch.manual_seed(0)
    recipe = RECIPES[method]
    network = recipe.build(CONFIGS[method], GRID).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    batch = next(data.frame_batches(scanners, phantoms, 2, 4, seed=1))
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = recipe.loss(network, batch)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])
    assert all(value.grad is not None for value in network.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_run_makes_a_checkpoint_of_its_method(tmp_path, method):
    config = TrainingConfig(
        minutes=0.02, grid=GRID, scanners=2, phantoms=14, groups=2, frames=2, network=CONFIGS[method]
    )
    path = train(config, tmp_path / "model.pt", device="cpu")
    found = load_trained(path)
    assert found.method == method
    assert f"--method {method}" in found.provenance["command"]
    assert found.provenance["cpu_minutes"] >= 0
    with pytest.raises(ModelError, match=rf"'{method}', expected 'score'"):
        load_checkpoint(path)
    train(replace(config, minutes=0.04), path, device="cpu", resume=True)
    resumed = load_trained(path).provenance
    assert resumed["steps"] >= found.provenance["steps"]
    assert resumed["cpu_minutes"] >= found.provenance["cpu_minutes"]


@pytest.mark.parametrize(("chosen", "rate"), [((), 4e-4), (("--learning-rate", "0.002"), 0.002)])
def test_the_command_trains_at_the_rate_of_its_recipe(tmp_path, monkeypatch, chosen, rate):
    ran = []
    monkeypatch.setattr("mpi_fast.training.loop.train", lambda config, *_, **__: ran.append(config))
    options = "train", "--method", "deq", "--minutes", "5", "-o", str(tmp_path / "deq.pt"), *chosen
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert ran[0].learning_rate == rate
    assert ran[0].network == DeqConfig()
    assert command(ran[0]).split() == ["mpi-fast", "train", "--method", "deq", "--minutes", "5", "--seed", "0", *chosen]


# -- files and the runtime -----------------------------------------------------------------------------------------


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
    """Of the untrained network, whose iteration is ADMM between two convex sets, so that there is one."""
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
    """The file of other weights stands in for an exporter that went wrong."""
    monkeypatch.setattr(learned, "graph", lambda trained: files[trained.method].read_bytes())
    assert learned.learned_onnx(trained("dernet")) == files["dernet"].read_bytes()
    with pytest.raises(ModelError, match="nothing was written"):
        learned.learned_onnx(trained("dernet", std=0.051))


def test_score_networks_are_exported_elsewhere():
    with pytest.raises(ModelError, match=r"python -m mpi_fast\.export"):
        learned.learned_onnx(replace(trained("dernet"), method="score"))


def test_exported_networks_explain_each_component_within_its_noise(measured):
    """`Likelihood` and the equilibrium's own start are one formula."""
    calibration, rows = measured
    reduced = calibration.reduce(rows)
    likelihood = Likelihood(reduced.y, calibration.singular_values, calibration.basis, reduced.noise)
    frames = data.Frames(
        *(torch.from_numpy(value)[None] for value in (reduced.y, reduced.noise)),
        *(torch.from_numpy(value)[None] for value in (calibration.singular_values, calibration.basis)),
        torch.zeros(1, len(rows), calibration.num_voxels),
    )
    start = Equilibrium(CONFIGS["deq"], GRID).start(frames)[0, :, : calibration.num_voxels]
    expected = likelihood.combine(np.zeros((len(rows), 1, calibration.num_voxels), np.float32), 1.0)[:, 0]
    np.testing.assert_allclose(start, expected, atol=1e-5 * np.abs(expected).max())
