"""Training: data that agree with the runtime, a loss that falls, checkpoints that resume and are safe to open."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mpi_fast.errors import InputError, ModelError
from mpi_fast.likelihood import CONDITION_CHANNELS, Likelihood, signal_scale, tweedie
from mpi_fast.symmetry import symmetries
from mpi_fast.training import data
from mpi_fast.training.checkpoint import FORMAT, load_checkpoint
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.loop import learning_rate, train
from mpi_fast.training.mixture import Mixture
from mpi_fast.training.network import NetworkConfig, ScoreNetwork
from mpi_fast.training.operators import make_operators
from mpi_fast.training.recipes import RECIPES, loss_of

GRID = (9, 8)
SMALL = NetworkConfig(features=16, encoder_width=16, encoder_inner=16, encoder_blocks=1, width=16, inner=16, blocks=1)
CONFIG = TrainingConfig(
    minutes=0.03, grid=GRID, scanners=3, phantoms=28, groups=2, frames=3, processes=1, network=SMALL
)


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


def test_batches_are_what_the_runtime_would_compute(scanners, phantoms, monkeypatch):
    """Condition and estimate of a batch, again from its own scale, by the NumPy code that users run."""
    monkeypatch.setattr(data, "SPIKY", 0.0)
    rng = torch.Generator().manual_seed(0)
    batch = data.draw_batch(scanners, phantoms, 4, 5, rng)
    assert batch.condition.shape == (20, CONDITION_CHANNELS, *GRID)
    assert batch.image.shape == (20 * data.DRAWS, 3, *GRID)
    assert batch.target.shape == (20 * data.DRAWS, 1, *GRID)
    assert all(torch.isfinite(t).all() for t in (batch.condition, batch.image, batch.sigma, batch.target))
    assert (batch.image[:, 1] > 0).all()
    shrink, spread = zip(*(tweedie(float(s)) for s in batch.sigma), strict=True)
    assert (batch.image[:, 1].amax(dim=(1, 2)) <= torch.tensor(spread) * 1.001).all()
    # The noisy image is the target plus noise of the level that the batch states.
    noise = (batch.image[:, 2] - batch.target[:, 0]) / batch.sigma[:, None, None]
    assert noise.std() == pytest.approx(1, abs=0.05)
    # Where the scanner sees nothing (largest deviation), the estimate is the shrunk noisy image.
    blind = batch.image[:, 1] > 0.9999 * torch.tensor(spread)[:, None, None]
    expected = torch.tensor(shrink)[:, None, None] * batch.image[:, 2]
    torch.testing.assert_close(batch.image[:, 0][blind], expected[blind], atol=0.05, rtol=0.05)


def test_scanners_that_measure_nothing_are_shown_as_such(scanners, phantoms, monkeypatch):
    """As consensus shows the network that it is told nothing of the signals."""
    monkeypatch.setattr(data, "BLIND", 1.0)
    batch = data.draw_batch(scanners, phantoms, 2, 3, torch.Generator().manual_seed(0))
    nothing = Likelihood.of_nothing(6, GRID[0] * GRID[1]).condition().reshape(6, -1, *GRID)
    torch.testing.assert_close(batch.condition, torch.from_numpy(nothing))
    shrink, spread = (torch.as_tensor(value)[:, None, None] for value in tweedie(batch.sigma.numpy()))
    torch.testing.assert_close(batch.image[:, 0], shrink * batch.image[:, 2])
    torch.testing.assert_close(batch.image[:, 1], spread.expand_as(batch.image[:, 1]))


def test_the_linear_estimate_is_calibrated_against_its_deviation(scanners):
    """For a white Gaussian image the estimate's error has the stated deviation: the likelihood is the data's own."""
    rng = np.random.default_rng(0)
    s, v = scanners.singular_values[0].numpy(), scanners.basis[0].numpy()
    x = rng.standard_normal((500, GRID[0] * GRID[1])).astype(np.float32)
    y = (x @ v * s + 0.3 * rng.standard_normal((500, len(s)))).astype(np.float32)
    likelihood = Likelihood(y, s, v, np.full(500, 0.3, np.float32))
    error = (likelihood.combine(np.zeros((500, 1, x.shape[1]), np.float32), 1.0)[:, 0] - x) / likelihood.deviation(1.0)
    assert error.std() == pytest.approx(1, abs=0.03)
    assert np.median(signal_scale(y, s, likelihood.noise)) == pytest.approx(0.5, rel=0.1)


def test_the_untrained_network_returns_the_linear_estimate_on_any_grid():
    network = ScoreNetwork(SMALL)
    for grid in ((9, 8), (19, 19), (26, 13)):
        image, condition = torch.rand(4, 3, *grid) + 0.1, torch.rand(2, CONDITION_CHANNELS, *grid) + 0.1
        denoised = network(condition, image, torch.ones(4))
        bias = network.denoiser.head.bias.detach()
        torch.testing.assert_close(denoised, image[:, :1] + image[:, 1:2] * bias)


def test_the_network_learns(scanners, phantoms):
    torch.manual_seed(0)
    network = ScoreNetwork(SMALL)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    batch = data.draw_batch(scanners, phantoms, 2, 4, torch.Generator().manual_seed(1))
    first = float(loss_of(network, batch).detach())
    for _ in range(60):
        optimiser.zero_grad()
        loss = loss_of(network, batch)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.7 * first


def test_a_run_is_checkpointed_resumed_and_reported(tmp_path):
    output, seen = tmp_path / "model.pt", []
    train(CONFIG, output, device="cpu", report=seen.append)
    first = load_checkpoint(output)
    assert first.grid == GRID
    assert first.provenance["seed"] == 0
    assert first.provenance["steps"] > 0
    assert seen[0].loss > 0
    train(replace(CONFIG, minutes=0.06), output, device="cpu", resume=True)
    second = load_checkpoint(output)
    assert second.provenance["steps"] > first.provenance["steps"]
    assert second.provenance["minutes"] > first.provenance["minutes"]
    with pytest.raises(ModelError, match="expected"):
        train(replace(CONFIG, seed=3), output, device="cpu", resume=True)
    assert {p.name for p in tmp_path.iterdir()} == {"model.pt", "model.pt.resume"}


def test_a_run_goes_on_from_its_checkpoint_alone(tmp_path):
    output = tmp_path / "model.pt"
    train(CONFIG, output, device="cpu")
    first = load_checkpoint(output)
    (tmp_path / "model.pt.resume").unlink()
    train(replace(CONFIG, minutes=0.0), output, device="cpu", resume=True)  # no time is left: nothing changes
    again = load_checkpoint(output)
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


# -- checkpoints from strangers ------------------------------------------------------------------------------------


def content(**changes):
    return {
        "format": FORMAT,
        "grid": list(GRID),
        "network": SMALL.to_dict(),
        "sigma_range": [0.02, 10.0],
        "state": ScoreNetwork(SMALL).state_dict(),
        "provenance": {},
        **changes,
    }


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("owned"),)


def nan_state():
    state = ScoreNetwork(SMALL).state_dict()
    state["encoder.stem.bias"][0] = float("nan")
    return state


@pytest.mark.parametrize(
    "changes",
    [
        {"format": FORMAT - 1},
        {"format": FORMAT + 1},
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
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path, write in (("a.pt", lambda f: torch.save(content(provenance=Malicious()), f)), ("b.pt", pickle_to)):
        write(path)
        with pytest.raises(ModelError, match="nothing was executed"):
            load_checkpoint(path)
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
        load_checkpoint(path)


@pytest.mark.parametrize("method", [*RECIPES])
@pytest.mark.parametrize("fast", [True, False])
def test_training_computes_in_bfloat16_only_where_that_is_fast(monkeypatch, method, fast):
    monkeypatch.setattr("mpi_fast.training.mixed.has_bfloat16", lambda kind: fast)
    recipe = RECIPES[method]
    network = recipe.build(recipe.config(), GRID)
    first = next(part for part in network.modules() if isinstance(part, torch.nn.Conv2d))
    seen = []
    first.register_forward_hook(lambda layer, given, result: seen.append(result.dtype))
    tiny = Mixture(scanners=2, phantoms=28, planes=0, volumes=0)
    config = replace(CONFIG, scanners=2, groups=1, frames=1, processes=1, mixture=tiny)
    recipe.loss(network, next(recipe.data(config, torch.device("cpu"), 0)))
    assert set(seen) == {torch.bfloat16 if fast else torch.float32}


def test_training_shows_images_in_the_symmetries_that_consensus_shows():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    for number, where in enumerate(symmetries((3, 3)).tolist()):
        turns = torch.tensor([[bool(number & bit) for bit in (1, 2, 4)]])
        torch.testing.assert_close(data._turned(image, turns).flatten()[where], image.flatten())
