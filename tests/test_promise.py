"""Every line of the promise names an existing test."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
PAGE = (FOLDER.parent / "docs" / "promise.md").read_text()


def test_every_line_names_an_existing_test():
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.endswith("| test |")]
    assert len(lines) > 25
    for line in lines:
        assert re.search(r"`test_\w+\.py::test_\w+` \|$", line), line
    for file, name in re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE):
        tree = ast.parse((FOLDER / file).read_text())
        defined = {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in defined, f"{file}::{name}"
