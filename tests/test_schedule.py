"""schedule.py: the three SDEs agree with their scale and noise level, over the same range of noise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpi_fast.errors import InputError
from mpi_fast.schedule import SDES, VE, VP, SubVP, karras_sigmas, time_grid

ALL = [
    VE(),
    VP(),
    SubVP(),
    VE(0.002, 80.0),
    VP(0.002, 80.0),
    SubVP(0.002, 80.0),
    VP(beta_min=4.0),
    VP(beta_min=6.0),  # a falling beta: the slope is negative
    SubVP(0.05, 3.0, 0.5),
]
each = pytest.mark.parametrize("sde", ALL, ids=repr)


def times(sde):
    """Interior times, denser towards t_min, where sigma changes fastest relative to itself."""
    return sde.t_min + (sde.t_max - sde.t_min) * np.linspace(0.02, 0.98, 25) ** 2


def derivative(function, t):
    h = 1e-4 * t
    return (function(t - 2 * h) - 8 * function(t - h) + 8 * function(t + h) - function(t + 2 * h)) / (12 * h)


@each
def test_drift_is_the_logarithmic_derivative_of_the_scale(sde):
    for t in times(sde):
        assert sde.drift(t) == pytest.approx(derivative(sde.scale, t) / sde.scale(t), rel=1e-6, abs=1e-12)


@each
def test_diffusion_balances_the_variance(sde):
    """d(s^2 sigma^2)/dt = 2 f s^2 sigma^2 + g^2, the moment equation of a linear SDE."""

    def variance(t):
        return (sde.scale(t) * sde.sigma(t)) ** 2

    for t in times(sde):
        assert sde.diffusion(t) ** 2 == pytest.approx(
            derivative(variance, t) - 2 * sde.drift(t) * variance(t), rel=1e-6
        )


@each
def test_noise_covers_exactly_the_requested_range(sde):
    assert sde.sigma(sde.t_min) == pytest.approx(sde.sigma_min, rel=1e-9)
    assert sde.sigma(sde.t_max) == pytest.approx(sde.sigma_max, rel=1e-9)
    levels = [sde.sigma(t) for t in np.linspace(sde.t_min, sde.t_max, 50)]
    assert np.all(np.diff(levels) > 0)
    assert 0 <= sde.t_min < sde.t_max


@pytest.mark.parametrize(
    ("sde", "variance"), [(VP(), lambda b: 1 - math.exp(-b)), (SubVP(), lambda b: (1 - math.exp(-b)) ** 2)]
)
def test_noise_variance_is_that_of_the_paper(sde, variance):
    """Song et al. 2021, equation 29."""
    for t in times(sde):
        assert (sde.scale(t) * sde.sigma(t)) ** 2 == pytest.approx(variance(sde.integral(t)), rel=1e-9)


def test_vp_prior_is_nearly_white_for_unit_variance_data():
    sde = VP()
    s, sigma = sde.scale(1.0), sde.sigma(1.0)
    assert s**2 * (1 + sigma**2) == pytest.approx(1.0)
    assert s < 0.1


def test_documented_defaults():
    assert VP().beta(0) == 0.1
    assert VP().beta(1) == pytest.approx(9.13, abs=0.01)
    assert SubVP().beta(1) == pytest.approx(9.15, abs=0.01)
    assert VP().t_min == pytest.approx(9.6e-4, abs=1e-5)
    assert SubVP().t_min == pytest.approx(0.037, abs=5e-4)


def test_registry_holds_the_three():
    assert {name: type(make()) for name, make in SDES.items()} == {"ve": VE, "vp": VP, "sub-vp": SubVP}


@given(st.sampled_from([VE, VP, SubVP]), st.floats(1e-4, 0.5), st.floats(1.0, 1e3), st.floats(0, 1))
def test_any_range_works(make, sigma_min, sigma_max, fraction):
    sde = make(sigma_min, sigma_max)
    t = sde.t_min + fraction * (sde.t_max - sde.t_min)
    assert sde.sigma_min * (1 - 1e-6) <= sde.sigma(t) <= sde.sigma_max * (1 + 1e-6)
    assert sde.diffusion(t) > 0


@pytest.mark.parametrize("make", [VE, VP, SubVP])
@pytest.mark.parametrize("levels", [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (0.1, math.inf), (math.nan, 1.0)])
def test_impossible_ranges_are_refused(make, levels):
    with pytest.raises(InputError, match="expected 0 < sigma_min < sigma_max"):
        make(*levels)


@pytest.mark.parametrize("beta_min", [0.0, -1.0, 100.0, math.nan])
def test_impossible_beta_is_refused(beta_min):
    with pytest.raises(InputError, match=r"expected 0 < beta_min < 9\.2"):
        VP(beta_min=beta_min)


@given(st.integers(1, 200), st.floats(1e-4, 1.0), st.floats(1.5, 1e4))
def test_karras_grid_decreases_to_zero(steps, sigma_min, ratio):
    sigmas = karras_sigmas(steps, sigma_min, sigma_min * ratio)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == np.float64
    assert sigmas[0] == sigma_min * ratio
    assert sigmas[-1] == 0
    assert steps == 1 or sigmas[-2] == sigma_min
    assert np.all(np.diff(sigmas) < 0)


def test_karras_grid_is_equation_5():
    sigmas = karras_sigmas(18, 0.002, 80.0)
    i = np.arange(18)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigmas[:-1], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"sigma_min": 0.0}, "sigma_min is 0.0"),
        ({"sigma_min": 11.0}, "sigma_min is 11.0"),
    ],
)
def test_karras_grid_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        karras_sigmas(**{"steps": 5, **arguments})


@each
def test_time_grid_runs_from_noise_to_image(sde):
    grid = time_grid(sde, 10)
    assert grid.shape == (10,)
    assert (grid[0], grid[-1]) == (sde.t_max, sde.t_min)
    assert np.all(np.diff(grid) < 0)
    assert time_grid(sde, 1) == [sde.t_max]
    with pytest.raises(InputError, match="steps is 0"):
        time_grid(sde, 0)


def test_even_times_are_geometric_noise_levels_for_ve():
    levels = [VE().sigma(t) for t in time_grid(VE(), 4)]
    np.testing.assert_allclose(levels, [10, 1, 0.1, 0.01])
