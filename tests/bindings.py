"""Classes and attributes of the real bindings of TensorRT's two packages, even if their libraries cannot work here.

The libraries of the data-centre package come from a vendor's index and need a GPU. Its bindings alone are on PyPI
(tensorrt_cu13_bindings). With empty libraries that define the nine functions they look for, they can be imported and
inspected. This is done in a separate process, because both packages define the same C++ types.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
ASK = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
types = {name: value for name, value in vars(module).items() if isinstance(value, type)}
has = {name: {one: getattr(value, one).__doc__ or "" for one in dir(value)} for name, value in types.items()}
has[""] = {name: value.__doc__ or "" for name, value in vars(module).items()}
print(json.dumps(has))
"""


def without_library(folder):
    """An environment in which the data-centre package's bindings can be imported; skips the test without them."""
    compiler = shutil.which("cc")
    if importlib.util.find_spec("tensorrt_bindings") is None or compiler is None:
        pytest.skip("needs a C compiler, and: pip install tensorrt_cu13_bindings")
    (folder / "stub.c").write_text("".join(f"void *{function}(void) {{ return 0; }}\n" for function in FUNCTIONS))
    for library in LIBRARIES:
        file = f"lib{library}.so.11"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{file}", "stub.c", "-o", file]
        subprocess.run(command, cwd=folder, check=True)
    (folder / "tensorrt.py").write_text("from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n")
    return {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT)))}


def bindings(package, folder):
    """{class, or "" for the module: {attribute: docstring}} of ``tensorrt`` or ``tensorrt_rtx``; skips without it."""
    if package == "tensorrt_rtx":
        pytest.importorskip(package, reason="pip install tensorrt-rtx")
    environment = without_library(folder) if package == "tensorrt" else None
    asked = subprocess.run([sys.executable, "-c", ASK, package], env=environment, check=True, capture_output=True)
    return json.loads(asked.stdout)


def parameters(docstring):
    """Numbers of parameters of the overloads of a bound function, self included."""
    signatures = re.findall(r"^(?:\d+\. )?\w+\((.*)\) -> ", docstring, re.MULTILINE)
    return {len(re.findall(r"\w+: ", re.sub(r"<.*?>", "", one))) for one in signatures}
