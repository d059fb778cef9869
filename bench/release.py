"""Compare this version with release 0.1, which is taken from git's history and run on the same frames.

    python bench/release.py [--scanners in,fine,out] [--snrs 5,10,15,20,25,30,35] [--frames 64] [--rounds 50]
                            [--json FILE] [--markdown FILE]

Both reconstruct the frames of `mpi_fast.comparison`, calibrated by the same file. The release uses its own network and
code, in a separate process. Differences are paired, with 95 % intervals by bootstrap over the frames. Coverage is the
share of true voxel values, within the trajectory's field of view, that lie in 95 % intervals; rank correlation is
Spearman's, of std and the error's size over the same voxels of a frame. Times are those of single frames on one thread,
measured alternately: medians of processor time, which other work does not affect, and of wall-clock time.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

from mpi_fast import metrics
from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.comparison import SCANNERS, Setup, frames, interval, measured
from mpi_fast.console import friendly, progress_bar, write_json
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.experiment import acquisition_of, save_matrix
from mpi_fast.machine import machine
from mpi_fast.mdf import MeasurementFile, write_measurement
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.uncertainty import half_width

NAME, COMMIT = "release 0.1", "516305ba602ff5afc813b103aa34df99227bcc7a"
REPOSITORY = Path(__file__).parents[1]
PROCESS = Path(__file__).with_name("release_process.py")
MERITS = ("psnr", "ssim", "edge_similarity", "edge_f1", "coverage_95", "rank_correlation")
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Images:
    """Result of a release for F frames: image, std (F, ny, nx), and the time of the call in ms."""

    image: Array
    std: Array
    quantiles: Array | None
    wall_ms: float
    cpu_ms: float


def checked_out(folder: Path, repository: Path = REPOSITORY) -> Path:
    """Write the package of the release and its networks into a folder.

    Raises
    ------
    InputError
        If git, or the history with the commit, is missing.
    """
    try:
        archive = subprocess.run(
            ["git", "-C", str(repository), "archive", COMMIT, "mpi_fast"], capture_output=True, check=True
        ).stdout
    except FileNotFoundError as error:
        raise InputError(f"{NAME}: it is taken from git's history, but git is not installed") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise InputError(
            f"{NAME}: {repository} has no commit {COMMIT[:7]}, expected a clone with its whole history "
            f"(git fetch --unshallow): {said}"
        ) from error
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder


class Release:
    """A release in a separate process, on one thread; see `running`."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process, self._output = process, folder / "images.npz"

    def __call__(self, measurement: Path) -> Images:
        """Reconstruct the frames of a measurement file, in one call."""
        spent = self._asked(measurement, None, None, str(self._output))
        with np.load(self._output) as found:
            return Images(found["image"], found["std"], None, **spent)

    def time(self, measurement: Path, frame: int = 0) -> dict[str, float]:
        """``wall_ms`` and ``cpu_ms`` of a call with a single frame."""
        return self._asked(measurement, frame, frame + 1, None)

    def _asked(self, measurement: Path, start: int | None, stop: int | None, output: str | None) -> dict[str, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"measurement": str(measurement), "frames": [start, stop], "output": output}
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            said = self._process.communicate()[1].strip().splitlines()
            raise MPIFastError(f"{NAME} ended with {self._process.returncode}: {said[-1] if said else 'no message'}")
        return dict(json.loads(answer))


@contextmanager
def running(tree: Path, matrix_file: Path) -> Iterator[Release]:
    """Start the release from `checked_out`, calibrated by an MDF system matrix; raises MPIFastError if it fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {
            "PYTHONPATH": str(tree.resolve()),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        command = [sys.executable, str(PROCESS), str(tree.resolve()), str(matrix_file.resolve())]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=folder
        ) as process:
            try:
                yield Release(process, folder)
            finally:
                process.kill()


def run_current(reconstruct: Reconstructor, rows: NDArray[np.complex64]) -> Images:
    """The result of the present code."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = reconstruct(rows)
    wall_ms, cpu_ms = 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)
    return Images(found.image, found.std, found.quantiles, wall_ms, cpu_ms)


def judged(images: Images, truth: Array, covered: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """`MERITS` of every frame."""
    width = half_width(images.std, images.quantiles, 0.95)
    pairs = zip(images.std, np.abs(images.image - truth), strict=True)
    return {
        **{name: getattr(metrics, name)(images.image, truth) for name in MERITS[:4]},
        "coverage_95": metrics.coverage(images.image, width, truth, covered),
        "rank_correlation": np.array([spearmanr(std[covered], error[covered]).statistic for std, error in pairs]),
    }


def rows_of(path: Path, calibration: Calibration) -> NDArray[np.complex64]:
    with MeasurementFile(path) as file:
        return np.concatenate([calibration.rows(chunk) for chunk in file.frames()])


def evaluate(
    setup: Setup, snrs: list[float], rounds: int, tree: Path, folder: Path, report: Callable[[], None]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Figures of merit of both versions at every SNR, and the times of single frames."""
    matrix, _ = measured(setup.heldout)
    matrix_file = folder / "sm.mdf"
    save_matrix(matrix_file, matrix)
    calibration = Calibration.from_mdf(matrix_file)
    results = []
    with threadpool_limits(limits=1), running(tree, matrix_file) as release:
        reconstruct = Reconstructor(calibration, setup.model, device="cpu", threads=1)
        for snr in snrs:
            spectra, truth = frames(setup, snr)
            measurement = folder / f"m{snr:g}.mdf"
            write_measurement(measurement, spectra, acquisition=acquisition_of(matrix.scanner))
            rows = rows_of(measurement, calibration)
            ours, theirs = (
                judged(one, truth, setup.covered()) for one in (run_current(reconstruct, rows), release(measurement))
            )
            results.append({"scanner": setup.heldout.name, "snr_db": snr, **_row(ours, theirs)})
            report()
        times = side_by_side(lambda: run_current(reconstruct, rows[:1]), lambda: release.time(measurement), rounds)
    return results, {"frames": setup.phantoms, "rank": calibration.rank, **times}


def _row(ours: dict[str, NDArray[np.float64]], theirs: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Means of both versions, and the mean differences with their intervals."""
    found = {}
    for name in MERITS:
        gain = ours[name] - theirs[name]
        found[name] = {"here": float(ours[name].mean()), NAME: float(theirs[name].mean())}
        found[name] |= {"gain": float(gain.mean()), "interval": interval(gain)}
    return found


def side_by_side(ours: Callable[[], Images], theirs: Callable[[], dict[str, float]], rounds: int) -> dict[str, float]:
    """Medians of the times, measured alternately, after a first round without measurement."""
    spent = []
    for _ in range(rounds + 1):
        mine, other = ours(), theirs()
        spent.append((mine.wall_ms, mine.cpu_ms, other["wall_ms"], other["cpu_ms"]))
    wall, cpu, wall_then, cpu_then = np.median(spent[1:], axis=0).tolist()
    then = {"wall_ms_then": wall_then, "cpu_ms_then": cpu_then}
    return {"wall_ms": wall, "cpu_ms": cpu, **then, "times_faster": cpu_then / cpu, "rounds": rounds}


def table(results: list[dict[str, Any]], times: dict[str, dict[str, float]]) -> str:
    """Results as Markdown: a line for each scanner and SNR, a mean for each scanner, and the times."""
    lines = [
        f"| scanner | SNR | {NAME}: PSNR / SSIM | this version | gain, dB | edges, F1 | 95 % coverage "
        "| rank correlation |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for scanner in dict.fromkeys(one["scanner"] for one in results):
        same = [one for one in results if one["scanner"] == scanner]
        for one in same:
            psnr, ssim, f1, held, rank = (one[name] for name in ("psnr", "ssim", "edge_f1", *MERITS[4:]))
            low, high = psnr["interval"]
            lines.append(
                f"| {scanner} | {one['snr_db']:g} dB | {psnr[NAME]:.1f} / {ssim[NAME]:.3f} | "
                f"{psnr['here']:.1f} / {ssim['here']:.3f} | {psnr['gain']:+.2f} [{low:+.2f}, {high:+.2f}] | "
                f"{f1[NAME]:.3f} -> {f1['here']:.3f} | {100 * held[NAME]:.0f} -> {100 * held['here']:.0f} % | "
                f"{rank[NAME]:.2f} -> {rank['here']:.2f} |"
            )
        mean = {name: {of: np.mean([one[name][of] for one in same]) for of in (NAME, "here")} for name in MERITS[:2]}
        gain = np.mean([one["psnr"]["gain"] for one in same])
        lines.append(
            f"| **{scanner}, mean** | | {mean['psnr'][NAME]:.1f} / {mean['ssim'][NAME]:.3f} | "
            f"{mean['psnr']['here']:.1f} / {mean['ssim']['here']:.3f} | **{gain:+.2f}** | | | |"
        )
    lines.append("")
    lines += [
        f"{scanner}: a frame on one thread takes {one['cpu_ms']:.1f} ms of processor time in this version and "
        f"{one['cpu_ms_then']:.1f} ms in {NAME}, **{one['times_faster']:.1f} times** as long "
        f"(wall-clock time: {one['wall_ms']:.1f} and {one['wall_ms_then']:.1f} ms)."
        for scanner, one in times.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scanners", default=",".join(SCANNERS))
    parser.add_argument("--snrs", default="5,10,15,20,25,30,35")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=50, help="rounds of timing, in which both versions alternate")
    parser.add_argument("--model", default=Setup().model, help="bundle that is compared with the release")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    snrs, names = [float(snr) for snr in options.snrs.split(",")], options.scanners.split(",")
    results: list[dict[str, Any]] = []
    times: dict[str, dict[str, float]] = {}
    with friendly(), tempfile.TemporaryDirectory() as checkout, progress_bar("scanners x SNRs") as bar:
        tree, provenance = checked_out(Path(checkout)), Bundle.open(options.model).manifest["provenance"]
        task = bar.add_task("reconstructing twice", total=len(names) * len(snrs))
        for name in names:
            setup = Setup(scanner=name, phantoms=options.frames, model=options.model)
            with tempfile.TemporaryDirectory() as folder:
                found, spent = evaluate(setup, snrs, options.rounds, tree, Path(folder), lambda: bar.advance(task))
            results += found
            times[setup.heldout.name] = spent
            if options.json:
                about = {"commit": COMMIT, "model": provenance, "machine": machine()}
                write_json(options.json, {**about, "results": results, "times": times})
    text = table(results, times)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
