"""philox.py: published vectors, the distribution, and independence of a number from all other coordinates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mpi_fast.errors import InputError
from mpi_fast.philox import _encrypt, standard_normal

# counter, key, output: the lines "philox4x32 10" of tests/kat_vectors in DEShawResearch/random123.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
WORD = st.integers(0, 2**32 - 1)


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def philox4x32(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Encrypt counters (..., 4), as `standard_normal` does."""
    even, odd = np.moveaxis(counter, -1, 0).astype(np.uint64).reshape(2, 2, *counter.shape[:-1]).swapaxes(0, 1)
    encrypted = np.stack(_encrypt(even, odd, (int(key[0]), int(key[1]))), axis=1).reshape(4, *counter.shape[:-1])
    return np.moveaxis(encrypted, 0, -1)


def scalar_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python integers, written from the paper's figure, as an independent reference."""
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p2 = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (p2 >> 32) ^ x1 ^ k0, p2 % 2**32, (p0 >> 32) ^ x3 ^ k1, p0 % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [x0, x1, x2, x3]


def scalar_normal(seed: int, sample: int, step: int, voxel: int) -> float:
    """The documented mapping, one number at a time."""
    block, lane = divmod(voxel, 4)
    w = scalar_philox([block, step, sample, 0], [seed % 2**32, seed >> 32])
    a, b = w[lane // 2 * 2 : lane // 2 * 2 + 2]
    radius = np.sqrt(-2 * np.log(((a >> 8) + 1) * 2.0**-24))
    return float(radius * (np.sin if lane % 2 else np.cos)(2 * np.pi * (b >> 8) * 2.0**-24))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_published_known_answers(counter, key, expected):
    np.testing.assert_array_equal(philox4x32(words(counter), words(key)), words(expected))


@given(
    st.lists(st.lists(WORD, min_size=4, max_size=4), min_size=1, max_size=5),
    st.lists(WORD, min_size=2, max_size=2),
)
def test_vectorised_equals_scalar(counters, key):
    result = philox4x32(np.array(counters, np.uint32), np.array(key, np.uint32))
    np.testing.assert_array_equal(result, [scalar_philox(c, key) for c in counters])


@given(st.integers(0, 2**64 - 1), st.integers(0, 99), WORD, st.integers(0, 400))
def test_normal_follows_the_documented_mapping(seed, sample, step, voxel):
    images = standard_normal(seed, sample + 1, step, voxel + 1)
    expected = scalar_normal(seed, sample, step, voxel)
    np.testing.assert_array_max_ulp(images[sample, voxel], np.float32(expected), maxulp=1)


def test_golden_values():
    """Fixes the streams, because a change would change all samples that users reproduce from a seed."""
    expected = [
        [-0.1702349, -0.71806467, -1.8332943, 1.1790441, -0.84229356],
        [-0.79150015, 1.0289919, -0.17220457, -0.046329334, 0.24037978],
    ]
    np.testing.assert_allclose(standard_normal(2025, 2, 1, 5), expected, rtol=0, atol=1e-7)


def test_float32_evaluation_stays_within_the_promised_tolerance():
    """The computation of a kernel: logf, sqrtf and sincospif on the exact float32 numbers."""
    counter = np.zeros((4096, 4), np.uint32)
    counter[:, 0] = np.arange(4096)
    w = philox4x32(counter, np.array([5, 0], np.uint32))
    u1 = ((w[:, 0] >> 8) + 1).astype(np.float32) * np.float32(2**-24)
    u2 = (w[:, 1] >> 8).astype(np.float32) * np.float32(2**-24)
    assert np.all(u1.astype(np.float64) == ((w[:, 0] >> 8) + 1) / 2.0**24)
    cosine = np.cos(2 * np.pi * u2.astype(np.float64)).astype(np.float32)
    kernel = np.sqrt(np.float32(-2) * np.log(u1)) * cosine
    assert kernel.dtype == np.float32
    np.testing.assert_allclose(kernel, standard_normal(5, 1, 0, 4 * 4096)[0, 0::4], rtol=0, atol=2e-6)


def test_distribution_is_standard_normal():
    x = standard_normal(1, 320, 0, 361).ravel().astype(np.float64)
    n = len(x)
    assert abs(x.mean()) < 4 / np.sqrt(n)
    assert abs(x.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs(stats.skew(x)) < 4 * np.sqrt(6 / n)
    assert abs(stats.kurtosis(x)) < 4 * np.sqrt(24 / n)
    assert stats.kstest(x, "norm").pvalue > 1e-3
    assert np.abs(x).max() <= np.sqrt(48 * np.log(2))


@pytest.mark.parametrize("lane", range(4))
def test_each_lane_is_standard_normal(lane):
    x = standard_normal(2, 160, 0, 400)[..., lane::4].ravel()
    assert stats.kstest(x, "norm").pvalue > 1e-3


def test_neighbouring_streams_are_independent():
    """Neighbouring streams, and the lanes of a block, are uncorrelated in values and squares."""
    n = 40_000
    coordinates = [(0, 0, 0), (1, 0, 0), (2**32, 0, 0), (0, 1, 0), (0, 0, 1)]
    streams = np.stack([standard_normal(seed, s + 1, step, n)[s] for seed, s, step in coordinates])
    lanes = streams[0].reshape(-1, 4).T
    for group in (streams, lanes):
        for moment in (group, group**2):
            correlation = np.corrcoef(moment) - np.eye(len(group))
            assert np.abs(correlation).max() < 4.5 / np.sqrt(group.shape[1])


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 30), st.integers(1, 30))
def test_neither_the_other_samples_nor_the_image_size_matter(samples, others, voxels, more):
    whole = standard_normal(9, samples + others, 4, voxels + more)
    np.testing.assert_array_equal(standard_normal(9, samples, 4, voxels), whole[:samples, :voxels])


def test_no_samples_give_an_empty_array():
    assert standard_normal(0, 0, 0, 5).shape == (0, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.5}, "seed is 1.5, expected an integer"),
        ({"samples": -1}, "samples is -1"),
        ({"step": -1}, "step is -1"),
        ({"step": 2**32}, "step"),
        ({"voxels": 0}, "voxels is 0"),
    ],
)
def test_bad_arguments_say_what_is_wrong(arguments, message):
    with pytest.raises(InputError, match=message):
        standard_normal(**{"seed": 0, "samples": 2, "step": 0, "voxels": 3, **arguments})
