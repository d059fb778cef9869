"""Graphs that TensorRT would refuse, and bundles of graphs."""

import importlib

from onnx import TensorProto, helper

from mpi_fast.bundle import PLANE, VOLUME, write_bundle

build = importlib.import_module("mpi_fast.export.tensorrt")
FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE


def bundle_of(folder, contents, **more):
    others = dict.fromkeys((PLANE, VOLUME), b"no engine is built of this")
    return write_bundle(folder / "bundle", {"sigma_range": [0.02, 10.0], **more}, {**others, **contents})


def quiet(*_):
    """Ignore the progress of a build."""


def graph(nodes, inputs, outputs, opset=20, domain=None):
    def values(given):
        return [helper.make_tensor_value_info(*one) for one in given]

    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    made = [helper.make_node(kind, given, [out], name=name, **options) for kind, given, out, name, options in nodes]
    model = helper.make_model(
        helper.make_graph(made, "graph", values(inputs), values(outputs)), opset_imports=imports, ir_version=10
    )
    return model.SerializeToString()


X, Z = ("x", FLOAT, ["batch", 3]), ("z", FLOAT, ["batch", 3])
REFUSED = {
    "types that do not go together": (
        graph([("Add", ["x", "y"], "z", "adder", {})], [X, ("y", HALF, ["batch", 3])], [Z]),
        r"node adder \(Add\): .*must have same input types. But they are of types Float and Half",
    ),
    "an operator of one runtime": (
        graph([("Gelu", ["x"], "z", "gelu", {"domain": "com.microsoft"})], [X], [Z], domain="com.microsoft"),
        r"node gelu: operator com\.microsoft\.Gelu is not plain ONNX",
    ),
    "an operator that TensorRT lacks": (
        graph([("Det", ["x"], "z", "deter", {})], [("x", FLOAT, ["batch", 3, 3])], [("z", FLOAT, ["batch"])]),
        r"node deter: TensorRT has no operator Det",
    ),
    "float64": (
        graph(
            [
                ("Cast", ["x"], "wide", "up", {"to": DOUBLE}),
                ("Sqrt", ["wide"], "root", "root", {}),
                ("Cast", ["root"], "z", "down", {"to": FLOAT}),
            ],
            [X],
            [Z],
        ),
        r"tensor wide: DOUBLE, which TensorRT does not compute in.*tensor root: DOUBLE",
    ),
    "an unknown opset": (graph([("Sqrt", ["x"], "z", "root", {})], [X], [Z], opset=99), r"opset 99: expected 9 to"),
    "a second free axis": (
        graph([("Sqrt", ["x"], "z", "root", {})], [("x", FLOAT, ["b", "n"])], [("z", FLOAT, ["b", "n"])]),
        r"input x: axis 1 is not fixed",
    ),
    "garbage": (b"garbage", "not an ONNX graph"),
}
