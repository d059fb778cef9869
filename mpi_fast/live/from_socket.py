"""A ZeroMQ socket as a source of live frames, to which an acquisition program publishes."""

import threading
from collections.abc import Iterator

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.live.source import Incoming
from mpi_fast.live.wire import LARGEST_MESSAGE, decode
from mpi_fast.optional import optional

with optional("frames from a socket need pyzmq: pip install 'mpi-fast[live]'"):
    import zmq

WAITING = 256  # messages that ZeroMQ keeps; excess messages are lost, and their numbers count as missing
POLL_MS = 100


class SocketSource:
    """Subscribes to a publisher, which may start later and may be restarted.

    Parameters
    ----------
    address : str
        Address of the publisher, such as ``tcp://127.0.0.1:5555``.
    calibration : Calibration

    Raises
    ------
    InputError
        For an address that ZeroMQ refuses.
    """

    def __init__(self, address: str, calibration: Calibration) -> None:
        self.calibration, self.acquisition = calibration, calibration.acquisition
        self.name, self._address = address, address
        self._connected().close()

    def _connected(self) -> "zmq.Socket[bytes]":
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, WAITING)
        socket.setsockopt(zmq.MAXMSGSIZE, LARGEST_MESSAGE)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            socket.connect(self._address)
        except zmq.ZMQError as error:
            socket.close()
            raise InputError(
                f"{self._address}: {error}; an address such as tcp://127.0.0.1:5555 was expected"
            ) from error
        return socket

    def frames(self, stopped: threading.Event) -> Iterator[Incoming | MPIFastError]:
        """See `Source`."""
        with self._connected() as socket:
            while not stopped.is_set():
                if not socket.poll(POLL_MS):
                    continue
                try:
                    yield decode(socket.recv_multipart())
                except InputError as error:
                    yield error
