"""A model repository for NVIDIA Triton Inference Server: the frozen whole-frame graph for its onnxruntime backend.

``DIR/mpi_fast/config.pbtxt`` and ``DIR/mpi_fast/1/model.onnx``. Every input has an axis of frames, so the server
can batch the requests of many clients. Fields as in Triton's ``model_config.proto``.
"""

from pathlib import Path

import onnx

from mpi_fast.atomic_folder import atomic_folder
from mpi_fast.errors import InputError

NAME, FILE = "mpi_fast", "model.onnx"
LARGEST_BATCH, PREFERRED = 64, (8, 32)
LONGEST_WAIT_US = 500  # for other requests to join a batch; shorter than a frame of the fastest scanners


def write_repository(folder: Path, model: onnx.ModelProto, content: bytes) -> Path:
    """Write the model, which appears when it is complete. An earlier model of mpi-fast is replaced.

    Raises
    ------
    InputError
        If something else has that name, or the parent folder is missing.
    """
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent}: no such folder")
    folder.mkdir(exist_ok=True)
    # The hidden names are outside, because a server may be reading every folder of the repository.
    with atomic_folder(folder / NAME, _is_model, "a model of a Triton repository", outside=True) as temporary:
        (temporary / "1").mkdir(parents=True)
        (temporary / "1" / FILE).write_bytes(content)
        (temporary / "config.pbtxt").write_text(config(model), encoding="utf-8")
    return folder / NAME


def _is_model(path: Path) -> bool:
    return (path / "config.pbtxt").is_file()


def config(model: onnx.ModelProto) -> str:
    """``config.pbtxt`` for a graph whose inputs and outputs all have an axis of frames first."""
    inputs = [_tensor(value) for value in model.graph.input]
    outputs = [_tensor(value) for value in model.graph.output]
    zeros = "data_type: TYPE_FP32 zero_data: true"
    shapes = {value.name: list(_dims(value)) for value in model.graph.input}
    warm = [f'  inputs {{ key: "{name}" value {{ dims: {dims} {zeros} }} }}' for name, dims in shapes.items()]
    lines = [
        f'name: "{NAME}"',
        'backend: "onnxruntime"',
        f'default_model_filename: "{FILE}"',
        f"max_batch_size: {LARGEST_BATCH}",
        *(f"input {{ {one} }}" for one in inputs),
        *(f"output {{ {one} }}" for one in outputs),
        "instance_group { count: 1 kind: KIND_AUTO }",
        "dynamic_batching {",
        f"  preferred_batch_size: {list(PREFERRED)}",
        f"  max_queue_delay_microseconds: {LONGEST_WAIT_US}",
        "}",
    ]
    for batch in (1, *PREFERRED):
        lines += ["model_warmup {", f'  name: "{batch} frames"', f"  batch_size: {batch}", *warm, "}"]
    return "\n".join(lines) + "\n"


def _dims(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The lengths of the axes of one frame."""
    return tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)[1:]


def _tensor(value: onnx.ValueInfoProto) -> str:
    dims = _dims(value)
    shape = f"dims: {list(dims)}" if dims else "dims: [1] reshape { shape: [] }"  # one number a frame
    return f'name: "{value.name}" data_type: TYPE_FP32 {shape}'
