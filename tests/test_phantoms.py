"""Phantoms: properties of every family, and dimensions of the OpenMPI shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from mpi_fast.errors import InputError
from mpi_fast.phantoms import (
    FAMILIES,
    OPENMPI_FAMILIES,
    OPENMPI_VOLUMES,
    TRAINING_FAMILIES,
    TRAINING_VOLUMES,
    VOLUMES,
    WIDE_FAMILIES,
    Canvas,
    generate,
)


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


SUMS = {
    "tumours": 33.775,
    "vessels": 54.137,
    "bars": 98.309,
    "dots": 44.728,
    "letters": 48.305,
    "regions": 176.584,
    "fields": 79.303,
    "shape": 98.848,
    "resolution": 67.085,
    "concentration": 7.381,
}


@pytest.mark.parametrize("family", SUMS)
def test_the_images_of_a_seed_stay_what_they_were(family):
    weights = np.random.default_rng(0).random((6, 19, 19))
    assert (generate(family, 6, seed=4) * weights).sum() == pytest.approx(SUMS[family], abs=2e-3)


@pytest.mark.parametrize("family", VOLUMES)
def test_volumes_are_concentrations_and_seeded(family):
    volumes = generate(family, 5, (19, 19, 19), seed=4, aspect=(0.5, 1.0))
    assert volumes.shape == (5, 19, 19, 19)
    assert volumes.dtype == np.float32
    assert volumes.min() >= 0
    assert volumes.max() <= 1
    assert (volumes.reshape(5, -1).max(axis=1) > 0.02).all()
    assert len(np.unique(volumes.reshape(5, -1).sum(axis=1))) == 5
    np.testing.assert_array_equal(volumes, generate(family, 5, (19, 19, 19), seed=4, aspect=(0.5, 1.0)))


@settings(max_examples=15, deadline=None)
@given(
    family=st.sampled_from(sorted(VOLUMES)),
    grid=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20)),
    aspect=st.tuples(st.floats(1 / 3, 3.0), st.floats(1 / 3, 3.0)),
)
def test_any_volume(family, grid, aspect):
    volumes = generate(family, 2, grid, seed=1, aspect=aspect)
    assert volumes.shape == (2, *grid)
    assert np.isfinite(volumes).all()


@pytest.mark.parametrize("family", [*TRAINING_FAMILIES, *WIDE_FAMILIES])
@pytest.mark.parametrize(("grid", "aspect"), [((26, 13), 1.0), ((8, 60), 1.0), ((19, 19), 3.0), ((19, 19), 1 / 3)])
def test_grids_that_are_not_square_are_not_empty(family, grid, aspect):
    images = generate(family, 40, grid, seed=3, aspect=aspect)
    assert (images.reshape(40, -1).max(axis=1) > 0.02).mean() > 0.85


@pytest.mark.parametrize("family", TRAINING_VOLUMES)
def test_flat_volumes_are_not_empty(family):
    volumes = generate(family, 12, (6, 24, 12), seed=3, aspect=(3.0, 1.0))
    assert (volumes.reshape(12, -1).max(axis=1) > 0.02).mean() > 0.8


def test_a_canvas_has_pixels_nearly_cubic_whatever_the_voxels():
    canvas = Canvas.of_grid((10, 20, 40), (3.0, 1.5))
    sizes = [float(np.diff(c.ravel())[0]) for c in canvas.coordinates]
    assert max(sizes) < 2.1 * min(sizes)
    assert canvas.pixel == pytest.approx(max(sizes), rel=1e-3)
    np.testing.assert_allclose(canvas.extent, (1.0, 30 / 40, 30 / 40))  # x, y, z
    values = np.random.default_rng(0).random((2, 10, 20, 40)).astype(np.float32)
    drawn = values
    for axis, factor in enumerate(canvas.factors):
        drawn = np.repeat(drawn, factor, axis=axis + 1)
    np.testing.assert_allclose(canvas.average(drawn), values, rtol=1e-5)


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
    )  # corners are drawn slightly too large


OPENMPI_GRID = {"grid": (38, 76, 76), "aspect": 1.0}  # half a millimetre each, 38 x 38 x 19 mm


def test_the_cone_has_its_volume():
    """Frustum of radii 1 and 1 + 22 tan(10 deg) mm, 22 mm long, with a rounded tip of 1 mm."""
    volume = generate("shape", 4, seed=0, **OPENMPI_GRID).sum(axis=(1, 2, 3)) / 8
    base = 1 + 22 * np.tan(np.deg2rad(10))
    expected = np.pi * 22 / 3 * (1 + base + base**2) + 2 / 3 * np.pi
    np.testing.assert_allclose(volume, expected, rtol=0.05)


def test_the_resolution_phantom_has_five_tubes():
    volume = generate("resolution", 1, seed=0, **OPENMPI_GRID)[0]
    along = max((0, 1, 2), key=lambda axis: (volume.sum(axis=tuple({0, 1, 2} - {axis})) > 0).sum())
    # Far from the origin, at one end of the phantom, a section shows five discs.
    sections = [np.take(volume, place, axis=along) > 0.3 for place in range(volume.shape[along])]
    assert max(measure.label(section).max() for section in sections) == 5


def test_the_concentration_volume_is_a_dilution_series():
    volume = generate("concentration", 1, seed=0, **OPENMPI_GRID)[0]
    parts = measure.label(volume > 0.03)
    found = sorted((volume * (parts == part)).sum() / 8 for part in range(1, parts.max() + 1))  # mm^3
    np.testing.assert_allclose(found, sorted(8 / 1.5**k for k in range(8)), rtol=0.2)


def test_thin_tubes_and_single_points_survive_the_averaging():
    for family in ("strands", "points", "vessels"):
        assert (generate(family, 8, (9, 9, 9), seed=2).reshape(8, -1).sum(axis=1) > 0.05).all()


def test_training_never_sees_the_openmpi_phantoms():
    assert not set(OPENMPI_FAMILIES) & set(TRAINING_FAMILIES | WIDE_FAMILIES)
    assert not set(OPENMPI_VOLUMES) & set(TRAINING_VOLUMES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"family": "cats"},
        {"family": []},
        {"family": "dots", "count": -1},
        {"family": "dots", "grid": (0, 3)},
        {"family": "dots", "grid": (3, 3, 3, 3)},
        {"family": "letters", "grid": (3, 3, 3)},
        {"family": "dots", "aspect": (1.0, 1.0)},
        {"family": "dots", "grid": (3, 3, 3), "aspect": (1.0, -1.0)},
    ],
)
def test_bad_requests(wrong):
    with pytest.raises(InputError, match="phantom"):
        generate(**{"count": 2, **wrong})
