"""Films of series: their frames, and that they are complete."""

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.formats import Series, film, save
from mpi_fast.mdf import Grid
from mpi_fast.plots import Film, record

PLANE = Grid.regular((5, 7), (0.05, 0.07))
VOLUME = Grid.regular((3, 5, 7), (0.03, 0.05, 0.07))
PERIOD = 0.02154


def growing(grid, frames=4, std=True):
    """Uniform images with the values 1, 2, 3..., one of which is NaN."""
    image = np.ones((frames, *grid.shape), np.float32) * np.arange(1, frames + 1).reshape(-1, *[1] * len(grid.shape))
    image[1] = np.nan
    found = {"frame": 10 * np.arange(frames), "time": 10 * np.arange(frames) * PERIOD}
    return Series(grid, image.astype(np.float32), 0.1 * image if std else None, found)


def frames_of_gif(path):
    with Image.open(path) as gif:
        for index in range(gif.n_frames):
            gif.seek(index)
            yield np.asarray(gif.convert("RGB")).astype(int)


def frames_of_mp4(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    for frame in reader:
        yield np.frombuffer(frame, np.uint8).reshape(height, width, 3).astype(int)


@pytest.mark.parametrize(("suffix", "read"), [(".gif", frames_of_gif), (".mp4", frames_of_mp4)])
@pytest.mark.parametrize("grid", [PLANE, VOLUME])
def test_a_film_has_a_frame_for_each_image_on_one_colour_scale(tmp_path, suffix, read, grid):
    save(tmp_path / f"x{suffix}", growing(grid))
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]
    frames = list(read(tmp_path / f"x{suffix}"))
    assert len(frames) == 4
    height, width, _ = frames[0].shape
    assert height % 2 == width % 2 == 0
    place = height * 6 // 10, width // 8  # in the image of a plane, and in the first projection of a volume
    shown = [frame[place] for frame in frames]
    brightness = [colour.sum() for colour in shown]
    assert brightness[0] < brightness[2] < brightness[3]  # one colour scale for all frames
    assert brightness[3] > 600  # the maximum is at its upper end
    assert np.ptp(shown[1]) < 8  # grey for a missing image
    assert np.abs(frames[0][: height // 12] - frames[3][: height // 12]).max() > 100  # the displayed time changes
    right = np.abs(frames[0] - frames[3])[:, width // 2 :]
    assert right.max() > 50  # the uncertainty beside the image changes, too


def test_without_uncertainty_there_is_one_image(tmp_path):
    save(tmp_path / "two.gif", growing(PLANE))
    save(tmp_path / "one.gif", growing(PLANE, std=False))
    with Image.open(tmp_path / "one.gif") as one, Image.open(tmp_path / "two.gif") as two:
        assert one.width == pytest.approx(two.width / 2, abs=2)


def test_long_series_are_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr(film, "FRAMES", 3)
    series = growing(PLANE, 7)
    assert len(list(film._frames(series))) == 3
    titles = []
    monkeypatch.setattr(film.Film, "draw", lambda self, image, std, title: titles.append(title))
    list(film._frames(series))
    assert titles == ["frame 0   0.0 s", "frame 30   0.6 s", "frame 60   1.3 s"]


def test_a_plane_has_a_scale_bar_and_units():
    drawn = Film((0.05, 0.07), (5, 7), (1.0, 0.5), unit="mmol/l")
    texts = {text.get_text() for cell in drawn._canvas.figure.axes for text in cell.texts}
    assert texts == {"20 mm"}
    assert {cell.get_ylabel() for cell in drawn._canvas.figure.axes} >= {"mmol/l", "y / mm"}


def test_a_film_of_nothing_and_a_disk_that_ends(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"x\.gif: a film of no frames"):
        record(tmp_path / "x.gif", [])
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    with pytest.raises(MPIFastError, match="ffmpeg"):
        save(tmp_path / "x.mp4", growing(PLANE))
    assert list(tmp_path.iterdir()) == []
