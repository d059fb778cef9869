import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mpi_fast.errors import InputError
from mpi_fast.metrics import concentration_error, nrmse, psnr, ssim
from mpi_fast.phantoms import generate


@pytest.fixture(scope="module", params=[(19, 19), (11, 23)])
def images(request):
    drawn = generate(["tumours", "vessels", "shape"], 6, request.param, seed=3) * np.float32(7.0)
    truth = drawn[drawn.max(axis=(1, 2)) > 0]  # a vessel may lie outside of a narrow image
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


def test_negative_values_count_as_zero_and_nothing_is_rescaled(images):
    image, truth = images
    negative = np.where(image > 0, image, -5.0)
    for metric in (psnr, ssim, nrmse, concentration_error):
        np.testing.assert_array_equal(metric(negative, truth), metric(image, truth))
    np.testing.assert_allclose(concentration_error(2 * truth, truth), 1.0)
    np.testing.assert_allclose(nrmse(2 * truth, truth), 1.0)


def test_metrics_do_not_depend_on_the_unit(images):
    image, truth = images
    for metric in (psnr, ssim, nrmse, concentration_error):
        np.testing.assert_allclose(metric(1e-6 * image, 1e-6 * truth), metric(image, truth), rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_an_empty_truth_gives_nan_without_warnings():
    image, truth = np.ones((1, 19, 19)), np.zeros((1, 19, 19))
    for metric in (psnr, ssim, nrmse, concentration_error):
        assert np.isnan(metric(image, truth)).all()


def test_bad_shapes_are_refused():
    with pytest.raises(InputError, match="same shape"):
        psnr(np.zeros((2, 19, 19)), np.zeros((1, 19, 19)))
    with pytest.raises(InputError, match="at least 11"):
        ssim(np.zeros((1, 19, 10)), np.zeros((1, 19, 10)))
