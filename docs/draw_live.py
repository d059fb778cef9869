"""The picture of the live page: ``python docs/draw_live.py [FRAMES_PER_SECOND]``; needs Chromium or Chrome."""

import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent / "pictures" / "live.png"
COLOURS = 128
SECONDS = 12


def main() -> None:
    """Start the command, look at its page for a while, and keep what it shows."""
    rate = sys.argv[1] if len(sys.argv) > 1 else "50"
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    command = [sys.executable, "-m", "mpi_fast", "live", "simulate", "--port", "0", "--threads", "1", "--rate", rate]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served, sync_playwright() as driver:
        try:
            page = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"]).new_page(
                viewport={"width": 1240, "height": 850}
            )
            page.goto(served.stdout.readline().strip())
            page.wait_for_timeout(1000 * SECONDS)
            page.screenshot(path=PICTURE)
        finally:
            served.terminate()
    Image.open(PICTURE).convert("RGB").quantize(COLOURS).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
