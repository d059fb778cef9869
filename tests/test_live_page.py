"""Messages to the live page, and access to it."""

import asyncio
import json
import struct

import numpy as np
import pytest
from live_echo import Echo
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from mpi_fast.errors import InputError
from mpi_fast.experiment import acquisition_of
from mpi_fast.live.frames import LiveImage, Ready
from mpi_fast.live.guard import COOKIE
from mpi_fast.live.hub import AT_ONCE, WAITING, Hub
from mpi_fast.live.messages import Picture, Pictures, pack
from mpi_fast.live.recorder import Recorder
from mpi_fast.live.server import PAGE, Access, Page
from mpi_fast.live.source import Clock, Incoming
from mpi_fast.mdf import Grid, read_reconstruction
from mpi_fast.pairing import image_grid
from mpi_fast.reconstruction import Reconstruction

TOKEN = "a-token-of-some-length"
HERE = {"base_url": "http://127.0.0.1:8765"}
STREAM = "ws://127.0.0.1:8765/stream"


class Steady:
    """A source of frames with increasing values, 500 per second, until it is stopped."""

    name = "steady"

    def __init__(self, calibration, acquisition=None, count=10**6):
        self.calibration, self.acquisition, self._count = calibration, acquisition, count

    def frames(self, stopped):
        clock = Clock(500, stopped)
        for number in range(self._count):
            if not clock.reached(number):
                return
            yield Incoming(np.full(self.calibration.num_rows, number, np.complex64), number, 0.5 * number)


@pytest.fixture
def whole_page(calibration, measured, tmp_path):
    def make(recordable=True, count=10**6, **access):
        acquisition = acquisition_of(measured.scanner) if recordable else None
        grid = image_grid(calibration)
        recorder = Recorder(tmp_path, grid, acquisition, {"by": "test"})
        source = Steady(calibration, acquisition, count)
        return Page(source, Echo(calibration), grid, recorder, Access(**access), {"runs on": "nothing"}, newest=False)

    return make


@pytest.fixture
def page(whole_page):
    return lambda **options: whole_page(**options).app


def image_of(array, number=0, flags=0):
    return LiveImage(number, 0, 1.5, array, 0.1 * array, float("nan"), 0.0, None, flags, 1, 2.0)


def unpack(message, views):
    (length,) = struct.unpack("<I", message[:4])
    header = json.loads(message[4 : 4 + length])
    assert (4 + length) % 4 == 0
    values = np.frombuffer(message, "<f4", offset=4 + length)
    sizes = [view["rows"] * view["columns"] for view in views]
    assert values.size == 2 * sum(sizes) * len(header["images"])
    maps = np.split(values, np.cumsum(sizes * 2 * len(header["images"])))[:-1]
    return header, maps


def received(websocket, kind):
    """The next message of a kind; others are skipped."""
    while True:
        message = websocket.receive()
        if message["type"] == "websocket.close":
            raise WebSocketDisconnect(message["code"])
        if kind == "pictures" and message.get("bytes"):
            return message["bytes"]
        if message.get("text") and json.loads(message["text"])["kind"] == kind:
            return json.loads(message["text"])


def test_a_plane_is_sent_as_it_is():
    pictures = Pictures(Grid.regular((5, 4), (0.010, 0.008)))
    assert pictures.views() == [{"axes": "yx", "rows": 5, "columns": 4, "size_mm": [10.0, 8.0]}]
    arrays = [np.arange(20, dtype=np.float32).reshape(5, 4) + number for number in range(3)]
    message = pack([pictures.of(image_of(array, number)) for number, array in enumerate(arrays)], 7)
    header, maps = unpack(message, pictures.views())
    assert [one["number"] for one in header["images"]] == [0, 1, 2]
    assert header["skipped"] == 7
    assert header["images"][0]["snr_db"] is None
    for number, array in enumerate(arrays):
        np.testing.assert_array_equal(maps[2 * number], array.ravel())
        np.testing.assert_array_equal(maps[2 * number + 1], np.float32(0.1) * array.ravel())


def test_a_volume_is_sent_as_its_maximum_projections():
    pictures = Pictures(Grid.regular((3, 4, 5), (0.006, 0.008, 0.010)))
    assert [(view["axes"], view["rows"], view["columns"]) for view in pictures.views()] == [
        ("zx", 3, 5),
        ("zy", 3, 4),
        ("yx", 4, 5),
    ]
    volume = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    _, maps = unpack(pack([pictures.of(image_of(volume))], 0), pictures.views())
    for found, axis in zip(maps[:3], (1, 2, 0), strict=True):
        np.testing.assert_array_equal(found, volume.max(axis=axis).ravel())


def test_a_client_that_takes_nothing_costs_others_nothing_and_its_losses_are_counted():
    async def run():
        hub = Hub(2)
        stalled, quick = hub.join(), hub.join()
        assert hub.join() is None
        seen = []
        for number in range(500):
            hub.show(Picture({"number": number}, b""))
            seen += [one.facts["number"] for one in (await quick.next())[1]]
        late = []
        _, pictures, skipped = await stalled.next()
        late += pictures
        _, pictures, more = await stalled.next()
        late += pictures
        hub.leave(stalled)
        assert hub.join() is not None
        return seen, [one.facts["number"] for one in late], skipped, more

    seen, late, skipped, more = asyncio.run(run())
    assert seen == list(range(500))
    assert late == list(range(500 - WAITING, 500))
    assert (skipped, more) == (500 - WAITING, 0)
    assert AT_ONCE < WAITING


def test_the_page_and_its_pictures(page):
    with TestClient(page(), **HERE) as client:
        for path, (_, kind) in PAGE.items():
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith(kind)
            assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert client.get("/../cli/live.py").status_code == 404
        with client.websocket_connect(STREAM) as websocket:
            hello = received(websocket, "hello")
            assert hello["unit"] == "of the delta sample"
            assert hello["source"] == "steady"
            header, maps = unpack(received(websocket, "pictures"), hello["views"])
            number = header["images"][0]["number"]
            assert (maps[0] == number).all()
            assert header["images"][0]["timestamp"] == 0.5 * number
            status = received(websocket, "status")
            assert status["clients"] == 1
            assert status["statistics"]["frames_dropped"] >= 0
        assert "mpi_fast_live_images_total" in client.get("/metrics").text


def test_two_pages_at_once_see_the_same_and_a_third_is_asked_to_wait(page):
    with TestClient(page(clients=2), **HERE) as client:
        with client.websocket_connect(STREAM) as one, client.websocket_connect(STREAM) as other:
            for websocket in (one, other):
                hello = received(websocket, "hello")
                header, maps = unpack(received(websocket, "pictures"), hello["views"])
                assert (maps[0] == header["images"][0]["number"]).all()
            with client.websocket_connect(STREAM) as third, pytest.raises(WebSocketDisconnect) as refused:
                third.receive_text()
            assert refused.value.code == 1013
        with client.websocket_connect(STREAM) as again:
            assert received(again, "hello")


def test_a_page_that_never_opens_takes_no_place(whole_page):
    class Gone:
        async def accept(self):
            raise RuntimeError("the client has left")

    page = whole_page(clients=1)
    with pytest.raises(RuntimeError, match="has left"):
        asyncio.run(page._stream(Gone()))
    with TestClient(page.app, **HERE) as client, client.websocket_connect(STREAM) as websocket:
        assert received(websocket, "hello")


def test_when_the_source_ends_the_page_says_so(page):
    with TestClient(page(count=3), **HERE) as client, client.websocket_connect(STREAM) as websocket:
        while (status := received(websocket, "status"))["source"] != "ended":
            pass
        assert status["statistics"]["frames"] == 3


def test_a_recording_is_a_file_of_all_images(page, tmp_path, calibration):
    with TestClient(page(), **HERE) as client, client.websocket_connect(STREAM) as websocket:
        websocket.send_text('{"record": true}')
        while received(websocket, "status")["recording"]["images"] < 20:
            pass
        assert not list(tmp_path.glob("live-*"))
        websocket.send_text('{"record": false}')
        while (recording := received(websocket, "status")["recording"])["running"]:
            pass
        (path,) = tmp_path.glob("live-*.reco.mdf")
        assert recording == {
            "running": False,
            "file": path.name,
            "images": recording["images"],
            "dropped": 0,
            "error": None,
        }
        numbers = read_reconstruction(path, "_frame")
        assert len(numbers) == recording["images"] >= 20
        np.testing.assert_array_equal(np.diff(numbers), 1)
        images = read_reconstruction(path)
        assert images.shape == (len(numbers), *calibration.grid)
        np.testing.assert_array_equal(images[:, 0, 0], numbers)
        websocket.send_text('{"record": true}')
        while not received(websocket, "status")["recording"]["running"]:
            pass
    assert len(list(tmp_path.glob("live-*.reco.mdf"))) == 2  # complete, although the server was stopped
    assert len(list(tmp_path.iterdir())) == 2


def test_a_recording_has_the_intervals_of_its_images(calibration, measured, tmp_path):
    grid = image_grid(calibration)
    recorder = Recorder(tmp_path, grid, acquisition_of(measured.scanner), {})
    quantiles = np.array([[0.5, 1.5], [0.25, 2.5]], np.float32)
    few, image = np.ones(2, np.float32), np.ones((2, *grid.shape), np.float32)
    result = Reconstruction(image, image, few, few, 0.0, quantiles=quantiles)
    frames = [Ready(number, 0, 0.0, 0.0, np.ones(3, np.complex64), 0, 1) for number in range(3)]
    recorder.start()
    for index in range(2):
        recorder.put(LiveImage.of(frames[index], result, index, 1.0))
    recorder.put(LiveImage.missing(frames[2], grid.shape, 1.0))
    recorder.stop()
    (path,) = tmp_path.glob("live-*.reco.mdf")
    np.testing.assert_array_equal(read_reconstruction(path, "_quantiles"), [*quantiles, [np.nan, np.nan]])


def test_what_cannot_be_recorded_is_said(page, calibration):
    with TestClient(page(recordable=False), **HERE) as client, client.websocket_connect(STREAM) as websocket:
        websocket.send_text('{"record": true}')
        assert "does not know how frames are acquired" in received(websocket, "error")["error"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"record": 1}', '{"record": true, "x": 1}', '{"run": "rm"}', "[" * 2000]
)
def test_other_commands_end_the_connection(page, text):
    with TestClient(page(), **HERE) as client, client.websocket_connect(STREAM) as websocket:
        websocket.send_text(text)
        with pytest.raises(WebSocketDisconnect) as closed:
            received(websocket, "never")
        assert closed.value.code == 1008


# -- who may see it -----------------------------------------------------------------------------------------------


def test_other_addresses_need_a_token():
    with pytest.raises(InputError, match=r"host 0\.0\.0\.0: a token was expected"):
        Access(host="0.0.0.0")
    assert Access(host="::1").token is None


@pytest.mark.parametrize("token", [None, "wrong", TOKEN[:-1], TOKEN + "x", ""])
def test_without_the_token_a_request_gets_nothing(page, token):
    query = "" if token is None else f"?token={token}"
    with TestClient(page(host="0.0.0.0", token=TOKEN), base_url="http://scanner:8765") as client:
        for path in [*PAGE, "/metrics", "/nothing"]:
            answer = client.get(path + query, headers={"authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.content) == (401, b"")
        client.cookies.set(COOKIE, token or "")
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://scanner:8765/stream" + query):
            pass


def test_with_the_token_all_is_there_and_the_address_does_not_show_it(page):
    with TestClient(page(host="0.0.0.0", token=TOKEN), base_url="http://scanner:8765") as client:
        welcome = client.get(f"/?token={TOKEN}", follow_redirects=False)
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
        assert "httponly" in welcome.headers["set-cookie"].lower()
        assert "samesite=strict" in welcome.headers["set-cookie"].lower()
        assert client.get("/").status_code == 200
        with client.websocket_connect("ws://scanner:8765/stream") as websocket:
            assert received(websocket, "hello")
        client.cookies.clear()
        assert client.get("/metrics", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9999", "null", "https://127.0.0.1.evil.example"]
)
def test_pages_of_others_get_nothing(page, origin):
    with TestClient(page(), **HERE) as client:
        assert client.get("/", headers={"origin": origin}).status_code == 403
        with pytest.raises(WebSocketDisconnect), client.websocket_connect(STREAM, headers={"origin": origin}):
            pass
        with client.websocket_connect(STREAM, headers={"origin": "http://127.0.0.1:8765"}) as websocket:
            assert received(websocket, "hello")


def test_names_that_were_made_to_point_here_get_nothing(page):
    with TestClient(page(), base_url="http://evil.example:8765") as client:
        assert (client.get("/").status_code, client.get("/").content) == (403, b"")
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("ws://evil.example:8765/stream"):
            pass
    for name in ("localhost", "127.0.0.1", "[::1]"):
        with TestClient(page(), base_url=f"http://{name}:8765") as client:
            assert client.get("/").status_code == 200
