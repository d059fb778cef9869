"""Damage to files: hypothesis strategies that draw mutations, and functions that apply them.

A mutation is a list of steps, each a list of strings and numbers, so that it can be stored as JSON and
repeated: ``["flip", 123, 4]``. Places are taken modulo the size of the file, choices modulo their number.
"""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st

Step = list[Any]
PLACES = st.integers(0, 2**32 - 1)
SOME = st.integers(0, 63)

# -- bytes ------------------------------------------------------------------------------------------------------------

BYTES = st.one_of(
    st.tuples(st.just("flip"), PLACES, st.integers(0, 7)),
    st.tuples(st.just("cut"), PLACES),
    st.tuples(st.just("fill"), PLACES, st.integers(1, 300), st.sampled_from([0, 1, 0x7F, 0xFF])),
    st.tuples(st.just("copy"), PLACES, PLACES, st.integers(1, 300)),
    st.tuples(st.just("append"), st.integers(1, 4000)),
).map(list)


def damage_bytes(path: Path, step: Step) -> None:
    content = bytearray(path.read_bytes())
    kind, *numbers = step
    place = numbers[0] % max(len(content), 1)
    if kind == "flip" and content:
        content[place] ^= 1 << numbers[1]
    elif kind == "cut":
        del content[place:]
    elif kind == "fill":
        content[place : place + numbers[1]] = bytes([numbers[2]]) * len(content[place : place + numbers[1]])
    elif kind == "copy":
        target = numbers[1] % max(len(content), 1)
        content[target : target + numbers[2]] = content[place : place + numbers[2]]
    elif kind == "append":
        content += bytes(numbers[0])
    path.write_bytes(content)


# -- values -----------------------------------------------------------------------------------------------------------

SCALARS: Sequence[Any] = (
    *(0, 1, -1, 2, 3, 255, 2**31, 2**62, 10**9, 0.0, 1.5, -2.5, 1e-300, 1e300, float("nan"), float("inf"), True),
    *("", "x", "2.1", "xyz", "zzz", "\u20ac", b"\xff\xfe", "9" * 5000),
)


def nan_in(array: Any) -> Any:
    changed = np.array(array, dtype=np.result_type(array, np.float32) if array.dtype.kind in "biufc" else array.dtype)
    changed.reshape(-1)[: max(changed.size // 7, 1)] = np.nan
    return changed


ARRAYS: Sequence[Callable[[Any], Any]] = (
    lambda a: a.T,
    lambda a: a.reshape(-1),
    lambda a: a[None],
    lambda a: a[..., None],
    lambda a: a[..., :-1],
    lambda a: a[:0],
    lambda a: np.concatenate([a, a]),
    lambda a: np.repeat(a, 2, axis=-1),
    lambda a: a[::-1],
    lambda a: np.zeros_like(a),
    lambda a: -a,
    lambda a: np.full_like(a, a.reshape(-1)[0]),
    lambda a: a.astype(np.int8),
    lambda a: a.astype(np.uint64),
    lambda a: a.astype(np.float16),
    lambda a: a.astype(np.complex128),
    lambda a: a.astype("S8"),
    lambda a: a.astype(">f8"),
    lambda a: a.astype([("re", "f4"), ("im", "f4")]),
    lambda a: a.astype([("r", "f4"), ("j", "f4"), ("k", "f4")]),
    lambda a: 1e38 * a,
    lambda a: 1e300 * a.astype(np.float64),
    lambda a: 1e-300 * a.astype(np.float64),
    lambda a: a + 1,
    nan_in,
    lambda a: np.where(np.arange(a.size).reshape(a.shape) % 5, a, np.inf),
    lambda a: np.full((17, 3), 2),
    lambda a: np.empty((0, 3)),
    lambda a: h5py.Empty("f4"),
)

# -- HDF5 -------------------------------------------------------------------------------------------------------------

LINKS = ("delete", "group", "dangling", "loop", "outside", "elsewhere", "attribute")
LAYOUTS = ("huge", "unwritten", "compressed", "virtual", "self", "raw", "text", "reference")
HDF5 = st.one_of(
    st.tuples(st.sampled_from((*LINKS, *LAYOUTS)), SOME),
    st.tuples(st.just("scalar"), SOME, SOME),
    st.tuples(st.just("array"), SOME, SOME),
    st.tuples(st.just("array"), SOME, SOME),
    st.tuples(st.just("move"), SOME, SOME),
).map(list)


def datasets(file: Any) -> list[str]:
    """Names of datasets with stored numbers or text; omits those that an earlier step made huge or external."""
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None and not item.is_virtual and not item.external:
            found.extend([name] if item.nbytes < 2**20 and item.id.get_storage_size() else [])

    file.visititems(visit)
    return sorted(found)


def damage_hdf5(path: Path, step: Step) -> None:
    """Edit with h5py; edits that it refuses are omitted."""
    try:
        with h5py.File(path, "r+") as file:
            _edit(path, file, step)
    except (OSError, ValueError, TypeError, RuntimeError, OverflowError, LookupError, MemoryError):
        return


def _edit(path: Path, file: Any, step: Step) -> None:
    kind, number, *rest = step
    names = datasets(file)
    name = names[number % len(names)]
    old = file[name][()]
    array, shape = np.asarray(old), file[name].shape
    if kind == "attribute":
        file[name].attrs["unit"] = SCALARS[number % 17]
        return
    if kind == "array":
        try:
            with np.errstate(all="ignore"):
                value = ARRAYS[rest[0] % len(ARRAYS)](array)
        except (TypeError, ValueError, IndexError, OverflowError):
            return
    del file[name]
    if kind == "array":
        file[name] = value
    elif kind == "scalar":
        value = SCALARS[rest[0] % len(SCALARS)]
        file[name] = np.bytes_(value) if isinstance(value, bytes) else value
    elif kind == "move":
        file[names[rest[0] % len(names)] + "x"] = old
    elif kind in LINKS:
        _link(path, file, kind, name, old)
    else:
        _lay_out(path, file, kind, name, array, shape)


def _link(path: Path, file: Any, kind: str, name: str, old: Any) -> None:
    if kind == "group":
        file.create_group(name)
    elif kind == "dangling":
        file[name] = h5py.SoftLink("/nowhere")
    elif kind == "loop":
        file[name] = h5py.SoftLink("/" + name)
    elif kind == "outside":
        file[name] = h5py.ExternalLink("/etc/hostname", "/x")
    elif kind == "elsewhere":
        other = path.with_name("elsewhere.h5")
        with h5py.File(other, "w") as second:
            second["x"] = old
        file[name] = h5py.ExternalLink(str(other), "/x")


def _lay_out(path: Path, file: Any, kind: str, name: str, array: Any, shape: tuple[int, ...]) -> None:
    chunks = tuple(max(size, 1) for size in shape) or None
    if kind == "huge":
        file.create_dataset(name, tuple(size << 24 for size in shape) or (1 << 40,), array.dtype, chunks=chunks or (1,))
    elif kind == "unwritten":
        file.create_dataset(name, shape, array.dtype, chunks=chunks)
    elif kind == "compressed":
        file.create_dataset(name, data=array, chunks=chunks, compression="gzip" if chunks else None)
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape, array.dtype)
        layout[...] = h5py.VirtualSource("gone.h5", "x", shape)
        file.create_virtual_dataset(name, layout)
    elif kind == "self":
        layout = h5py.VirtualLayout(shape, array.dtype)
        layout[...] = h5py.VirtualSource(".", name, shape)
        file.create_virtual_dataset(name, layout)
    elif kind == "raw":
        (path.with_name("raw.bin")).write_bytes(array.tobytes()[: array.nbytes // 2])
        file.create_dataset(name, shape or (1,), array.dtype, external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])
    elif kind == "text":
        file.create_dataset(name, shape, h5py.string_dtype())
    elif kind == "reference":
        file.create_dataset(name, shape, h5py.ref_dtype)


# -- plain values: JSON, and contents of checkpoints ------------------------------------------------------------------

ODD: Sequence[Any] = (*SCALARS[:-2], None, [], {}, [1], [[]], {"a": 1}, ["x", 2], -(10**30), "../x", "/dev/zero")
TREE = st.one_of(
    st.tuples(st.just("replace"), PLACES, SOME),
    st.tuples(st.just("remove"), PLACES),
    st.tuples(st.just("add"), PLACES, SOME),
).map(list)


def damage_tree(tree: Any, step: Step) -> None:
    """Change one place in nested lists and dicts."""
    kind, number, *rest = step
    places = list(_places(tree))
    if not places:
        return
    holder, key = places[number % len(places)]
    value = ODD[rest[0] % len(ODD)] if rest else None
    if kind == "replace":
        holder[key] = value
    elif kind == "remove":
        del holder[key]
    elif isinstance(holder, dict):
        holder[f"{key}x"] = value
    else:
        holder.append(value)


def _places(tree: Any) -> Any:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(pairs):
        yield tree, key
        yield from _places(value)


def damage_json(path: Path, step: Step, finish: Callable[[Any], Any]) -> None:
    """Change a JSON file; ``finish`` processes the changed content before it is written."""
    try:
        tree = json.loads(path.read_bytes())
        damage_tree(tree, step)
        path.write_text(json.dumps(finish(tree)), encoding="utf-8")
    except (ValueError, AttributeError, TypeError):
        return


# -- files in a folder ------------------------------------------------------------------------------------------------

FOLDER = st.tuples(st.sampled_from(("missing", "pipe", "folder", "device", "linked")), SOME).map(list)


def damage_folder(folder: Path, step: Step) -> None:
    kind, number = step
    names = sorted(one.name for one in folder.iterdir())
    path = folder / names[number % len(names)]
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "linked":
        path.symlink_to(path.name)
