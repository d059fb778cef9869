"""``mpi-fast live``: the command, its page in a browser, keys and mouse, several pages, a stalled client."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import websockets
from websockets.sync.client import connect

from mpi_fast.live.frames import LiveImage
from mpi_fast.live.messages import Pictures, pack
from mpi_fast.mdf import Grid, read_reconstruction

BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), None)
PATIENCE_MS = 120_000  # where other work takes nearly all of the machine


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Run the command with a simulated scanner of 9 x 9 voxels; gives its address, folder and process."""
    folder = tmp_path_factory.mktemp("served")
    process = start(folder, "simulate", "--grid", "9x9", "--rate", "50", "--recordings", str(folder))
    yield address_of(process), folder, process
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM


def start(folder, *arguments):
    command = [sys.executable, "-m", "mpi_fast", "live", *arguments, "--port", "0", "--threads", "1"]
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def address_of(process):
    line = process.stdout.readline()
    assert line, process.stderr.read()
    return re.fullmatch(r"(http://127\.0\.0\.1:\d+)/\n", line)[1]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright, which drives a browser, is not installed"
    )
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome is installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def visit(browser, served):
    """Open a page and wait for an image; errors of its script fail the test."""
    opened, complaints = [], []

    def visited():
        page = browser.new_page(viewport={"width": 1240, "height": 860})
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(served[0])
        waits_for(page, "state.shown !== null && state.status !== null")
        opened.append(page)
        return page

    yield visited
    for page in opened:
        page.close()
    assert complaints == []


def number(page):
    return int(page.evaluate("state.shown.number"))


def waits_for(page, condition):
    """Ask repeatedly, because the page's security policy allows only the debugger to evaluate code."""
    until = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < until, f"it never happened that {condition}; {page.inner_text('#numbers')}"
        page.wait_for_timeout(50)


def test_an_image_is_drawn_with_colour_bar_unit_and_numbers(visit):
    page = visit()
    waits_for(page, "document.querySelector('#image-high').textContent !== ''")
    colours = page.evaluate(
        """() => { const one = document.querySelector("#image canvas");
        return new Set(one.getContext("2d").getImageData(0, 0, one.width, one.height).data).size; }"""
    )
    assert colours > 10
    assert page.inner_text("#image + .bar .unit") == "of the delta sample"
    assert float(page.inner_text("#image-high")) > 0
    assert float(page.inner_text("#std-high")) > 0
    waits_for(page, "document.querySelector('#numbers').innerText.includes('latency p99.9')")  # part of the counters
    shown = page.inner_text("#numbers")
    for name in ("frame", "SNR", "latency p99.9", "frames dropped", "frames missing", "recording", "not shown here"):
        assert name in shown
    assert page.inner_text("#connection") == "connected"
    before = number(page)
    waits_for(page, f"state.shown.number > {before}")


def test_the_region_follows_mouse_and_keys(visit):
    page = visit()
    canvas = page.locator("#image canvas").first
    box = canvas.bounding_box()
    voxel = box["width"] / 9
    page.mouse.move(box["x"] + 1.5 * voxel, box["y"] + 7.5 * voxel)
    page.mouse.down()
    page.mouse.move(box["x"] + 3.5 * voxel, box["y"] + 5.5 * voxel)
    page.mouse.up()
    region = page.evaluate("state.region")
    assert region == {"view": 0, "x": 1, "y": 1, "width": 3, "height": 3}
    canvas.focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "Shift+ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("state.region") == {"view": 0, "x": 2, "y": 3, "width": 4, "height": 3}
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    assert page.evaluate("state.region.x") == 0
    mean = page.evaluate("meanOf(state.kept[0])")
    by_hand = page.evaluate(
        """() => { let sum = 0; for (let y = 3; y < 6; y++) for (let x = 0; x < 4; x++)
        sum += state.kept[0].image[0][9 * y + x]; return sum / 12; }"""
    )
    assert mean == pytest.approx(by_hand)
    waits_for(page, "document.querySelector('#mean').textContent !== ''")


def test_keys_pause_choose_colours_and_fix_the_window(visit):
    page = visit()
    page.keyboard.press("Space")
    assert page.get_attribute("#pause", "aria-pressed") == "true"
    held = number(page)
    assert page.inner_text("#message") == f"paused at frame {held}"
    waits_for(page, f"state.kept[state.kept.length - 1].number > {held + 5}")  # frames continue in the meantime
    assert number(page) == held
    page.evaluate("state.kept.length = 0")  # as after a long pause, when newer pictures have replaced all of them
    page.evaluate("course()")
    assert page.inner_text("#mean") != ""
    page.keyboard.press("Space")
    waits_for(page, f"state.shown.number > {held}")
    page.keyboard.press("Space")
    page.evaluate("begin(state.hello)")  # as after a lost connection
    assert page.get_attribute("#pause", "aria-pressed") == "false"
    waits_for(page, "state.shown !== null")
    assert page.input_value("#colours") == "inferno"
    page.keyboard.press("c")
    assert page.input_value("#colours") == "viridis"
    page.keyboard.press("a")
    assert not page.is_checked("#auto")
    high = float(page.input_value("#high"))
    page.keyboard.press("]")
    assert float(page.input_value("#high")) == pytest.approx(1.25 * high, rel=0.02)
    page.fill("#high", "2.5")
    waits_for(page, "document.querySelector('#image-high').textContent === '2.5'")
    page.press("#high", "c")  # a letter typed into a field is not a command
    assert page.input_value("#colours") == "viridis"


def test_all_that_is_there_is_reached_by_tab(visit):
    page = visit()
    page.keyboard.press("a")
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert reached == ["pause", "snapshot", "record", "colours", "auto", "low", "high", "CANVAS"]
    page.focus("#pause")
    page.keyboard.press("Enter")
    assert page.get_attribute("#pause", "aria-pressed") == "true"


def test_a_snapshot_is_a_picture(visit, tmp_path):
    page = visit()
    with page.expect_download(timeout=PATIENCE_MS) as download:
        page.keyboard.press("s")
    assert re.fullmatch(r"live-\d+\.png", download.value.suggested_filename)
    path = tmp_path / "snapshot.png"
    download.value.save_as(path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_recording_from_the_keyboard(visit, served):
    page = visit()
    page.keyboard.press("r")
    waits_for(page, "state.status.recording.running && state.status.recording.images > 5")
    assert page.inner_text("#record") == "Stop recording"
    page.keyboard.press("r")
    waits_for(page, "!state.status.recording.running")
    name = page.evaluate("state.status.recording.file")
    images = read_reconstruction(served[1] / name)
    assert images.shape[1:] == (9, 9)
    assert len(images) == page.evaluate("state.status.recording.images")


def test_two_browsers_and_a_stalled_client(visit, served):
    """The stalled client reads nothing. The others still see images, and the command drops none because of it."""
    port = int(served[0].rsplit(":", 1)[1])
    stalled = socket.create_connection(("127.0.0.1", port))
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    upgrade = f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    stalled.sendall(
        (upgrade + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode()
    )
    one, other = visit(), visit()
    began, before = time.monotonic(), one.evaluate("state.received")
    for page in (one, other):
        waits_for(page, f"state.received > {before + 50} && state.status.clients >= 3")
    assert one.evaluate("state.status.statistics.images_dropped") == 0
    numbers = one.evaluate("state.kept.map((picture) => picture.number)")
    assert numbers == sorted(set(numbers))
    assert time.monotonic() - began < 100
    stalled.close()


def test_a_volume_has_three_views(visit):
    """Maximum projections on one scale, as the server sends them, and a region in any of them."""
    volume = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    volume[1, 2, 3] = np.nan
    pictures = Pictures(Grid.regular(volume.shape, (0.006, 0.008, 0.010)))
    image = LiveImage(7, 0, 1.0, volume, 0.1 * volume, 20.0, 0.0, None, 1, 1, 2.0)
    page = visit()
    page.evaluate("state.socket.onmessage = null")
    page.evaluate("begin", {"source": "", "facts": {}, "unit": "", "views": pictures.views()})
    page.evaluate("(bytes) => pictured(new Uint8Array(bytes).buffer)", list(pack([pictures.of(image)], 0)))
    waits_for(page, "state.shown.number === 7 && !state.dirty")
    sizes = page.evaluate(
        "[...document.querySelectorAll('#image .view canvas:first-child')].map((c) => [c.height, c.width])"
    )
    assert sizes == [[3, 5], [3, 4], [4, 5]]
    shown = page.evaluate("[...state.shown.image[2]].map((value) => Number.isNaN(value) ? -1 : value)")
    np.testing.assert_allclose(shown, np.nan_to_num(volume.max(axis=0), nan=-1).ravel(), rtol=1e-6)
    assert page.inner_text("#message") == "frame 7: bad"
    canvas = "document.querySelectorAll('#image canvas:first-child')[2]"
    pixel = f"(at) => [...{canvas}.getContext('2d').getImageData(...at, 1, 1).data]"
    assert page.evaluate(pixel, [3, 1]) == [96, 96, 96, 255]  # NaN is grey; rows run upwards
    page.locator("#image .view canvas:first-child").nth(1).focus()
    page.keyboard.press("ArrowUp")
    assert page.evaluate("state.region") == {"view": 1, "x": 0, "y": 0, "width": 3, "height": 3}


# -- the command itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.mdf"], "nothing.mdf: expected --calibration"),
        (["simulate", "--recordings", "nowhere"], "--recordings nowhere: no such folder"),
        (["simulate", "--token", "short"], "--token: at least 16 characters"),
        (["simulate", "--rate", "-1"], "--rate -1.0: expected a positive number"),
        (["simulate", "-c", "x.h5"], "has a calibration of its own"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from mpi_fast.cli import app

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["live", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_an_address_that_is_taken(served, tmp_path):
    from typer.testing import CliRunner

    from mpi_fast.cli import app

    port = served[0].rsplit(":", 1)[1]
    result = CliRunner().invoke(app, ["live", "simulate", "--port", port])
    assert result.exit_code == 2
    assert "in use" in result.stderr


def test_the_status_is_json_for_programs_too(served):
    """Read by a client that is no browser."""
    with connect(served[0].replace("http", "ws") + "/stream") as connection:
        kinds = set()
        while kinds != {"hello", "status", "pictures"}:
            message = connection.recv(timeout=PATIENCE_MS / 1000)
            kinds.add("pictures" if isinstance(message, bytes) else json.loads(message)["kind"])
        connection.send("x" * 5000)
        with pytest.raises(websockets.ConnectionClosed, match="1009"):
            drain(connection)


def drain(connection):
    while True:
        connection.recv(timeout=PATIENCE_MS / 1000)
