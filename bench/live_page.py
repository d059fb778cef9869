"""The live page at the rate of a fast scanner: the images that browsers show, and whether every loss is counted.

    python bench/live_page.py [--rate 100] [--seconds 60] [--browsers 2] [--grid 19x19] [--json FILE]

`mpi-fast live simulate` serves headless browsers and a client that reads nothing. For each browser, the program counts
the images shown per second, the frames that it did not show, and the frames that the page reports as missing: those
that the stream dropped, and those that the server skipped because the browser was slow. Both numbers must agree, except
for the frames between two messages of the counters, half a second.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from mpi_fast.console import console, facts_table
from mpi_fast.machine import cores, processor

SEEN = """() => ({received: state.received, skipped: state.skipped, gone: state.status.statistics.frames_dropped
    + state.status.statistics.images_dropped, last: state.kept[state.kept.length - 1].number,
    latency: state.status.statistics.latency_ms})"""
UPGRADE = """GET /stream HTTP/1.1
Host: {host}
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==
Sec-WebSocket-Version: 13

"""


def stalled_client(address: str) -> socket.socket:
    """A client that requests the stream and never reads it."""
    host = address.removeprefix("http://").rstrip("/")
    name, port = host.split(":")
    client = socket.create_connection((name, int(port)))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(UPGRADE.format(host=host).replace("\n", "\r\n").encode())
    return client


def watch(address: str, browsers: int, seconds: float) -> list[dict[str, Any]]:
    """The counters of each browser, over this number of seconds."""
    with sync_playwright() as driver, stalled_client(address):
        browser = driver.chromium.launch(executable_path=_browser(), args=["--no-sandbox"])
        # Separate contexts, because a tab behind another one would not be drawn.
        pages = [browser.new_context().new_page() for _ in range(browsers)]
        for page in pages:
            page.goto(address)
        for page in pages:
            while not page.evaluate("state.shown !== null && state.status?.statistics.images > 50"):
                page.wait_for_timeout(50)
        time.sleep(2)
        before = [(time.monotonic(), page.evaluate(SEEN)) for page in pages]
        time.sleep(seconds)
        after = [(time.monotonic(), page.evaluate(SEEN)) for page in pages]
        browser.close()
    return [_seen(*first, *last) for first, last in zip(before, after, strict=True)]


def _seen(began: float, first: dict[str, Any], ended: float, last: dict[str, Any]) -> dict[str, Any]:
    received = last["received"] - first["received"]
    return {
        "images_per_second": received / (ended - began),
        "frames_not_seen": last["last"] - first["last"] - received,
        "passed_over": last["skipped"] - first["skipped"],
        "dropped_by_the_stream": last["gone"] - first["gone"],
        "latency_ms": last["latency"],
    }


def _browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    return found or sys.exit("no Chromium or Chrome is installed")


def run(rate: float, seconds: float, browsers: int, grid: str) -> dict[str, Any]:
    """Start the server, watch the page, and stop the server."""
    command = [sys.executable, "-m", "mpi_fast", "live", "simulate", "--port", "0", "--grid", grid, "--rate", str(rate)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        seen = watch(address, browsers, seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    return {
        "processor": processor(),
        "cores": cores(),
        "load": [round(one, 2) for one in os.getloadavg()],
        "rate": rate,
        "grid": grid,
        "seconds": seconds,
        "images_per_second": statistics.median(one["images_per_second"] for one in seen),
        "uncounted": [one["frames_not_seen"] - one["passed_over"] - one["dropped_by_the_stream"] for one in seen],
        "browsers": seen,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="of the simulated scanner, in 1/s")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--browsers", type=int, default=2)
    parser.add_argument("--grid", default="19x19")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = run(options.rate, options.seconds, options.browsers, options.grid)
    console.print(facts_table("live page", result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
