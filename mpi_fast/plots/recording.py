"""Films as files: GIF by Pillow, which Matplotlib installs, and MP4 by the ffmpeg of imageio-ffmpeg."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.optional import optional
from mpi_fast.plots.panels import CONCENTRATION, UNCERTAINTY
from mpi_fast.plots.saving import require

Pixels = NDArray[np.uint8]
FILMS = (".gif", ".mp4")
FRAMES_PER_SECOND = 10  # GIF counts hundredths of a second
SHADES = 112  # of each colour map in the palette of a GIF; the rest of 256 are greys


def require_film(path: Path) -> None:
    """Check that a film can be written under this name.

    Raises
    ------
    MPIFastError
        If Matplotlib, or imageio-ffmpeg for an MP4, is not installed.
    InputError
        If the suffix is not one of `FILMS`.
    """
    require(path, FILMS)
    if path.suffix.lower() == ".mp4":
        needed = f"{path}: films in MP4 need imageio-ffmpeg: pip install 'mpi-fast[films]'; a .gif does not"
        with optional(needed, failures=(ImportError, RuntimeError)):
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()


def record(path: Path, frames: Iterable[Pixels]) -> None:
    """Write a film of frames (rows, columns, 3), all of one size, in the format of the name's suffix.

    The file appears when it is complete.

    Raises
    ------
    InputError
        If there are no frames.
    MPIFastError
        As `require_film`, and if ffmpeg fails.
    """
    require_film(path)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InputError(f"{path}: a film of no frames")
    write = _write_gif if path.suffix.lower() == ".gif" else _write_mp4
    with atomic_path(path) as temporary:
        write(temporary, first, chain([first], iterator))


def _write_gif(path: Path, first: Pixels, frames: Iterator[Pixels]) -> None:
    """Write frames with a common palette, so that unchanged parts do not flicker."""
    from matplotlib import colormaps
    from PIL import Image

    maps = [colormaps[name](np.linspace(0, 1, SHADES))[:, :3] for name in (CONCENTRATION, UNCERTAINTY)]
    greys = np.repeat(np.linspace(0, 1, 256 - 2 * SHADES), 3).reshape(-1, 3)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.round(255 * np.concatenate([*maps, greys])).astype(np.uint8).tobytes())
    drawn = [Image.fromarray(one).quantize(palette=palette, dither=Image.Dither.NONE) for one in frames]
    duration = 1000 // FRAMES_PER_SECOND
    drawn[0].save(path, save_all=True, append_images=drawn[1:], duration=duration, loop=0, optimize=False)


def _write_mp4(path: Path, first: Pixels, frames: Iterator[Pixels]) -> None:
    """Pass frames to ffmpeg as they are drawn; files with even numbers of pixels work in every player."""
    import imageio_ffmpeg

    size = first.shape[1], first.shape[0]
    options = {"fps": FRAMES_PER_SECOND, "quality": 8, "macro_block_size": 2, "ffmpeg_log_level": "error"}
    sink = imageio_ffmpeg.write_frames(str(path), size, **options)
    try:
        sink.send(None)
        for one in frames:
            sink.send(np.ascontiguousarray(one))
    except OSError as error:
        raise MPIFastError(f"the film cannot be written: ffmpeg: {error}") from error
    finally:
        sink.close()
    if not path.is_file() or not path.stat().st_size:
        raise MPIFastError("the film cannot be written: ffmpeg wrote nothing")
