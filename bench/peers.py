"""The network as a denoiser in samplers of deepinv, for the same linear problem, compared with our sampler.

    pip install -r bench/peers-requirements.txt
    python bench/peers.py [--snr 5 15 25 35] [--frames 21] [--tuning 7 | --tuned FILE] [--json FILE] [--markdown FILE]

A user might build this alternative: deepinv's DiffPIR and DDRM around the bundled network without signals
(`pipelines.graph.Prior`, ONNX Runtime) and ``y = S V^T x + sigma xi``, the mean of eight samples, beside the mean of
eight samples of ours, and the image that ours makes by default. One frame at a time on one thread; theirs with as many
evaluations as our sampler, and with 50. Their parameters are tuned by `methods.tuning` for every SNR, on frames of
other phantoms, or taken from the JSON file of an earlier run, even of an interrupted one; ours has none. Times are
medians over frames, all methods taking turns. Scanner A of `heldout`.
"""

import argparse
import json
import tempfile
import time
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import deepinv
import numpy as np
import torch
from heldout_files import measure, write_calibration_file
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.heldout import SCANNERS, phantoms
from mpi_fast.likelihood import Likelihood
from mpi_fast.limits import EVALUATIONS
from mpi_fast.machine import processor
from mpi_fast.methods.base import Method, ReducedMethod
from mpi_fast.methods.sampled import SampleMean
from mpi_fast.methods.tuning import Axis, Space, tune
from mpi_fast.metrics import psnr, ssim
from mpi_fast.pipelines import Sampling
from mpi_fast.pipelines.graph import Denoiser, Prior
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.schedule import karras_sigmas

Array = NDArray[np.float32]
SAMPLES = 8
FEW, MANY = Sampling.steps + 1, 50  # evaluations of the network for each sample; the start of ours takes one
TEST_SEED, TUNING_SEED = 2026, 1
TIMED = 12  # frames


class Peer(ReducedMethod):
    """The mean of eight samples for each frame, by a sampler of deepinv."""

    def __init__(self, calibration: Calibration, evaluations: int = FEW) -> None:
        super().__init__(calibration)
        self.evaluations = evaluations
        bundle = Bundle.open()
        self.sigma_range = bundle.sigma_range
        self._denoise = Prior(bundle, calibration.grid, threads=1).of_frames(SAMPLES)
        completed, _, _ = np.linalg.svd(calibration.basis, full_matrices=True)
        completed[:, : calibration.rank] = calibration.basis  # a basis of all images, including what is not measured
        self.basis = torch.from_numpy(completed.astype(np.float32))

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N), one frame after the other."""
        scanner = likelihood.singular_values, likelihood.basis
        frames = range(len(likelihood.y))
        parts = (Likelihood(likelihood.y[f : f + 1], *scanner, likelihood.noise[f : f + 1]) for f in frames)
        return np.stack([self._frame(part) for part in parts])

    def _frame(self, likelihood: Likelihood) -> Array:
        network = Network(self._denoise, self.sigma_range)
        torch.manual_seed(0)
        with torch.inference_mode():
            samples = self.sample(network, likelihood)
        return np.maximum(samples.reshape(SAMPLES, -1).numpy().mean(axis=0), 0)

    @abstractmethod
    def sample(self, network: "Network", likelihood: Likelihood) -> Tensor:
        """Draw eight images (8, 1, ny, nx) of a frame."""

    def physics(self, likelihood: Likelihood, unit: float) -> tuple[Tensor, Any]:
        """Signals (8, 1, ny, nx) and their physics in the form of deepinv, for images in this unit."""
        ny, nx = self.calibration.grid
        values, signals = np.zeros((2, self.calibration.num_voxels), dtype=np.float32)
        values[: self.calibration.rank] = likelihood.singular_values
        signals[: self.calibration.rank] = likelihood.y[0] / unit
        basis = self.basis
        physics = deepinv.physics.DecomposablePhysics(
            U=lambda u: u,
            U_adjoint=lambda u: u,
            V=lambda u: (u.flatten(1) @ basis.T).reshape(u.shape),
            V_adjoint=lambda u: (u.flatten(1) @ basis).reshape(u.shape),
            mask=torch.from_numpy(values).reshape(1, 1, ny, nx),
            img_size=(1, ny, nx),
            noise_model=deepinv.physics.GaussianNoise(float(likelihood.noise[0] / unit)),
        )
        return torch.from_numpy(signals).reshape(1, 1, ny, nx).repeat(SAMPLES, 1, 1, 1), physics


class Network(deepinv.models.Denoiser):
    """Our denoiser with the interface of deepinv, for images in units of ``unit`` root-mean-squares."""

    def __init__(self, denoise: Denoiser, sigma_range: tuple[float, float]) -> None:
        super().__init__(device="cpu")
        self.denoise, self.sigma_range, self.unit = denoise, sigma_range, 1.0

    def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
        """Denoise images (B, 1, ny, nx). Noise levels outside the network's range are replaced by its limits."""
        low, high = self.sigma_range
        level = float(sigma) * self.unit
        noisy = x * (self.unit * min(1.0, high / level))
        denoised = self.denoise(noisy.flatten(1).numpy(), min(max(level, low), high))
        return torch.from_numpy(denoised / np.float32(self.unit)).reshape(x.shape)


class DiffPIR(Peer):
    """deepinv's DiffPIR (Zhu et al. 2023), for images in [0, 1], where 1 is ``peak`` root-mean-squares."""

    def __init__(
        self, calibration: Calibration, zeta: float = 0.3, weight: float = 7.0, peak: float = 8.0, **options: Any
    ) -> None:
        super().__init__(calibration, **options)
        self.zeta, self.weight, self.peak = zeta, weight, peak

    def sample(self, network: Network, likelihood: Likelihood) -> Tensor:
        """Start from the posterior mean under a white prior."""
        network.unit = self.peak
        signals, physics = self.physics(likelihood, self.peak)
        start = likelihood.combine(np.zeros((1, self.calibration.num_voxels), np.float32), 1.0) / self.peak
        sampler = deepinv.sampling.DiffPIR(
            network,
            deepinv.optim.data_fidelity.L2(),
            max_iter=self.evaluations,
            zeta=self.zeta,
            lambda_=self.weight,
        )
        first = torch.from_numpy(start).reshape(1, *signals.shape[1:]).expand_as(signals)
        return sampler(signals, physics, x_init=first) * self.peak


class DDRM(Peer):
    """deepinv's DDRM (Kawar et al. 2022), on our noise levels."""

    def __init__(self, calibration: Calibration, eta: float = 0.85, etab: float = 1.0, **options: Any) -> None:
        super().__init__(calibration, **options)
        self.eta, self.etab = eta, etab

    def sample(self, network: Network, likelihood: Likelihood) -> Tensor:
        """Draw samples, starting from noise."""
        signals, physics = self.physics(likelihood, 1.0)
        levels = karras_sigmas(self.evaluations, *self.sigma_range)[:-1].tolist()
        return deepinv.sampling.DDRM(network, sigmas=levels, eta=self.eta, etab=self.etab)(signals, physics)


DIFFPIR: Space = {
    "zeta": Axis((0.3, 0.9), high=1.0),
    "weight": Axis((0.3, 3.0, 30.0)),
    "peak": Axis((6.0, 12.0)),
}
DDRM_SPACE: Space = {"eta": Axis((0.3, 0.9), low=0.03, high=1.0), "etab": Axis((0.3, 0.9), low=0.03, high=1.0)}
CONTESTANTS: dict[str, tuple[Callable[..., Method], Space, int]] = {
    "mpi-fast": (partial(Reconstructor, device="cpu", threads=1, inspect=False), {}, EVALUATIONS),
    f"mpi-fast, mean of {SAMPLES} samples": (partial(SampleMean, samples=SAMPLES, threads=1), {}, SAMPLES * FEW),
    **{
        f"deepinv {name}, {count} steps": (partial(method, evaluations=count), space, SAMPLES * count)
        for count in (FEW, MANY)
        for name, method, space in (("DDRM", DDRM, DDRM_SPACE), ("DiffPIR", DiffPIR, DIFFPIR))
    },
}


def run(
    snrs: list[float],
    frames: int,
    tuning: int,
    before: list[dict[str, Any]],
    folder: Path,
    save: Callable[[list[dict[str, Any]]], None],
) -> list[dict[str, Any]]:
    """PSNR, SSIM and time of every contestant at every SNR; earlier tuned parameters are used again."""
    torch.set_num_threads(1)
    scanner, console = SCANNERS[0], Console(stderr=True)
    truth = write_calibration_file(scanner, folder / "sm.mdf")
    calibration = Calibration.from_mdf(folder / "sm.mdf")
    test, known = phantoms(frames, TEST_SEED), phantoms(tuning, TUNING_SEED)
    earlier = {(one["method"], one["snr_db"]): (one["tuned"], one["interior"]) for one in before}
    results, methods = [], {}
    for snr in snrs:
        rows = measure(scanner, truth, calibration, test, snr, folder / "m.mdf")
        tuning_rows = measure(scanner, truth, calibration, known, snr, folder / "t.mdf")
        for name, (build, space, evaluations) in track(CONTESTANTS.items(), f"{snr:.0f} dB", console=console):
            if (name, snr) not in earlier:
                found = tune(partial(build, calibration), space, tuning_rows, known)
                earlier[name, snr] = found.parameters, found.interior
            parameters, interior = earlier[name, snr]
            methods[name] = build(calibration, **parameters)
            image = methods[name](rows).image
            results.append(
                {
                    "method": name,
                    "snr_db": snr,
                    "evaluations": evaluations,
                    "psnr": float(psnr(image, test).mean()),
                    "ssim": float(ssim(image, test).mean()),
                    "tuned": parameters,
                    "interior": interior,
                }
            )
            save(results)
            console.print(f"{snr:.0f} dB, {name}: {results[-1]['psnr']:.2f} dB, {parameters}", highlight=False)
    times = timed(methods, rows)
    return [{**one, "ms": times[one["method"]]} for one in results]


def timed(methods: dict[str, Method], rows: NDArray[np.complex64]) -> dict[str, float]:
    """Median time per frame in ms; the methods are measured in turn."""
    spent: dict[str, list[float]] = {name: [] for name in methods}
    for frame in rows[: TIMED + 1]:
        for name, method in methods.items():
            began = time.perf_counter()
            method(frame[None])
            spent[name].append(1e3 * (time.perf_counter() - began))
    return {name: float(np.median(one[1:])) for name, one in spent.items()}  # the first frame warms up


def table(results: list[dict[str, Any]]) -> str:
    """Results as Markdown."""
    snrs = sorted({one["snr_db"] for one in results})
    lines = [
        "| method | evaluations | time per frame | " + " | ".join(f"{snr:.0f} dB" for snr in snrs) + " |",
        "|---" * (3 + len(snrs)) + "|",
    ]
    for name in CONTESTANTS:
        same = sorted((one for one in results if one["method"] == name), key=lambda one: one["snr_db"])
        scores = " | ".join(f"{one['psnr']:.1f} / {one['ssim']:.3f}" for one in same)
        lines.append(f"| {name} | {same[0]['evaluations']} | {same[0]['ms']:.0f} ms | {scores} |")
    versions = f"{processor()}, torch {torch.__version__}, deepinv {deepinv.__version__}"
    lines += ["", f"PSNR in dB / SSIM; evaluations: images that the network makes for each frame. {versions}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snr", type=float, nargs="+", default=[5.0, 15.0, 25.0, 35.0])
    parser.add_argument("--frames", type=int, default=21)
    parser.add_argument("--tuning", type=int, default=7)
    parser.add_argument("--tuned", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    before = json.loads(options.tuned.read_text(encoding="utf-8")) if options.tuned else []

    def save(results: list[dict[str, Any]]) -> None:
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        results = run(options.snr, options.frames, options.tuning, before, Path(folder), save)
    save(results)
    text = table(results)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
