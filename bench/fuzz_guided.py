"""Read damaged files of one kind; Atheris chooses the mutations of `victims` by the code that they reach.

    pip install atheris
    python bench/fuzz_guided.py matrix [FOLDER] [-runs=10000] [-max_total_time=600]

The arguments after the kind are those of libFuzzer. A folder stores the inputs that reached new code, and a later run
continues from them. A fault ends the run with its traceback; the mutation printed before it is input for `fuzz.py
--again`.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris
from hypothesis import given, settings

with atheris.instrument_imports(include=["mpi_fast"]):
    from fuzz import limits, outcome
    from victims import VICTIMS, Step, damaged, mutations


def main() -> None:
    kinds = "|".join(VICTIMS)
    if len(sys.argv) < 2 or sys.argv[1] not in VICTIMS:
        sys.exit(f"usage: python {sys.argv[0]} {kinds} [FOLDER] [libFuzzer's options]")
    kind = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        original = VICTIMS[kind].build(folder)

        @settings(database=None, deadline=None)
        @given(mutations(kind))
        def one(steps: list[Step]) -> None:
            path = damaged(kind, original, folder / "damaged", steps)
            with limits():
                result, said = outcome(kind, path, steps)
            if result == "FAULT":
                print(f"--kinds {kind} --again '{json.dumps(steps)}'", flush=True)
                raise AssertionError(said)

        # Hypothesis needs more bytes than libFuzzer begins with, so all lengths are allowed from the start.
        atheris.Setup([*sys.argv, "-len_control=0"], one.hypothesis.fuzz_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
