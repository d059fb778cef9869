"""Frames from sockets: the frames of the example are read, and other messages do no harm."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpi_fast.errors import InputError
from mpi_fast.live.from_socket import SocketSource
from mpi_fast.live.wire import DTYPES, decode, encode

WRITER = Path(__file__).parent.parent / "examples" / "live_writer.py"
HEADER = {"version": 1, "number": 3, "timestamp": 1.5, "empty": False, "dtype": "<f4", "shape": [2, 3]}


def message(payload=bytes(24), **changes):
    return [json.dumps(HEADER | changes).encode(), payload]


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_encoded_is_decoded(dtype):
    signals = np.arange(24).reshape(2, 3, 4).astype(dtype)
    signals *= np.asarray(1 + 2j if np.iscomplexobj(signals) else 3, dtype)
    for one in (signals, signals.astype(signals.dtype.newbyteorder(">")), np.asfortranarray(signals)):
        header, payload = encode(one, 7, 0.25, empty=True)
        found = decode([header, bytes(payload.data)])
        assert (found.number, found.timestamp, found.empty) == (7, 0.25, True)
        np.testing.assert_array_equal(found.signals, signals)


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ([b"{}"], "message of 1 parts: two were expected"),
        ([b"{", b""], "no header in JSON"),
        ([b"[" * 4000, b""], "no header in JSON"),
        ([b" " * 5000, b""], "of 5000 bytes, is no header"),
        ([b"\xff", b""], "no header in JSON"),
        (message(version=2), "version 2: 1 was expected"),
        (message(number=-1), "number -1: a whole number"),
        (message(number=True), "number True"),
        (message(timestamp=float("nan")), "frame 3: timestamp nan"),
        (message(empty=0), "empty 0: true or false"),
        (message(dtype="O"), "dtype 'O': one of <f4"),
        (message(dtype=["<f4"]), "one of <f4"),
        (message(shape=[2, -3]), r"shape \[2, -3\]: one to three lengths"),
        (message(shape=[1, 1, 2, 3]), "one to three lengths"),
        (message(shape="23"), "one to three lengths"),
        (message(bytes(23)), r"23 bytes of samples; 24 were expected of \[2, 3\] <f4"),
        (message(shape=[2**62, 2**62, 2**62]), "24 bytes of samples"),
    ],
)
def test_what_is_no_frame_is_refused_with_a_reason(parts, match):
    with pytest.raises(InputError, match=match):
        decode(parts)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.binary(max_size=60), max_size=3),
    st.dictionaries(st.sampled_from(list(HEADER)), st.integers() | st.text()),
)
def test_no_message_does_harm(parts, changes):
    for one in (parts, message(**changes)):
        try:
            decode(one)
        except InputError:
            continue


def test_a_wrong_address(calibration):
    with pytest.raises(InputError, match=r"nonsense://x: .* an address such as tcp://127.0.0.1:5555 was expected"):
        SocketSource("nonsense://x", calibration)


def test_the_example_writes_what_the_socket_reads(calibration, tmp_path):
    """The example runs in another process; a broken message between the frames costs no frame."""
    frames = np.random.default_rng(0).standard_normal((3, 2, 8)).astype(np.float32)
    np.save(tmp_path / "frames.npy", frames)
    port = free_port()
    command = [sys.executable, str(WRITER), str(tmp_path / "frames.npy"), f"tcp://127.0.0.1:{port}", "200"]
    writer = subprocess.Popen(command)
    stopped = threading.Event()
    try:
        found = []
        for one in SocketSource(f"tcp://127.0.0.1:{port}", calibration).frames(stopped):
            found.append(one)
            if len(found) == 5:
                stopped.set()
    finally:
        writer.kill()
        writer.wait()
    numbers = [one.number for one in found]
    assert numbers == list(range(numbers[0], numbers[0] + 5))
    for one in found:
        np.testing.assert_array_equal(one.signals, frames[one.number % 3])
        assert not one.empty
    assert len(WRITER.read_text().splitlines()) <= 32


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])
