"""Training: the data agree with the runtime, the loss falls, and checkpoints resume and are safe to open."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mpi_fast.errors import InputError, ModelError
from mpi_fast.likelihood import Likelihood, signal_scale
from mpi_fast.training import data, mixture
from mpi_fast.training.checkpoint import FORMAT, load_trained
from mpi_fast.training.combination import Signals, gains, unseen
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.loop import learning_rate, open_ended_rate, train
from mpi_fast.training.mixture import Mixture, make_settings, posterior_batches
from mpi_fast.training.network import PosteriorConfig, PosteriorNetwork
from mpi_fast.training.operators import make_operators
from mpi_fast.training.recipes import RECIPES

GRID = (9, 8)
SMALL = PosteriorConfig(blocks=2, width=8, inner=8, embedding=8, coarse_every=2)
FEW = Mixture(scanners=2, phantoms=28, planes=0, volumes=0)
CONFIG = TrainingConfig(minutes=0.03, processes=1, mixture=FEW, network=SMALL)


@pytest.fixture(scope="module")
def scanners():
    return make_operators(3, 5, GRID)


@pytest.fixture(scope="module")
def phantoms():
    return data.training_phantoms(28, 5, GRID)


def test_random_scanners_depend_on_their_seed_alone(scanners):
    again = make_operators(2, 5, GRID, processes=1)
    rank = int(again.rank[1])
    torch.testing.assert_close(again.singular_values[1, :rank], scanners.singular_values[1, :rank])
    assert len(scanners) == 3


@pytest.fixture
def batches(monkeypatch, few):
    """An endless iterator of small batches."""
    monkeypatch.setattr(mixture, "VOXELS", 4 * 361)
    return posterior_batches(few, 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def few():
    return make_settings(FEW, seed=0)


def test_frames_are_scaled_as_the_runtime_scales_them(scanners, phantoms):
    frames = data.draw_frames(scanners, phantoms, 4, 5, torch.Generator().manual_seed(0))
    for y, s, noise in zip(frames.y.numpy(), frames.singular_values.numpy(), frames.noise.numpy(), strict=True):
        rank = int((s > 0).sum())
        np.testing.assert_allclose(signal_scale(y[:, :rank], s[:rank], noise), 1, rtol=1e-3)


def test_the_linear_estimate_is_calibrated_against_its_deviation(scanners):
    """For a white Gaussian image the error of the estimate has the stated deviation."""
    rng = np.random.default_rng(0)
    s, v = scanners.singular_values[0].numpy(), scanners.basis[0].numpy()
    x = rng.standard_normal((500, GRID[0] * GRID[1])).astype(np.float32)
    y = (x @ v * s + 0.3 * rng.standard_normal((500, len(s)))).astype(np.float32)
    likelihood = Likelihood(y, s, v, np.full(500, 0.3, np.float32))
    signals = Signals.of(*(torch.from_numpy(array)[None] for array in (y, likelihood.noise, s, v)))
    deviation = torch.exp(unseen(signals, gains(signals, torch.ones(1, 500, 1))))[0, :, 0].numpy()
    error = (likelihood.combine(np.zeros_like(x), 1.0) - x) / deviation
    assert error.std() == pytest.approx(1, abs=0.03)
    assert np.median(signal_scale(y, s, likelihood.noise)) == pytest.approx(0.5, rel=0.1)


def test_a_run_is_checkpointed_resumed_and_reported(tmp_path, batches):
    output, seen = tmp_path / "model.pt", []
    train(CONFIG, output, device="cpu", batches=batches, report=seen.append)
    first = load_trained(output)
    assert first.method == "posterior"
    assert first.provenance["seed"] == 0
    assert first.provenance["steps"] > 0
    assert seen[0].loss > 0
    train(replace(CONFIG, minutes=0.06), output, device="cpu", batches=batches, resume=True)
    second = load_trained(output)
    assert second.provenance["steps"] > first.provenance["steps"]
    assert second.provenance["minutes"] > first.provenance["minutes"]
    with pytest.raises(ModelError, match="expected"):
        train(replace(CONFIG, seed=3), output, device="cpu", resume=True)
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt", "model.pt.resume"}


def test_a_finished_run_goes_on_from_before_its_finish(tmp_path, batches):
    output = tmp_path / "model.pt"
    train(CONFIG, output, device="cpu", batches=batches)
    before, steps = (tmp_path / "model.pt.resume").read_bytes(), load_trained(output).provenance["steps"]
    train(replace(CONFIG, minutes=0.06, finish=0.06), output, device="cpu", batches=batches, resume=True)
    assert load_trained(output).provenance["steps"] > steps
    assert (tmp_path / "model.pt.resume").read_bytes() == before
    train(replace(CONFIG, minutes=0.0), output, device="cpu", batches=batches, resume=True)
    assert load_trained(output).provenance["steps"] == steps


def test_a_run_goes_on_from_its_checkpoint_alone(tmp_path, batches):
    output = tmp_path / "model.pt"
    train(CONFIG, output, device="cpu", batches=batches)
    first = load_trained(output)
    (tmp_path / "model.pt.resume").unlink()
    # No time is left: nothing changes.
    train(replace(CONFIG, minutes=0.0), output, device="cpu", batches=batches, resume=True)
    again = load_trained(output)
    assert again.provenance["steps"] == first.provenance["steps"]
    for name, value in first.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], value)
    (tmp_path / "model.pt.resume").unlink()
    with pytest.raises(ModelError, match="another network"):
        train(replace(CONFIG, network=replace(SMALL, width=32)), output, device="cpu", resume=True)


def test_requests_that_cannot_be_met(tmp_path):
    with pytest.raises(ModelError, match="nothing to resume"):
        train(CONFIG, tmp_path / "model.pt", device="cpu", resume=True)
    with pytest.raises(InputError, match="device"):
        train(CONFIG, tmp_path / "model.pt", device="abacus")


def test_learning_rate_rises_and_falls():
    rates = [learning_rate(2e-3, p) for p in (0.0, 0.01, 0.5, 1.0, 2.0)]
    assert rates[0] < rates[1] > rates[2] > rates[3] >= rates[4] >= 0
    assert rates[1] == pytest.approx(2e-3, rel=0.01)


def test_learning_rate_of_a_run_without_an_end():
    assert open_ended_rate(0.01, 0, 0) == pytest.approx(1e-4)
    assert open_ended_rate(0.01, 500, 500) == pytest.approx(0.01)
    assert open_ended_rate(0.01, 4000, 4000) == pytest.approx(0.005)
    assert open_ended_rate(0.01, 4000, 9) == pytest.approx(0.0005)


# -- checkpoints from strangers ------------------------------------------------------------------------------------


def content(**changes):
    return {
        "format": FORMAT,
        "method": "posterior",
        "grid": list(GRID),
        "network": SMALL.to_dict(),
        "sigma_range": [0.02, 10.0],
        "state": PosteriorNetwork(SMALL).state_dict(),
        "provenance": {},
        **changes,
    }


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("owned"),)


def nan_state():
    state = PosteriorNetwork(SMALL).state_dict()
    state["conditioner.spread.bias"][0] = float("nan")
    return state


@pytest.mark.parametrize(
    "changes",
    [
        {"format": FORMAT - 1},
        {"format": FORMAT + 1},
        {"method": "score"},
        {"method": None},
        {"grid": [19]},
        {"grid": [0, 5]},
        {"sigma_range": [1.0, 0.1]},
        {"network": {"width": 16, "colour": 3}},
        {"network": {**SMALL.to_dict(), "width": 32}},
        {"network": {**SMALL.to_dict(), "width": -3}},
        {"state": {}},
        {"state": nan_state()},
        {"state": None},
        {"provenance": 3},
    ],
)
def test_broken_checkpoints_are_refused(tmp_path, changes):
    path = tmp_path / "model.pt"
    torch.save(content(**changes), path)
    with pytest.raises(ModelError, match=r"model\.pt"):
        load_trained(path)


def test_code_in_a_checkpoint_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, write in (("a.pt", lambda f: torch.save(content(provenance=Malicious()), f)), ("b.pt", pickle_to)):
        write(path)
        with pytest.raises(ModelError, match="nothing was executed"):
            load_trained(path)
    assert not Path("owned").exists()


def pickle_to(path):
    Path(path).write_bytes(pickle.dumps(Malicious()))


@pytest.mark.parametrize("kind", ["empty", "directory", "missing", "text", "list", "half"])
def test_files_that_are_no_checkpoints(tmp_path, kind):
    path = tmp_path / "model.pt"
    if kind == "directory":
        path.mkdir()
    elif kind in ("empty", "text"):
        path.write_bytes(b"" if kind == "empty" else b"hello")
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "half":
        torch.save(content(), path)
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.pt"):
        load_trained(path)


@pytest.mark.parametrize("method", [*RECIPES])
@pytest.mark.parametrize("fast", [True, False])
def test_training_computes_in_bfloat16_only_where_that_is_fast(monkeypatch, method, fast):
    monkeypatch.setattr("mpi_fast.training.mixed.has_bfloat16", lambda kind: fast)
    recipe = RECIPES[method]
    network = recipe.build(recipe.config(), GRID)
    first = next(part for part in network.modules() if isinstance(part, torch.nn.Conv2d))
    seen = []
    first.register_forward_hook(lambda layer, given, result: seen.append(result.dtype))
    config = replace(CONFIG, grid=GRID, scanners=2, phantoms=28, groups=1, frames=1)
    recipe.loss(network, next(recipe.data(config, torch.device("cpu"), 0)))
    assert set(seen) == {torch.bfloat16 if fast else torch.float32}
