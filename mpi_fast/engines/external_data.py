"""Find ONNX files that store parts in other files, without the ``onnx`` package.

A tensor of an ONNX model may store its numbers in another file (``data_location = EXTERNAL``), at a path that the
runtime would follow. The hash of a model does not cover such files, so models with external data are refused.

`fields` decodes the necessary part of the Protocol Buffers format; the field numbers are those of onnx.proto3.
"""

from collections.abc import Iterator

# Where tensors are: {message: {field: message}}.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_LOCATION, _EXTERNAL_DATA = 14, 13  # fields of a tensor
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def has_external_data(content: bytes) -> bool:
    """Whether a tensor of a serialised ONNX model is in another file.

    Raises
    ------
    ValueError
        For content that is not a Protocol Buffers message.
    """
    # The path has the key "location", so a model without this word need not be searched.
    return b"location" in content and any(_external("model", memoryview(content)))


def _external(message: str, content: memoryview) -> Iterator[bool]:
    """Yield once for every external part of a message; not recursive, because a file could cause deep recursion."""
    waiting = [(message, content)]
    while waiting:
        kind, part = waiting.pop()
        for number, value in fields(part):
            if kind == "tensor" and (number == _EXTERNAL_DATA or (number == _LOCATION and value == 1)):
                yield True
            child = _CHILDREN[kind].get(number)
            if child and isinstance(value, memoryview):
                waiting.append((child, value))


def fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of the fields of a message: numbers, or bytes."""
    place = 0
    while place < len(content):
        tag, place = _varint(content, place)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, place = _varint(content, place)
            yield number, value
            continue
        if wire == _BYTES:
            length, place = _varint(content, place)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if length > len(content) - place:
            raise ValueError("cut short")
        yield number, content[place : place + length]
        place += length


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, and the place behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(content):
            raise ValueError("cut short")
        byte = content[place]
        value, place = value | (byte & 0x7F) << shift, place + 1
        if byte < 0x80:
            return value, place
    raise ValueError("a number of more than ten bytes")
