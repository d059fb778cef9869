"""Memory and streams of GPUs, simulated in host memory, with the rules of a GPU that a CPU does not have.

* A stream is a queue: enqueued work runs only when something waits for it.
* Streams are unordered unless an event, or a wait of the host, orders them. Each stream and event has a vector clock,
  and an allocation records its last writer and readers. A use that is not ordered after these is a `RaceError`. No
  stream waits for the default stream.
* While a stream is capturing, waits are refused, and nothing runs.
"""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import ClassVar
from weakref import WeakValueDictionary

import numpy as np

HOST = "host"


class RaceError(AssertionError):
    """Memory is read or written while another stream may still be using it."""


class CUDARuntimeError(RuntimeError):
    """See ``cupy.cuda.runtime.CUDARuntimeError``."""


@dataclass
class Memory:
    """An allocation: its addresses, device, and last uses."""

    start: int
    stop: int
    device: int | None  # None: pinned memory of the host
    written: tuple[str | int, int] = (HOST, 0)
    read: dict = field(default_factory=dict)


class Gpu:
    """All devices of a machine."""

    def __init__(self, count):
        self.count = count
        self.local = threading.local()
        self.memories = []
        self.kept = []  # keeps the memory, so that no address is used twice
        self.clock = defaultdict(int)  # work for which the host has waited
        self.streams = {}
        self.graphs = {}
        self.captured = []
        self.spans, self.released = [], []
        self.default = [Stream(self, device, pointer=device * 4096) for device in range(count)]

    @property
    def device(self):
        return getattr(self.local, "device", 0)

    @property
    def stream(self):
        return getattr(self.local, f"stream{self.device}", self.default[self.device])

    def allocate(self, shape, dtype, device):
        whole = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize + 1, 0xFF, np.uint8)
        self.kept.append(whole)
        start = whole.ctypes.data
        self.memories.append(Memory(start, start + len(whole), device))
        return whole[:-1].view(dtype).reshape(shape)

    def memory(self, address):
        found = [one for one in self.memories if one.start <= address < one.stop]
        return found[0] if found else None

    def use(self, stream, address, write):
        """Check that a use of memory is ordered, and record it."""
        memory = self.memory(address)
        if memory is None:
            return
        if memory.device not in (None, stream.device):
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
        earlier = [memory.written, *(memory.read.items() if write else ())]
        for who, when in earlier:
            if who not in (HOST, stream.pointer) and stream.clock[who] < when:
                verb = "written" if (who, when) == memory.written else "read"
                raise RaceError(f"stream {stream.pointer} uses memory that stream {who} may not have {verb} yet")
        now = stream.clock[stream.pointer] + 1
        if write:
            memory.written, memory.read = (stream.pointer, now), {}
        else:
            memory.read[stream.pointer] = now

    def of(self, pointer):
        return self.streams[pointer]


class Stream:
    """A queue of enqueued work; ``ptr`` is its address in CuPy."""

    def __init__(self, gpu, device=None, *, pointer=None):
        self.gpu, self.device = gpu, gpu.device if device is None else device
        self.ptr = self.pointer = 8 * len(gpu.streams) + self.device * 4096 if pointer is None else pointer
        gpu.streams[self.pointer] = self
        self.clock, self.queue, self.capturing, self.outer = defaultdict(int), [], None, []

    def __enter__(self):
        if self.gpu.device != self.device:
            raise RuntimeError(f"The device that the stream is created on ({self.device}) does not match")
        self.outer.append(self.gpu.stream)
        setattr(self.gpu.local, f"stream{self.device}", self)
        return self

    def __exit__(self, *error):
        setattr(self.gpu.local, f"stream{self.device}", self.outer.pop())

    def enqueue(self, run, reads=(), writes=(), what="kernel"):
        """Put ``run`` into the queue, or into the graph that is captured."""
        if self.capturing is not None:
            self.capturing.append((run, tuple(reads), tuple(writes), what))
            return
        for who, when in self.gpu.clock.items():
            self.clock[who] = max(self.clock[who], when)
        for write, addresses in ((False, reads), (True, writes)):
            for address in addresses:
                self.gpu.use(self, address, write)
        self.clock[self.pointer] += 1
        self.queue.append(run)

    def refuse_in_capture(self, what):
        if self.capturing is not None:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} while the stream is capturing")

    def drain(self, length=None):
        """Run the queue, up to the work that had been enqueued when the clock was at ``length``."""
        left = 0 if length is None else max(self.clock[self.pointer] - length, 0)
        while len(self.queue) > left:
            self.queue.pop(0)()

    def synchronize(self):
        self.refuse_in_capture("waiting")
        self.drain()
        for who, when in self.clock.items():
            self.gpu.clock[who] = max(self.gpu.clock[who], when)

    def record(self, event=None):
        event = event or Event()
        event.stream, event.clock = self, dict(self.clock)
        return event

    def wait_event(self, event):
        for who, when in event.clock.items():
            self.clock[who] = max(self.clock[who], when)
        length = event.clock.get(event.stream.pointer, 0)
        self.clock[self.pointer] += 1
        self.queue.append(lambda: event.stream.drain(length))


class Event:
    known: ClassVar = WeakValueDictionary()  # by their addresses

    def __init__(self, block=False, disable_timing=False):
        self.stream, self.clock, self.ptr = None, {}, id(self)
        self.known[self.ptr] = self

    def record(self, stream):
        stream.record(self)

    @property
    def done(self):
        ran = self.stream.clock[self.stream.pointer] - len(self.stream.queue)
        return ran >= self.clock.get(self.stream.pointer, 0)

    def synchronize(self):
        self.stream.refuse_in_capture("waiting")
        self.stream.drain(self.clock.get(self.stream.pointer, 0))
        for who, when in self.clock.items():
            self.stream.gpu.clock[who] = max(self.stream.gpu.clock[who], when)
