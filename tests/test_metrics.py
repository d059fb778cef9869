import numpy as np
import pytest
from skimage.filters import prewitt as skimage_prewitt
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mpi_fast.errors import InputError
from mpi_fast.metrics import (
    concentration_error,
    coverage,
    edge_f1,
    edge_similarity,
    nrmse,
    prewitt,
    psnr,
    sharpness,
    ssim,
)
from mpi_fast.phantoms import generate
from mpi_fast.uncertainty import LEVELS, half_width

ALL = psnr, ssim, nrmse, concentration_error, edge_similarity, edge_f1, sharpness


@pytest.fixture(scope="module", params=[(19, 19), (11, 23), (11, 14, 13)])
def images(request):
    drawn = generate(["tumours", "vessels", "shape"], 6, request.param, seed=3) * np.float32(7.0)
    truth = drawn[drawn.reshape(len(drawn), -1).max(axis=1) > 0]  # a vessel may lie outside of a narrow image
    noise = np.random.default_rng(0).normal(0.0, 0.5, truth.shape)
    return np.maximum(truth + noise, 0.0), truth.astype(np.float64)


def test_ssim_is_that_of_scikit_image(images):
    expected = [
        structural_similarity(
            image, truth, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=truth.max()
        )
        for image, truth in zip(*images, strict=True)
    ]
    np.testing.assert_allclose(ssim(*images), expected, rtol=0, atol=1e-9)


def test_psnr_is_that_of_scikit_image(images):
    expected = [peak_signal_noise_ratio(t, i, data_range=t.max()) for i, t in zip(*images, strict=True)]
    np.testing.assert_allclose(psnr(*images), expected, rtol=1e-12)


def test_the_truth_itself_is_perfect(images):
    _, truth = images
    assert np.isposinf(psnr(truth, truth)).all()
    np.testing.assert_allclose(ssim(truth, truth), 1.0)
    np.testing.assert_array_equal(nrmse(truth, truth), 0.0)
    np.testing.assert_array_equal(concentration_error(truth, truth), 0.0)
    for metric in (edge_similarity, edge_f1, sharpness):
        np.testing.assert_allclose(metric(truth, truth), 1.0)


def test_negative_values_count_as_zero_and_nothing_is_rescaled(images):
    image, truth = images
    negative = np.where(image > 0, image, -5.0)
    for metric in ALL:
        np.testing.assert_array_equal(metric(negative, truth), metric(image, truth))
    np.testing.assert_allclose(concentration_error(2 * truth, truth), 1.0)
    np.testing.assert_allclose(nrmse(2 * truth, truth), 1.0)


def test_metrics_do_not_depend_on_the_unit(images):
    image, truth = images
    for metric in ALL:
        np.testing.assert_allclose(metric(1e-6 * image, 1e-6 * truth), metric(image, truth), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_an_empty_truth_gives_nan_without_warnings():
    image, truth = np.ones((1, 19, 19)), np.zeros((1, 19, 19))
    for metric in ALL:
        assert np.isnan(metric(image, truth)).all()


def test_bad_shapes_are_refused():
    with pytest.raises(InputError, match="same shape"):
        psnr(np.zeros((2, 19, 19)), np.zeros((1, 19, 19)))
    with pytest.raises(InputError, match="at least 11"):
        ssim(np.zeros((1, 19, 10)), np.zeros((1, 19, 10)))
    with pytest.raises(InputError, match="at least 11"):
        ssim(np.zeros((1, 19, 19, 10)), np.zeros((1, 19, 19, 10)))
    with pytest.raises(InputError, match="planes or volumes"):
        psnr(np.zeros((1, 361)), np.zeros((1, 361)))


def test_gradients_are_those_of_scikit_image(images):
    _, truth = images
    slopes = ([skimage_prewitt(one, axis=axis) for axis in range(one.ndim)] for one in truth)
    expected = [np.sqrt(np.square(along).sum(axis=0)) for along in slopes]
    np.testing.assert_allclose(prewitt(truth), expected, atol=1e-12)


def test_blur_lowers_sharpness_and_edges(images):
    _, truth = images
    blurred = (truth + np.roll(truth, 1, axis=1) + np.roll(truth, -1, axis=1)) / 3
    assert sharpness(blurred, truth).mean() < 0.95
    assert edge_similarity(blurred, truth).mean() < 0.99
    assert edge_f1(blurred, truth).mean() < 0.99


def test_edges_are_counted_as_f1_says():
    truth, image = np.zeros((2, 1, 12, 12))
    truth[:, :, 6:] = 1  # columns 5 and 6 are its edges
    image[:, :, 7:] = 1  # columns 6 and 7
    np.testing.assert_allclose(edge_f1(image, truth), 0.5)
    np.testing.assert_array_equal(edge_f1(0 * image, truth), 0.0)


def test_normal_errors_are_covered_as_often_as_the_level_says():
    rng = np.random.default_rng(0)
    truth = rng.uniform(5, 6, (4, 100, 100))
    image, std = truth + 0.3 * rng.standard_normal(truth.shape), np.full(truth.shape, 0.3)
    for level in (0.5, 0.8, 0.95):
        np.testing.assert_allclose(coverage(image, half_width(std, None, level), truth), level, atol=0.02)
    inside = np.zeros((100, 100), bool)
    inside[:50] = True
    image[:, 50:] += 100
    np.testing.assert_allclose(coverage(image, 1.96 * std, truth, inside), 0.95, atol=0.02)
    assert (coverage(image, 1.96 * std, truth) < 0.5).all()


@pytest.mark.parametrize("shape", [0.5, 1.0, 2.0])
def test_intervals_follow_the_quantiles_of_a_frame(shape):
    rng = np.random.default_rng(1)
    truth, std = np.full((2, 100, 100), 1e3), np.array([0.5, 2.0]).reshape(2, 1, 1) * np.ones((2, 100, 100))
    sign = rng.choice([-1, 1], truth.shape)
    image = truth + sign * std * rng.weibull(shape, truth.shape)
    quantiles = np.log(1 / (1 - np.array([LEVELS, LEVELS]))) ** (1 / shape)
    for level in (0.2, 0.5, 0.8, 0.95, 0.99):
        np.testing.assert_allclose(coverage(image, half_width(std, quantiles, level), truth), level, atol=0.02)


def test_levels_and_shapes_of_intervals():
    image = np.ones((1, 4, 4))
    with pytest.raises(InputError, match="level"):
        half_width(image, None, 1.0)
    with pytest.raises(InputError, match="half_width"):
        coverage(image, image[:, :2], image)
