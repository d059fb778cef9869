"""Damaged files of every kind give an error of the package or plausible values, within 5 s and 1 GB.

`bench/fuzz.py` tests thousands of files, each batch in a separate process.
"""

import faulthandler
from typing import Any, NoReturn

import pytest
from fuzz import limits, outcome
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from victims import VICTIMS, Step, damaged, mutations

pytestmark = pytest.mark.filterwarnings("ignore")  # of the package and of NumPy about damaged files


def out_of_time(*_: Any) -> NoReturn:
    raise TimeoutError("over 5 s")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return {kind: victim.build(folder) for kind, victim in VICTIMS.items()}


@pytest.mark.parametrize("kind", [*VICTIMS])
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
@given(data=st.data())
def test_damaged_files(kind: str, originals: Any, tmp_path: Any, data: Any) -> None:
    steps: list[Step] = data.draw(mutations(kind))
    path = damaged(kind, originals[kind], tmp_path / "damaged", steps)
    faulthandler.dump_traceback_later(120, exit=True)  # for a library that hangs, which no exception can stop
    try:
        with limits(out_of_time):
            result, said = outcome(kind, path, steps)
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert result != "FAULT", said


@pytest.mark.parametrize("kind", [*VICTIMS])
def test_what_is_not_damaged_is_read(kind, originals, tmp_path):
    path = damaged(kind, originals[kind], tmp_path / "whole", [])
    assert outcome(kind, path, []) == ("read", "")
