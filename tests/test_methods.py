"""Comparison of every method with a library, a closed form or its optimality conditions, and tests of all methods."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
from skimage.restoration import denoise_tv_chambolle

from mpi_fast.errors import InputError, MismatchError
from mpi_fast.likelihood import Likelihood, signal_scale
from mpi_fast.methods import DEFAULT, REGISTRY, create, get
from mpi_fast.methods.nnls import NNLS
from mpi_fast.methods.sampled import SampleMean
from mpi_fast.methods.sparse import L1
from mpi_fast.methods.tikhonov import RULES, Tikhonov
from mpi_fast.methods.variation import Nonconvex, TotalVariation, firm_threshold, gradient, gradient_transposed
from mpi_fast.metrics import psnr
from mpi_fast.noise import add_noise
from mpi_fast.nonnegative import nnls
from mpi_fast.phantoms import generate
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.schedule import SDES

QUICK = tuple(name for name in DEFAULT if not REGISTRY[name].network and not REGISTRY[name].ours)


@pytest.fixture(scope="module")
def truth():
    return generate(["regions", "bars"], 6, seed=1)


@pytest.fixture(scope="module")
def rows(truth, true_rows):
    return add_noise(truth.reshape(len(truth), -1) @ true_rows.T, 25.0, np.random.default_rng(0))


@pytest.fixture(scope="module")
def likelihood(calibration, rows):
    """The signals in the units of the methods."""
    reduced = calibration.reduce(rows)
    scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
    return Likelihood(reduced.y / scale[:, None], calibration.singular_values, calibration.basis, reduced.noise / scale)


@pytest.fixture(scope="module")
def forward(calibration):
    return (calibration.singular_values[:, None] * calibration.basis.T).astype(np.float64)


class Identity:
    """A scanner that measures every voxel directly, with the attributes of a calibration that methods use."""

    def __init__(self, grid):
        self.grid, self.num_voxels = grid, math.prod(grid)
        self.singular_values, self.basis = np.ones(self.num_voxels, "f4"), np.eye(self.num_voxels, dtype="f4")


def identity(images, noise=1.0):
    """The calibration of this scanner, and its signals."""
    frames, *grid = images.shape
    calibration = Identity(tuple(grid))
    y = images.reshape(frames, -1).astype(np.float32)
    std = np.full(frames, noise, dtype=np.float32)
    return calibration, Likelihood(y, calibration.singular_values, calibration.basis, std)


# -- tests of all methods ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DEFAULT)
def test_images_follow_the_signals(name, calibration, rows, truth):
    method = create(name, calibration)
    found = method(rows).image
    assert found.shape == truth.shape
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert psnr(found, truth).mean() > psnr(np.zeros_like(truth), truth).mean() + 3
    np.testing.assert_allclose(method(1e-3 * rows).image, 1e-3 * found, rtol=1e-2, atol=1e-5 * found.max())
    np.testing.assert_allclose(method(rows[2:3]).image[0], found[2], atol=1e-3 * found.max())


@pytest.mark.parametrize("name", QUICK)
def test_reduced_frames_will_do(name, calibration, rows):
    method = create(name, calibration, **({"rows": "reduced"} if name == "art" else {}))
    reduced = calibration.reduce(rows)
    np.testing.assert_array_equal(method(reduced).image, method(rows).image)
    with pytest.raises(MismatchError):
        method(type(reduced)(reduced.y[:, 1:], reduced.noise, reduced.snr_db))


def test_a_frame_without_signals_is_empty(calibration, rows):
    for name in QUICK:
        assert not create(name, calibration)(0 * rows[:1]).image.any()


def test_art_over_rows_cannot_take_reduced_frames(calibration, rows):
    with pytest.raises(InputError, match="expected rows"):
        create("art", calibration)(calibration.reduce(rows))


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("art", {"rows": "none"}),
        ("art", {"strength": 0.0}),
        ("art", {"iterations": 2.5}),
        ("tikhonov", {"strength": 0.0}),
        ("tikhonov", {"rule": "guess"}),
        ("nnls", {"strength": -1.0}),
        ("l1", {"iterations": 0}),
        ("l1", {"iterations": 2.5}),
        ("tv", {"iterations": 0}),
        ("deq", {"iterations": 0.5}),
        ("nonconvex", {"knee": 0.0}),
        ("plug-and-play", {"level": np.nan}),
        ("plug-and-play", {"iterations": 2.5}),
    ],
)
def test_parameters_out_of_range(name, wrong, calibration):
    with pytest.raises(InputError):
        create(name, calibration, **wrong)


def test_unknown_names_are_refused():
    with pytest.raises(InputError, match="expected one of art, "):
        get("magic")


# -- posterior samples ------------------------------------------------------------------------------------------------


def test_samples_are_those_of_a_reconstructor(calibration, rows):
    found = SampleMean(calibration, 3, "euler-maruyama", "vp", 5, seed=4)(rows[:2])
    reconstruct = Reconstructor(calibration, device="cpu")
    drawn = reconstruct.samples(rows[:2], 3, sampler="euler-maruyama", steps=5, sde="vp", seed=4)
    np.testing.assert_allclose(found.image, drawn.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.std, drawn.std(axis=1, ddof=1), rtol=1e-5)
    assert SampleMean(calibration, 1, steps=1)(rows[:1]).std is None


def test_every_process_has_a_method_and_so_have_the_published_settings(calibration, rows):
    assert set(SDES) <= set(REGISTRY)
    fixed = {sde: REGISTRY[sde].fixed for sde in SDES}
    assert all(fixed[sde]["sde"] == sde for sde in SDES)
    assert len({(one["samples"], one["steps"], one["sampler"]) for one in fixed.values()}) == 1
    quick = [create(sde, calibration, threads=1) for sde in SDES]
    assert REGISTRY["paper"].fixed == {"samples": 1, "sampler": "predictor-corrector", "steps": 1000}
    assert REGISTRY["samples"].fixed == {"samples": 32}
    assert all(isinstance(one, SampleMean) for one in quick)


@pytest.mark.parametrize(
    "options", [{"sampler": "euler-maruyama", "sde": sde, "steps": 30} for sde in SDES] + [{"sampler": "dpm"}]
)
def test_the_mean_of_samples_is_far_better_than_any_linear_estimate(options, calibration, rows, truth):
    linear = Tikhonov(calibration, "prior")(rows[:2]).image
    found = SampleMean(calibration, samples=4, threads=1, **options)(rows[:2])
    assert psnr(found.image, truth[:2]).mean() > psnr(linear, truth[:2]).mean() + 6
    assert (found.std > 0).mean() > 0.5


# -- Tikhonov ---------------------------------------------------------------------------------------------------------


def test_tikhonov_is_that_of_scipy(calibration, likelihood, forward):
    method = Tikhonov(calibration, "prior", 0.7)
    for found, y, noise in zip(method.solve(likelihood), likelihood.y, likelihood.noise, strict=True):
        matrix = np.concatenate([forward, np.sqrt(0.7) * noise * np.eye(forward.shape[1])])
        expected = scipy.linalg.lstsq(matrix, np.concatenate([y, np.zeros(forward.shape[1])]))[0]
        np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-5 * expected.max())


def test_discrepancy_leaves_as_much_as_the_noise(calibration, likelihood, forward):
    s = calibration.singular_values.astype(np.float64)
    mu = Tikhonov(calibration, "discrepancy").parameter(likelihood)
    left = ((mu[:, None] / (s**2 + mu[:, None]) * likelihood.y) ** 2).sum(axis=1)
    np.testing.assert_allclose(left, len(s) * likelihood.noise**2, rtol=0.1)  # mu is searched in steps of 12 %


def test_gcv_is_least_where_it_is_computed_from_the_whole_matrix(calibration, rows):
    whitened = calibration.matrix * calibration.weights[:, None]
    matrix = np.concatenate([whitened.real, whitened.imag]).astype(np.float64)
    signals = (rows * calibration.weights)[0]
    signals = np.concatenate([signals.real, signals.imag])
    # The reduction drops and shrinks singular values, so the comparison cannot be exact.
    u, s, _ = np.linalg.svd(matrix, full_matrices=False)
    y = u.T @ signals
    candidates = s[0] ** 2 * 10.0 ** np.linspace(-7, 0, 71)
    outside = (signals**2).sum() - (y**2).sum()
    kept = candidates[:, None] / (s**2 + candidates[:, None])
    score = ((kept * y) ** 2).sum(axis=1) + outside
    best = candidates[(score / (len(matrix) - (1 - kept).sum(axis=1)) ** 2).argmin()]
    reduced = calibration.reduce(rows[:1])
    unscaled = Likelihood(reduced.y, calibration.singular_values, calibration.basis, reduced.noise)
    found = Tikhonov(calibration, "gcv").parameter(unscaled)[0]
    assert best / 3 < found < best * 3


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_better_than_far_more_and_far_less(rule, calibration, rows, truth):
    found, more, less = (psnr(Tikhonov(calibration, rule, k)(rows).image, truth).mean() for k in (1.0, 1e3, 1e-5))
    assert found > max(more, less)


# -- non-negative least squares, L1 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.1, 3.0, 100.0])
def test_nnls_is_that_of_scipy(strength, calibration, likelihood, forward):
    part = Likelihood(likelihood.y[:3], likelihood.singular_values, likelihood.basis, likelihood.noise[:3])
    for found, y, noise in zip(NNLS(calibration, strength).solve(part), part.y, part.noise, strict=True):
        matrix = np.concatenate([forward, np.sqrt(strength) * noise * np.eye(forward.shape[1])])
        expected, _ = scipy.optimize.nnls(matrix, np.concatenate([y, np.zeros(forward.shape[1])]))
        np.testing.assert_allclose(found, expected, atol=1e-6 * expected.max())


def test_nnls_without_a_penalty_fits_as_well_as_scipy():
    rng = np.random.default_rng(2)
    forward, y = rng.standard_normal((20, 30)), rng.standard_normal(20)
    expected = scipy.optimize.nnls(forward, y)[1]
    assert np.linalg.norm(forward @ nnls(forward, y, 1e-9) - y) == pytest.approx(expected, abs=1e-4)


def test_l1_meets_the_conditions_of_optimality(calibration, likelihood, forward):
    strength = 5.0
    images = L1(calibration, strength, 5000).solve(likelihood).astype(np.float64)
    slope = ((images @ forward.T - likelihood.y) / likelihood.noise[:, None] ** 2) @ forward + strength
    assert np.abs(slope[images > 1e-3]).max() < 0.05 * strength
    assert slope[images == 0].min() > -0.05 * strength


# -- total variation and the nonconvex penalty ------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(5, 7), (4, 5, 3), (1, 6)])
def test_the_transposed_gradient_is_the_adjoint(grid):
    rng = np.random.default_rng(0)
    image, field = rng.standard_normal((2, *grid)), rng.standard_normal((len(grid), 2, *grid))
    assert (gradient(image) * field).sum() == pytest.approx((image * gradient_transposed(field)).sum())


@pytest.mark.parametrize(
    ("weight", "grid", "families"),
    [
        (0.05, (13, 11), ["regions", "tumours", "bars"]),
        (0.2, (13, 11), ["regions", "tumours", "bars"]),
        (0.1, (7, 6, 8), ["boxes", "tumours"]),
    ],
)
def test_total_variation_is_that_of_scikit_image(weight, grid, families):
    noisy = 1 + generate(families, len(families), grid, seed=2)
    noisy += np.random.default_rng(0).normal(0, 0.1, noisy.shape).astype(np.float32)
    expected = [denoise_tv_chambolle(one.astype(np.float64), weight, eps=1e-12, max_num_iter=5000) for one in noisy]
    calibration, signals = identity(noisy)
    found = TotalVariation(calibration, weight, iterations=1000).solve(signals)
    np.testing.assert_allclose(found.reshape(noisy.shape), expected, atol=1e-3)


def test_firm_thresholding_is_the_proximal_map():
    x = np.linspace(0, 4, 4001)
    penalty = np.where(x < 1.5, x - x**2 / 3, 0.75)
    for value in (-1.0, 0.3, 0.6, 1.2, 1.49, 1.6, 3.0):
        expected = x[((x - value) ** 2 / 2 + 0.5 * penalty).argmin()]
        assert firm_threshold(np.array([value]), 0.5, 1.5)[0] == pytest.approx(expected, abs=1e-3)


def test_nonconvex_sparsity_alone_is_firm_thresholding():
    images = np.random.default_rng(1).uniform(0, 4, (2, 6, 5)).astype(np.float32)
    calibration, signals = identity(images)
    found = Nonconvex(calibration, sparsity=0.5, smoothness=1e-6, knee=1.5, iterations=500).solve(signals)
    np.testing.assert_allclose(found.reshape(images.shape), firm_threshold(images, 0.5, 1.5), atol=1e-3)
