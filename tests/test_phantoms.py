"""Phantoms: what every family promises, and the OpenMPI shapes' measures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_fast.errors import InputError
from mpi_fast.phantoms import FAMILIES, OPENMPI_FAMILIES, TRAINING_FAMILIES, generate


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_concentrations_and_seeded(family):
    images = generate(family, 20, seed=4)
    assert images.shape == (20, 19, 19)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert (images.reshape(20, -1).max(axis=1) > 0.02).mean() > 0.8
    np.testing.assert_array_equal(images, generate(family, 20, seed=4))
    assert not np.array_equal(images, generate(family, 20, seed=5))


@settings(max_examples=15, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    grid=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    aspect=st.floats(0.3, 3.0),
)
def test_any_grid(family, grid, aspect):
    images = generate(family, 3, grid, seed=1, aspect=aspect)
    assert images.shape == (3, *grid)
    assert np.isfinite(images).all()


def test_a_finer_grid_shows_the_same_phantom():
    coarse, fine = generate("tumours", 30, (19, 19), seed=2), generate("tumours", 30, (57, 57), seed=2)
    averaged = fine.reshape(30, 19, 3, 19, 3).mean(axis=(2, 4))
    assert np.abs(averaged - coarse).mean() < 0.01


def test_families_take_turns_whatever_the_count():
    both = generate(["bars", "dots"], 7, seed=0)
    assert both.shape == (7, 19, 19)
    np.testing.assert_array_equal(both[::2], generate("bars", 4, seed=0))


def test_the_cone_has_the_volume_of_its_section():
    """Shape phantom: tip radius 1 mm, base radius 1 + 22 tan(10 deg) mm, 22 mm long, plus the rounded tip."""
    area = generate("shape", 10, (57, 57), seed=0).sum(axis=(1, 2)) * (38 / 57) ** 2
    expected = 22 * (1 + 1 + 22 * np.tan(np.deg2rad(10))) + np.pi / 2
    np.testing.assert_allclose(area, expected, rtol=0.05)


def test_the_concentration_phantom_is_a_dilution_series():
    totals = generate("concentration", 4, (19, 19), seed=0).sum(axis=(1, 2)) * 4  # mm^2 of full concentration
    np.testing.assert_allclose(
        totals, 4 * sum(1 / 1.5**k for k in range(4)), rtol=0.1
    )  # drawn corners are a little full


def test_training_never_sees_the_openmpi_phantoms():
    assert not set(OPENMPI_FAMILIES) & set(TRAINING_FAMILIES)


@pytest.mark.parametrize(
    "wrong", [{"family": "cats"}, {"family": []}, {"family": "dots", "count": -1}, {"family": "dots", "grid": (0, 3)}]
)
def test_bad_requests(wrong):
    with pytest.raises(InputError, match="phantom"):
        generate(**{"count": 2, **wrong})
