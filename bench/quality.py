"""Image quality on scanners and phantom families that training never saw, beside tuned ART.

    python bench/quality.py [--model BUNDLE] [--frames 42] [--json FILE] [--markdown FILE]

Noise is white complex Gaussian at ``SNR = 20 log10(||A x|| / ||noise||)`` over the selected rows of each frame; noise
level and concentration (0.05 to 2 times the delta sample) are unknown to either method. PSNR takes the true maximum as
peak, SSIM a Gaussian window of sigma 1.5 and the true maximum as data range; images are clipped at zero, nothing else.

ART is the regularised Kaczmarz iteration, real and non-negative. Its parameter, number of sweeps and row weighting are
tuned for every scanner and SNR, on frames of the same scanner and families with another seed: more than a user could
do. Ours has no parameter and is the same for all.
"""

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from heldout import measure, write_calibration_file
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


def tuned_art(calibration: Calibration, rows: NDArray[np.complex64], images: NDArray[np.float32]) -> Kaczmarz:
    """The best of all settings on the given frames."""
    settings = itertools.product(STRENGTHS, SWEEPS, ("measured", "whitened"))
    methods = [Kaczmarz(calibration, *setting) for setting in settings]
    return max(methods, key=lambda method: psnr(method(rows).image, images).mean())


def empty_frames(calibration: Calibration, reconstruct: Reconstructor, rng: np.random.Generator) -> float:
    """Largest image maximum of 256 frames of white noise, in units of the noise floor that the calibration predicts."""
    noise = rng.standard_normal((256, calibration.num_rows)) + 1j * rng.standard_normal((256, calibration.num_rows))
    out = reconstruct(noise.astype(np.complex64))
    return float((out.image.max(axis=(1, 2)) / out.noise_floor).max())


def evaluate(heldout: HeldOut, model: str, count: int, folder: Path) -> list[dict[str, float | str]]:
    """PSNR and SSIM of both methods on one scanner at every SNR, and what becomes of empty frames."""
    matrix_file = folder / "sm.mdf"
    truth = write_calibration_file(heldout, matrix_file)
    calibration = Calibration.from_mdf(matrix_file)
    reconstruct = Reconstructor(calibration, model=model)
    test, tuning = phantoms(count, TEST_SEED), phantoms(21, TUNING_SEED)
    empty = empty_frames(calibration, reconstruct, np.random.default_rng(heldout.seed))
    results: list[dict[str, float | str]] = []
    for snr in SNRS:
        rows = measure(heldout, truth, calibration, test, snr, folder / "m.mdf")
        art = tuned_art(calibration, measure(heldout, truth, calibration, tuning, snr, folder / "t.mdf"), tuning)
        theirs, ours = art(rows).image, reconstruct(rows)
        gain = psnr(ours.image, test) - psnr(theirs, test)
        results.append(
            {
                "scanner": heldout.name,
                "rows": calibration.num_rows,
                "rank": calibration.rank,
                "snr_db": snr,
                "psnr_art": float(psnr(theirs, test).mean()),
                "psnr": float(psnr(ours.image, test).mean()),
                "gain": float(gain.mean()),
                "gain_error": float(gain.std(ddof=1) / np.sqrt(count)),
                "ssim_art": float(ssim(theirs, test).mean()),
                "ssim": float(ssim(ours.image, test).mean()),
                "concentration": float((ours.image.sum(axis=(1, 2)) / test.sum(axis=(1, 2))).mean()),
                "snr_found": float(ours.snr_db.mean()),
                "empty": empty,
                "art": f"lambda {art.strength:g}, {art.iterations} sweeps, {art.rows} rows",
            }
        )
    return results


def table(results: list[dict[str, float | str]]) -> str:
    """Results as Markdown, with the means over the scanners last."""
    lines = [
        "| scanner | SNR | ART (tuned) PSNR / SSIM | mpi-fast PSNR / SSIM | gain, dB | total concentration |",
        "|---|---|---|---|---|---|",
    ]
    means: list[dict[str, float | str]] = []
    for snr in SNRS:
        same = [one for one in results if one["snr_db"] == snr]
        keys = ("psnr_art", "psnr", "gain", "ssim_art", "ssim", "concentration")
        mean: dict[str, float | str] = {key: float(np.mean([one[key] for one in same])) for key in keys}
        error = float(np.sqrt(np.sum([float(one["gain_error"]) ** 2 for one in same])) / len(same))
        means.append({"scanner": "**mean**", "snr_db": snr, "gain_error": error, **mean})
    for one in [*results, *means]:
        lines.append(
            f"| {one['scanner']} | {one['snr_db']:.0f} dB | {one['psnr_art']:.1f} dB / {one['ssim_art']:.3f} "
            f"| **{one['psnr']:.1f} dB / {one['ssim']:.3f}** | {one['gain']:+.1f} ± {one['gain_error']:.1f} "
            f"| {100 * float(one['concentration']):.0f} % |"
        )
    empty = max(float(one["empty"]) for one in results)
    lines.append("")
    lines.append(
        f"Of 256 frames of noise per scanner, the brightest voxel has {empty:.1f} times the predicted noise floor."
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--frames", type=int, default=42)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for heldout in track(SCANNERS, "scanners", console=Console(stderr=True)):
            results += evaluate(heldout, options.model, options.frames, Path(folder))
    text = table(results)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
