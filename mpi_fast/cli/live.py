"""``mpi-fast live``: show images in a browser while frames are reconstructed."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpi_fast.cli.options import Device, EngineName, Evaluations, Model, Plane, Threads, parse_grid, parse_plane
from mpi_fast.console import console, friendly, note, spinner
from mpi_fast.errors import InputError
from mpi_fast.grids import shown

if TYPE_CHECKING:
    from mpi_fast.calibration import Calibration
    from mpi_fast.live.source import Source
    from mpi_fast.reconstructor import Reconstructor

SIMULATE = "simulate"
SIMULATED_RATE = 100.0
LIVE_EVALUATIONS = 1  # elsewhere two: for whoever watches, the time of a second one counts more than its 0.4 dB


def live(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help=f"A measurement (MDF), '{SIMULATE}', or a socket: tcp://..."),
    ],
    calibration: Annotated[
        Path | None, typer.Option("-c", "--calibration", help="System matrix (MDF), or what calibrate saved.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 for any free port.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen on; addresses that others can reach need a token.")
    ] = "127.0.0.1",
    token: Annotated[
        str | None,
        typer.Option(envvar="MPI_FAST_TOKEN", show_default="a new one if needed", help="Token for access."),
    ] = None,
    clients: Annotated[int, typer.Option(min=1, max=1000, help="Largest number of open pages.")] = 8,
    average: Annotated[int, typer.Option(min=1, max=10**6, help="Frames of a sliding mean.")] = 1,
    newest: Annotated[
        bool, typer.Option(help="Drop (and count) frames that come too fast; or let the source wait.")
    ] = True,
    rate: Annotated[
        float | None,
        typer.Option(show_default=f"the scanner's, {SIMULATED_RATE:g} simulated", help="Frames per second."),
    ] = None,
    repeat: Annotated[bool, typer.Option("--repeat", help="Play a file again and again.")] = False,
    grid: Annotated[str, typer.Option(help="Grid of the simulated scanner.")] = "19x19",
    recordings: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for recordings.")] = Path(),
    plane: Plane = None,
    model: Model = "default",
    threads: Threads = None,
    evaluations: Evaluations = LIVE_EVALUATIONS,
    device: Device = "auto",
    engine: EngineName = "auto",
) -> None:
    """Reconstruct frames as they arrive, and show the images on a page, by default http://127.0.0.1:8765."""
    with friendly():
        if not recordings.is_dir():
            raise InputError(f"--recordings {recordings}: no such folder")
        if rate is not None and not 0 < rate < 1e6:
            raise InputError(f"--rate {rate}: expected a positive number of frames per second")
        if token is not None and len(token) < 16:
            raise InputError("--token: at least 16 characters were expected; without it a good one is made")
        from mpi_fast.live.recorder import Recorder
        from mpi_fast.live.server import Access, Page, listen, needs_token, serve  # names a missing package
        from mpi_fast.pairing import image_grid
        from mpi_fast.reconstructor import Reconstructor

        if token is None and needs_token(host):
            token = secrets.token_urlsafe(24)
        access = Access(host, token, clients)
        with listen(host, port) as listening:
            with spinner("getting ready"):
                options: dict[str, Any] = {"plane": parse_plane(plane)} if plane else {}
                frames = _source(source, calibration, options, rate, repeat, grid)
                reconstructor = Reconstructor(
                    frames.calibration, model, device=device, threads=threads, evaluations=evaluations, engine=engine
                )
                voxels = image_grid(frames.calibration)
                about = _about(frames, reconstructor)
                recorder = Recorder(recordings, voxels, frames.acquisition, about)
                page = Page(frames, reconstructor, voxels, recorder, access, about, newest=newest, average=average)
            note(reconstructor.runs_on)
            port = listening.getsockname()[1]
            name = f"[{host}]" if ":" in host else host
            query = f"/?token={token}" if token else "/"
            console.print(f"http://{name}:{port}{query}", soft_wrap=True)
            console.file.flush()
            serve(page, listening)


def _source(
    name: str, calibration: Path | None, options: dict[str, Any], rate: float | None, repeat: bool, grid: str
) -> "Source":
    if name == SIMULATE:
        if calibration is not None or options:
            raise InputError(f"{SIMULATE}: the simulated scanner has a calibration of its own; expected none")
        from mpi_fast.live.from_simulation import SimulatedSource

        return SimulatedSource(parse_grid(grid), rate or SIMULATED_RATE)
    if calibration is None:
        raise InputError(f"{name}: expected --calibration, a system matrix or what calibrate saved")
    from mpi_fast.calibration import Calibration

    if "://" in name:
        if rate is not None or repeat:
            raise InputError(f"{name}: frames come from a socket as they are sent; --rate and --repeat are for files")
        from mpi_fast.live.from_socket import SocketSource

        return SocketSource(name, Calibration.open(calibration, **options))
    from mpi_fast.live.from_file import FileSource

    return FileSource(Path(name), Calibration.open(calibration, **options), rate, repeat)


def _about(source: "Source", reconstructor: "Reconstructor") -> dict[str, str]:
    reduced: Calibration = reconstructor.calibration
    return {
        "calibration": f"{shown(reduced.grid)} voxels, {reduced.num_rows} rows, rank {reduced.rank}",
        "runs_on": reconstructor.runs_on,
    }
