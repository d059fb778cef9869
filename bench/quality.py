"""Image quality on held-out scanners and phantom families, compared with tuned ART.

    python bench/quality.py [--model BUNDLE] [--frames 42] [--json FILE] [--markdown FILE]

Noise is white complex Gaussian at ``SNR = 20 log10(||A x|| / ||noise||)`` over the selected rows of each frame; noise
level and concentration (0.05 to 2 times the delta sample) are unknown to both methods. PSNR takes the true maximum as
peak, SSIM a Gaussian window of sigma 1.5 and the true maximum as data range; images are clipped at zero, nothing else.

ART is the regularised Kaczmarz iteration, real and non-negative. Its parameter, number of sweeps and row weighting are
tuned for every scanner and SNR, on frames of the same scanner and families with another seed, better than a user
could do. Ours has no parameter.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from heldout_files import measure, write_calibration_file
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from mpi_fast.calibration import Calibration
from mpi_fast.heldout import SCANNERS, HeldOut, phantoms
from mpi_fast.methods.art import Kaczmarz
from mpi_fast.metrics import psnr, ssim
from mpi_fast.reconstructor import Reconstructor

SNRS = (5.0, 15.0, 25.0, 35.0)
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
SWEEPS = (1, 3, 10, 30)
TEST_SEED, TUNING_SEED = 2026, 1
FIGURES = "psnr_art", "ssim_art", "psnr", "ssim", "gain", "concentration"


def tuned_art(calibration: Calibration, rows: NDArray[np.complex64], images: NDArray[np.float32]) -> Kaczmarz:
    """ART with the best of all settings on the given frames."""
    settings = itertools.product(STRENGTHS, SWEEPS, ("measured", "whitened"))
    methods = [Kaczmarz(calibration, *setting) for setting in settings]
    return max(methods, key=lambda method: psnr(method(rows).image, images).mean())


def empty_frames(calibration: Calibration, reconstruct: Reconstructor, rng: np.random.Generator) -> float:
    """Largest image maximum of 256 frames of white noise, in units of the noise floor that the calibration predicts."""
    noise = rng.standard_normal((256, calibration.num_rows)) + 1j * rng.standard_normal((256, calibration.num_rows))
    out = reconstruct(noise.astype(np.complex64))
    return float((out.image.max(axis=(1, 2)) / out.noise_floor).max())


def evaluate(heldout: HeldOut, model: str, count: int, folder: Path) -> Iterator[dict[str, Any]]:
    """PSNR and SSIM of both methods on one scanner at every SNR, and the images of empty frames."""
    truth = write_calibration_file(heldout, folder / "sm.mdf")
    calibration = Calibration.from_mdf(folder / "sm.mdf")
    reconstruct = Reconstructor(calibration, model=model)
    test, tuning = phantoms(count, TEST_SEED), phantoms(21, TUNING_SEED)
    empty = empty_frames(calibration, reconstruct, np.random.default_rng(heldout.seed))
    for snr in SNRS:
        rows = measure(heldout, truth, calibration, test, snr, folder / "m.mdf")
        art = tuned_art(calibration, measure(heldout, truth, calibration, tuning, snr, folder / "t.mdf"), tuning)
        theirs, ours = art(rows).image, reconstruct(rows)
        gain = psnr(ours.image, test) - psnr(theirs, test)
        yield {
            "scanner": heldout.name,
            "rows": calibration.num_rows,
            "rank": calibration.rank,
            "snr_db": snr,
            **_figures(theirs, test, "_art"),
            **_figures(ours.image, test, ""),
            "gain": float(gain.mean()),
            "gain_error": float(gain.std(ddof=1) / np.sqrt(count)),
            "concentration": float((ours.image.sum(axis=(1, 2)) / test.sum(axis=(1, 2))).mean()),
            "snr_found": float(ours.snr_db.mean()),
            "empty": empty,
            "art": f"lambda {art.strength:g}, {art.iterations} sweeps, {art.rows} rows",
        }


def _figures(image: NDArray[np.float32], truth: NDArray[np.float32], suffix: str) -> dict[str, float]:
    return {f"psnr{suffix}": float(psnr(image, truth).mean()), f"ssim{suffix}": float(ssim(image, truth).mean())}


def table(results: list[dict[str, Any]]) -> str:
    """Results as Markdown, with the means over the scanners last."""
    lines = [
        "| scanner | SNR | ART (tuned) PSNR / SSIM | mpi-fast PSNR / SSIM | gain, dB | total concentration |",
        "|---|---|---|---|---|---|",
    ]
    means: list[dict[str, Any]] = []
    for snr in SNRS:
        same = [one for one in results if one["snr_db"] == snr]
        mean = {key: float(np.mean([one[key] for one in same])) for key in FIGURES}
        error = float(np.sqrt(np.sum([one["gain_error"] ** 2 for one in same])) / len(same))
        means.append({"scanner": "**mean**", "snr_db": snr, "gain_error": error, **mean})
    for one in [*results, *means]:
        art, ours = (f"{one['psnr' + of]:.1f} dB / {one['ssim' + of]:.3f}" for of in ("_art", ""))
        lines.append(
            f"| {one['scanner']} | {one['snr_db']:.0f} dB | {art} | **{ours}** "
            f"| {one['gain']:+.1f} ± {one['gain_error']:.1f} | {100 * one['concentration']:.0f} % |"
        )
    empty = max(one["empty"] for one in results)
    lines.append("")
    lines.append(
        f"The brightest voxel of 256 frames of noise per scanner has {empty:.1f} times the predicted noise floor."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--frames", type=int, default=42)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        for heldout in track(SCANNERS, "scanners", console=Console(stderr=True)):
            results += evaluate(heldout, options.model, options.frames, Path(name))
    text = table(results)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
