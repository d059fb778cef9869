"""`AsyncLive` is the same stream, and never blocks the event loop."""

import asyncio
import threading
import time

import pytest
from live_echo import Echo, accounted, shown

from mpi_fast.errors import LiveError
from mpi_fast.live import AsyncLive


def test_images_come_in_order_while_frames_go_in(calibration, frame):
    async def run():
        async with AsyncLive(Echo(calibration, seconds=0.001), newest=False, waiting=2) as live:

            async def submit():
                for value in range(50):
                    await live.submit(frame(value), timestamp=value / 10)
                live.finish()

            task = asyncio.create_task(submit())
            images = [image async for image in live]
            await task
            assert "mpi_fast_live_images_total 50.0" in live.metrics()
            return images, live.statistics()

    images, found = asyncio.run(run())
    assert shown(images) == list(range(50))
    assert [image.timestamp for image in images] == [value / 10 for value in range(50)]
    assert found.frames_dropped == found.images_dropped == found.refused == 0
    assert accounted(found)


def test_waiting_never_blocks_the_loop(calibration, frame):
    """A full queue of frames and an empty queue of images are awaited; other tasks continue."""
    gate = threading.Event()

    async def run():
        late = []

        async def heartbeat():
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.005)
                late.append(time.monotonic() - began)

        beating = asyncio.create_task(heartbeat())
        async with AsyncLive(Echo(calibration, gate=gate), newest=False, waiting=1, batch=1) as live:
            assert await live.get(timeout=0.05) is None
            await live.submit(frame(0))
            while not live.statistics().batches:
                await asyncio.sleep(0.001)
            await live.submit(frame(1))
            with pytest.raises(LiveError, match="1 frames wait"):
                await live.submit(frame(2), timeout=0.05)
            waiting = asyncio.create_task(live.get())
            await asyncio.sleep(0.1)
            assert not waiting.done()
            gate.set()
            image = await waiting
            beats = len(late)
        beating.cancel()
        return image, beats

    image, beats = asyncio.run(run())
    assert image.number == 0
    assert beats >= 10


def test_closing_ends_those_who_wait(calibration, frame):
    async def run():
        live = AsyncLive(Echo(calibration))
        waiting = asyncio.create_task(live.get())
        await asyncio.sleep(0.01)
        await live.close()
        with pytest.raises(LiveError, match="closed"):
            await live.submit(frame(1))
        return await waiting

    assert asyncio.run(run()) is None


def test_cancelling_a_consumer_loses_no_image(calibration, frame):
    async def run():
        async with AsyncLive(Echo(calibration), newest=False) as live:
            waiting = asyncio.create_task(live.get())
            await asyncio.sleep(0.01)
            waiting.cancel()
            await live.submit(frame(7))
            return (await live.get()).image.flat[0]

    assert asyncio.run(run()) == 7
