"""Tuning on surfaces whose optimum is known."""

import numpy as np
import pytest

from mpi_fast.errors import InputError
from mpi_fast.methods.base import Estimate
from mpi_fast.methods.tuning import FAR_BEHIND, Axis, tune

TRUTH = np.ones((1, 4, 4), dtype=np.float32)


def surface(error):
    """A method whose images are off by error(parameters)."""

    def build(**parameters):
        return lambda signals: Estimate(TRUTH + np.float32(error(**parameters)))

    return build


def tuned(error, **space):
    return tune(surface(error), space, np.zeros((1, 1)), TRUTH)


@pytest.mark.parametrize("optimum", [1e-5, 0.3, 1.0, 3000.0])
def test_the_grid_grows_to_an_interior_optimum(optimum):
    found = tuned(lambda k: 0.1 + abs(np.log(k / optimum)), k=Axis((0.1, 1.0, 10.0)))
    assert abs(np.log10(found.parameters["k"] / optimum)) <= 0.25 + 1e-3  # half of the last step
    assert found.interior == {"k": True}
    values, scores = zip(*found.curves["k"], strict=True)
    best = scores.index(max(scores))
    assert values[best] == found.parameters["k"]
    assert 0 < best < len(scores) - 1


def test_two_axes_and_a_choice():
    def error(a, b, kind):
        return 0.1 + np.log(a / 8) ** 2 + np.log(b / 0.25) ** 2 + (kind == "bad")

    found = tuned(error, a=Axis((0.5, 1.0)), b=Axis((0.5, 1.0)), kind=("bad", "good"))
    assert found.parameters == {"a": 8.0, "b": 0.25, "kind": "good"}
    assert found.interior == {"a": True, "b": True}


@pytest.mark.parametrize(("behind", "best"), [(FAR_BEHIND - 0.1, "late"), (FAR_BEHIND + 0.1, "early")])
def test_of_two_choices_the_one_far_behind_is_not_refined_even_where_that_would_make_it_win(behind, best):
    """The late choice is some dB behind on the grid, but would win at half a step if it were refined."""
    start = 0.5 * 10 ** (behind / 20)

    def error(k, kind):
        return 0.5 + abs(np.log2(k)) if kind == "early" else 0.3 + 2 * (start - 0.3) * abs(np.log2(k) - 0.5)

    found = tuned(error, k=Axis((0.5, 1.0)), kind=("early", "late"))
    assert found.parameters == {"kind": best, "k": 1.414 if best == "late" else 1.0}
    assert found.interior == {"k": True}


def test_limits_hold_and_whole_numbers_stay_whole():
    found = tuned(lambda n: 1 / n, n=Axis((1, 4), low=1, high=20, whole=True))
    assert found.parameters == {"n": 16}
    assert isinstance(found.parameters["n"], int)
    assert found.interior == {"n": True}  # the next value would be beyond the limit


def test_a_method_that_never_gets_worse_has_no_interior_optimum():
    assert tuned(lambda k: 1 / (1 + np.log(k)), k=Axis((1.0, 1.5))).interior == {"k": False}


def test_without_frames_there_is_nothing_to_tune_on():
    with pytest.raises(InputError, match="no frames"):
        tune(surface(lambda: 0), {}, np.zeros((0, 1)), TRUTH[:0])
