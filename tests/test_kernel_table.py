"""The sampler as a table: its rows do what the sampler's own code does."""

import numpy as np
import pytest

from mpi_fast.consensus import agree, kept_of, level_of
from mpi_fast.errors import InputError
from mpi_fast.guidance import Likelihood
from mpi_fast.kernels import guided_step
from mpi_fast.kernels.table import STEP, consensus_table, step_table
from mpi_fast.samplers import SAMPLERS, get_sampler, nfe
from mpi_fast.schedule import SDES, VE
from mpi_fast.symmetry import symmetries

STEPS = {"dpm": 6, "heun": 5, "euler-maruyama": 30, "predictor-corrector": 20}


def denoise(x, sigma):
    """A denoiser that is neither linear nor blind to its noise level, nor the same for every voxel."""
    return np.tanh(1.5 * x) * 2 / (1 + sigma**2) + np.linspace(0.0, 0.2, x.shape[-1])


def noise(draw):
    return np.random.default_rng(draw).standard_normal((2, 7))


def run(table):
    """Follow the rows, in float64."""
    x = saved = denoised = np.zeros((2, 7))
    for number in range(len(table)):
        row = {name: float(table[number][name]) for name in STEP.names}
        if number:
            denoised = denoise(x, float(table[number - 1]["sigma"]))
        new = sum(row[f"x_from_{n}"] * a for n, a in (("x", x), ("denoised", denoised), ("saved", saved)))
        new += row["x_from_noise"] * noise(int(row["draw"]))
        if any(row[f"saved_from_{n}"] for n in ("x", "denoised", "saved")):
            saved = sum(row[f"saved_from_{n}"] * a for n, a in (("x", x), ("denoised", denoised), ("saved", saved)))
        x = new
    return x


@pytest.mark.parametrize("name", [*SAMPLERS])
@pytest.mark.parametrize("sde", [*SDES])
@pytest.mark.parametrize("steps", [1, None])
def test_rows_are_the_sampler(name, sde, steps):
    steps, process = steps or STEPS[name], SDES[sde](0.02, 10.0)
    first = noise(0) + denoise(process.sigma_max * noise(0), process.sigma_max) / process.sigma_max
    expected = get_sampler(name)(denoise, lambda draw: noise(draw) if draw else first, steps, process)
    table = step_table(name, process, steps)
    assert len(table) == nfe(name, steps) + 2  # the noise, and the evaluation that the start costs
    np.testing.assert_allclose(run(table), expected, rtol=0, atol=2e-5)  # the rows are rounded to float32


def test_a_row_is_laid_out_as_in_the_kernel():
    assert STEP.itemsize == 104
    assert [STEP.fields[name][1] for name in ("draw", "came", "goes")] == [23 * 4, 24 * 4, 25 * 4]


def test_the_last_row_returns_what_was_denoised():
    row = step_table("heun", VE(), 4)[-1]
    assert row["x_from_denoised"] == 1
    assert not any(row[name] for name in ("x_from_x", "x_from_saved", "x_from_noise", "spread", "sigma"))


def test_guidance_follows_the_noise_level():
    rows = step_table("dpm", VE(0.02, 10.0), 5, "proximal", strength=0.5)
    assert rows["guide_strength"].tolist() == [0, *[1] * 6]
    np.testing.assert_allclose(rows["guide_spread"][1:], 0.5 * rows["spread"][:-1], rtol=1e-6)
    assert not step_table("dpm", VE(), 5, "none")["guide_strength"].any()


@pytest.mark.parametrize(("steps", "grid"), [(1, (3, 3)), (2, (7, 1)), (9, (2, 4)), (17, (3, 3))])
def test_rows_are_the_steps_towards_consensus(steps, grid):
    rng, voxels = np.random.default_rng(1), grid[0] * grid[1]
    basis = np.linalg.qr(rng.standard_normal((voxels, 4)))[0]
    y, singular_values = rng.standard_normal((2, 4)) * 20, np.array([50.0, 9.0, 2.0, 0.5])
    likelihood, start = Likelihood(y, singular_values, basis, np.array([0.7, 20.0])), rng.standard_normal((2, voxels))
    assert kept_of(level_of(likelihood)).tolist() == [1, pytest.approx(0.6, abs=0.1)]
    expected = agree(lambda x, sigma: denoise(x, sigma[:, None]), likelihood, start, steps, grid)

    nothing, table = np.zeros((2, 1, voxels)), consensus_table(steps, grid)
    x, denoised, image = start[:, None], nothing, nothing
    for number, row in enumerate(table):
        if number:
            denoised = denoise(image[:, :, 2], guided_step.of_frames(likelihood, table[number - 1])[0][:, None, None])
        x, _, image = guided_step.reference(likelihood, row, denoised, x, nothing, nothing, grid)
        np.testing.assert_array_equal(image[..., symmetries(grid)[row["goes"]]][:, :, 2], x)
    assert len(table) == steps + 1
    np.testing.assert_allclose(x[:, 0], expected, rtol=0, atol=1e-5)  # float32 there
    assert not table[-1]["spread"]


def test_consensus_takes_a_step():
    with pytest.raises(InputError, match="consensus in 0 steps"):
        consensus_table(0, (3, 3))


@pytest.mark.parametrize(
    "wrong", [{"sampler": "ddim"}, {"guidance": "hope"}, {"strength": 0.0}, {"strength": float("nan")}, {"steps": 0}]
)
def test_what_there_is_not_is_refused(wrong):
    options = {"sampler": "dpm", "sde": VE(), "steps": 5, **wrong}
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        step_table(**options)
