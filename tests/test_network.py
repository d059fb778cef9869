"""The network: data consistency compared with float64 NumPy, symmetries, and training data."""

from math import prod

import numpy as np
import pytest
import torch
from network_cases import expected, three_frames, trained_network

from mpi_fast.constants import PLANES
from mpi_fast.training import mixture
from mpi_fast.training.combination import Signals, gains, signal_changes, unseen
from mpi_fast.training.mixture import Mixture, draw_posterior, make_settings, random_plane
from mpi_fast.training.muon import Muon, orthogonal
from mpi_fast.training.network import (
    HalfResolution,
    PosteriorConfig,
    PosteriorNetwork,
    ResidualBlock,
    from_slices,
    to_slices,
)
from mpi_fast.training.operators import SKETCH, reduced_abstract
from mpi_fast.training.recipes import RECIPES, pinball, posterior_loss
from mpi_fast.uncertainty import LEVELS

SMALL = PosteriorConfig(blocks=3, width=8, inner=8, embedding=8, coarse_every=2)


def signals(grid, groups=2, frames=3, rank=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(groups, prod(grid), rank, generator=rng))[0]
    y, noise = torch.randn(groups, frames, rank, generator=rng), 0.1 + torch.rand(groups, frames, generator=rng)
    return Signals.of(y, noise, 3 * torch.rand(groups, rank, generator=rng), basis)


def network(config=SMALL, seed=0):
    """A network in which no output is negligible, as after training."""
    torch.manual_seed(seed)
    made = PosteriorNetwork(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return made.eval()


def evaluate(net, given, grid, noisy=None, precision=None):
    with torch.no_grad():
        return net(given, grid, noisy, precision)[:2]


def test_the_combination_is_that_of_gaussians():
    given = signals((1, 5, 4))
    mean, spread = torch.randn(2, 3, 20), 0.5 + torch.rand(2, 3, 2)
    gain = gains(given, spread)
    found, deviation = (
        mean[:, :, None] + signal_changes(given, mean[:, :, None], gain),
        spread[..., None] * torch.exp(unseen(given, gain)),
    )
    for g, k, w in np.ndindex(2, 3, 2):
        a = (given.singular_values[g, :, None] * given.basis[g].T).double().numpy()
        prior = np.eye(20) / float(spread[g, k, w]) ** 2
        noise = float(given.noise[g, k]) ** 2
        covariance = np.linalg.inv(a.T @ a / noise + prior)
        m = covariance @ (a.T @ given.y[g, k].double().numpy() / noise + prior @ mean[g, k].double().numpy())
        np.testing.assert_allclose(found[g, k, w], m, atol=1e-4)
        np.testing.assert_allclose(deviation[g, k, w], np.sqrt(np.diag(covariance)), rtol=1e-3)


@pytest.mark.parametrize("grid", [(1, 4, 4), (1, 19, 19), (1, 26, 13), (5, 6, 7)])
def test_one_network_serves_planes_of_every_grid_and_volumes(grid):
    given = signals(grid)
    image, log_error = evaluate(network(), given, grid)
    assert image.shape == log_error.shape == (2, 3, prod(grid))
    assert torch.isfinite(image).all()
    assert torch.isfinite(log_error).all()


def test_frames_and_scanners_of_a_batch_do_not_know_of_each_other():
    given, net, grid = signals((1, 7, 6)), network(), (1, 7, 6)
    together = evaluate(net, given, grid)
    for g in range(2):
        alone = Signals(*(part[g : g + 1] for part in given))
        alone = alone._replace(y=alone.y[:, 1:2], noise=alone.noise[:, 1:2])
        for one, all_of_them in zip(evaluate(net, alone, grid), together, strict=True):
            torch.testing.assert_close(one[0, 0], all_of_them[g, 1], atol=1e-5, rtol=1e-4)


def test_components_of_strength_zero_say_nothing():
    given, net, grid = signals((1, 7, 6)), network(), (1, 7, 6)
    noise = torch.randn(2, 3, 4)
    padded = Signals.of(
        torch.cat([given.y, noise], dim=2),
        given.noise,
        torch.cat([given.singular_values, torch.zeros(2, 4)], dim=1),
        torch.cat([given.basis, torch.randn(2, 42, 4)], dim=2),
    )
    for wide, narrow in zip(evaluate(net, padded, grid), evaluate(net, given, grid), strict=True):
        torch.testing.assert_close(wide, narrow, atol=1e-5, rtol=1e-4)


def test_without_a_noisy_image_none_is_looked_at():
    given, net, grid = signals((1, 7, 6)), network(), (1, 7, 6)
    unseen = evaluate(net, given, grid, torch.randn(2, 3, 42), torch.zeros(2, 3))
    for one, other in zip(evaluate(net, given, grid), unseen, strict=True):
        torch.testing.assert_close(one, other)


def test_a_noisy_image_almost_without_noise_is_the_image():
    given, grid = signals((1, 7, 6)), (1, 7, 6)
    noisy = torch.rand(2, 3, 42)
    image, _ = evaluate(PosteriorNetwork(SMALL), given, grid, noisy, torch.full((2, 3), 1e8))
    torch.testing.assert_close(image, noisy, atol=1e-3, rtol=0)


def test_before_training_blocks_fit_the_signals_ever_better():
    given, grid = signals((1, 7, 6), rank=12), (1, 7, 6)
    net = PosteriorNetwork(PosteriorConfig(blocks=8, width=8, inner=8, embedding=8))
    for corrector in net.correctors:
        torch.nn.init.zeros_(corrector.head.bias)
    with torch.no_grad():
        image, _, _, earlier = net(given, grid)
    s = given.singular_values[:, None]
    misfits = [float((given.y - s * (one @ given.basis)).norm()) for one in (*earlier, image)]
    assert misfits == sorted(misfits, reverse=True)


def test_slices_of_every_orientation_can_be_put_together_again():
    grid = (4, 5, 6)
    volume = torch.arange(2.0 * 3 * prod(grid)).reshape(2, 3, *grid)
    for turn in PLANES:
        slices = to_slices(volume, turn)
        assert slices.shape == (2 * grid[turn[0] - 1], 3, grid[turn[1] - 1], grid[turn[2] - 1])
        assert torch.equal(from_slices(slices, turn, grid), volume)
    assert torch.equal(to_slices(volume, PLANES[0])[5], volume[1, :, 1])
    assert torch.equal(to_slices(volume, PLANES[1])[6], volume[1, :, :, 1])
    assert torch.equal(to_slices(volume, PLANES[2])[7], volume[1, :, :, :, 1])


# -- data -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings():
    return make_settings(Mixture(scanners=3, phantoms=56, planes=2, volumes=1, each=3, drawn=39), seed=11, processes=1)


def test_settings_are_planes_of_many_grids(settings):
    assert settings[0].grid == (1, 19, 19)
    assert sum(setting.share for setting in settings) == pytest.approx(1)
    assert settings[-1].grid[0] > 1
    rng = np.random.default_rng(0)
    grids = [random_plane(rng) for _ in range(300)]
    assert min(min(grid) for grid, _ in grids) >= 5
    assert max(max(grid) for grid, _ in grids) >= 60
    assert len({grid for grid, _ in grids}) > 100
    assert {voxel[0] > voxel[1] for _, voxel in grids} == {True, False}
    assert all(max(voxel) <= 3.001 * min(voxel) for _, voxel in grids)


def test_batches_hold_what_they_say(settings):
    rng = torch.Generator().manual_seed(0)
    for setting in settings:
        batch = draw_posterior(setting, rng)
        alone = batch.precision == 0
        assert batch.image.shape[2] == prod(setting.grid)
        assert float(batch.image.min()) >= 0
        assert not batch.noisy[alone].any()
        if alone.all():
            continue
        noise = (batch.noisy - batch.image)[~alone] * batch.precision[~alone].sqrt()[:, None]
        assert float(noise.std()) == pytest.approx(1, abs=0.05)
        blind = (batch.signals.singular_values == 0).all(dim=1)
        assert not batch.signals.y[blind].any()
        assert (~alone[blind]).all()


def test_signals_of_settings_agree_with_their_images(settings):
    """With a calibration nearly free of noise, the residual of the signals is their stated noise."""
    operators, rng = settings[0].operators, torch.Generator().manual_seed(3)
    batch = draw_posterior(settings[0], rng)
    given = batch.signals
    left = given.y - given.singular_values[:, None] * (batch.image @ given.basis)
    seen = given.singular_values > 0
    ratio = left.square().sum(-1) / (seen.sum(-1, keepdim=True) * given.noise.square()).clamp_min(1e-20)
    assert 0.3 < float(ratio[seen.any(dim=1)].median()) < 3
    assert operators.outside.shape[1] == SKETCH


def test_abstract_operators_measure_between_one_and_hundreds_of_dimensions():
    ranks = [int(reduced_abstract((0, n), (11, 10), (1.0, 1.0))["rank"]) for n in range(40)]
    assert min(ranks) <= 4
    assert max(ranks) >= 40
    assert int(reduced_abstract((0, 1), (5, 6, 7), (1.0, 1.0, 2.0))["rank"]) >= 1


def test_the_network_learns_image_and_error_alike(settings, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(mixture, "VOXELS", 9 * 361)
    net, batch = PosteriorNetwork(SMALL), draw_posterior(settings[0], torch.Generator().manual_seed(1))
    optimisers = RECIPES["posterior"].optimisers(net, 3e-3)
    losses = []
    for _ in range(150):
        net.zero_grad()
        loss = posterior_loss(net, batch)
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    image, log_error = evaluate(net, batch.signals, batch.grid, batch.noisy, batch.precision)
    ratio = (image - batch.image).square().mean(dim=-1) / torch.exp(2 * log_error).mean(dim=-1)
    assert 0.2 < float(ratio.median()) < 5


def test_quantiles_are_learned_from_the_errors_alone():
    rng = torch.Generator().manual_seed(0)
    values = torch.randn(1, 2, 4000, generator=rng) + torch.tensor([0.0, 3.0])[:, None]
    quantiles = torch.zeros(1, 2, len(LEVELS), requires_grad=True)
    optimiser = torch.optim.Adam([quantiles], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        pinball(values, quantiles).backward()
        optimiser.step()
    held = (values[:, :, None] <= quantiles[..., None]).float().mean(dim=-1)
    torch.testing.assert_close(held.detach(), torch.tensor(LEVELS).expand(1, 2, 2), atol=0.01, rtol=0)


# -- the network of the package -------------------------------------------------------------------------------------


def test_no_part_of_the_trained_network_is_dead(calibration, true_rows):
    """What each part adds to the features depends on the frame.

    A part whose activations have become zero takes time for nothing, and has no gradient that could revive it.
    """
    net, added = trained_network(), {}
    for name, part in net.named_modules():
        if isinstance(part, ResidualBlock | HalfResolution):
            part.register_forward_hook(lambda _, given, out, name=name: added.update({name: out - given[0]}))
    expected(net, calibration, three_frames(true_rows))
    config = net.config
    assert len(added) >= sum(len(config.residual_blocks(k)) for k in range(config.blocks))
    for name, change in added.items():
        assert float((change[0] - change[2]).abs().max()) > 1e-2, name


# -- the optimiser --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 144), (64, 16), (30, 30)])
def test_steps_are_orthogonal(shape):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    strength = torch.linalg.svdvals(orthogonal(drawn))
    assert 0.6 < float(strength.min()) <= float(strength.max()) < 1.3


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_muon_converges_whatever_the_scale_of_the_loss(scale):
    torch.manual_seed(0)
    kernel, target = torch.nn.Parameter(torch.randn(8, 8, 3, 3)), torch.randn(8, 8, 3, 3)
    optimiser = Muon([kernel], lr=0.2, weight_decay=0.0)
    for step in range(200):
        optimiser.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimiser.zero_grad()
        (scale * (kernel - target).square().sum()).backward()
        optimiser.step()
    assert float((kernel.detach() - target).abs().max()) < 0.05
