"""The networks of DERnet and DEQ-MPI, and their training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import CONFIGS, GRID
from typer.testing import CliRunner

from mpi_fast.cli import app
from mpi_fast.training import data
from mpi_fast.training.checkpoint import load_trained
from mpi_fast.training.combination import Signals, gains, signal_changes
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.deq_network import DeqConfig, Equilibrium
from mpi_fast.training.loop import command, train
from mpi_fast.training.operators import make_operators
from mpi_fast.training.recipes import RECIPES

METHODS = tuple(CONFIGS)


@pytest.fixture(scope="module")
def scanners():
    return make_operators(2, 5, GRID)


@pytest.fixture(scope="module")
def phantoms():
    return data.training_phantoms(28, 5, GRID)


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
    signals = Signals.of(frames.y, frames.noise, frames.singular_values, frames.basis)
    white = gains(signals, torch.ones_like(frames.noise)[..., None])
    expected = signal_changes(signals, torch.zeros_like(frames.image)[:, :, None], white)[:, :, 0]
    torch.testing.assert_close(image, expected, atol=1e-4, rtol=1e-3)


def test_the_untrained_equilibrium_is_non_negative_and_explains_the_signals(scanners, phantoms):
    """Without weights the networks are the projections of ADMM, which converges to the intersection of both sets."""
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
        minutes=0.02, grid=GRID, scanners=2, phantoms=14, groups=2, frames=2, processes=1, network=CONFIGS[method]
    )
    path = train(config, tmp_path / "model.pt", device="cpu")
    found = load_trained(path)
    assert found.method == method
    assert found.provenance["command"] == f"mpi_fast.training.loop.train({config})"
    assert found.provenance["cpu_minutes"] >= 0
    train(replace(config, minutes=0.04), path, device="cpu", resume=True)
    resumed = load_trained(path).provenance
    assert resumed["steps"] >= found.provenance["steps"]
    assert resumed["cpu_minutes"] >= found.provenance["cpu_minutes"]


@pytest.mark.parametrize(("chosen", "rate"), [((), 2e-4), (("--learning-rate", "0.002"), 0.002)])
def test_the_command_trains_at_the_rate_of_its_recipe(tmp_path, monkeypatch, chosen, rate):
    ran = []
    monkeypatch.setattr("mpi_fast.training.loop.train", lambda config, *_, **__: ran.append(config))
    options = "train", "--method", "deq", "--minutes", "5", "-o", str(tmp_path / "deq.pt"), *chosen
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    complete = RECIPES["deq"].complete(ran[0])
    assert (complete.frames, complete.learning_rate) == (3, rate)
    assert ran[0].network == DeqConfig()
    assert command(ran[0]).split() == ["mpi-fast", "train", "--method", "deq", "--minutes", "5", "--seed", "0", *chosen]


def test_a_configuration_takes_from_its_recipe_what_it_is_not_given():
    config = TrainingConfig(network=DeqConfig())
    assert RECIPES["deq"].complete(config) == replace(config, frames=3, learning_rate=2e-4)
    assert RECIPES["dernet"].complete(config) == replace(config, frames=6, learning_rate=1e-3)
    given = replace(config, frames=5, learning_rate=2e-3)
    assert RECIPES["deq"].complete(given) == given


@pytest.mark.parametrize("change", [{"groups": 4}, {"frames": 6}, {"ema": 0.99}, {"network": CONFIGS["deq"]}])
def test_what_the_command_line_cannot_say_is_recorded_as_it_is(change):
    config = TrainingConfig(network=DeqConfig(), frames=3, learning_rate=2e-4)
    assert command(config) == "mpi-fast train --method deq --minutes 60 --seed 0"
    changed = replace(config, **change)
    assert command(changed) == f"mpi_fast.training.loop.train({changed})"
