"""Comparison of kernels with their references on random problems. The checks are the same for g++ and for a GPU.

As a program, this module runs a few checks: under the address sanitizer in test_kernels_shim.py, under
compute-sanitizer in bench/sanitize.sh.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpi_fast.calibration import Calibration
from mpi_fast.kernels import prepare, reduce, sampling
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.sampling import PosteriorSampler
from mpi_fast.kernels.solvers import Update, posterior_chain
from mpi_fast.kernels.weights import Weights
from mpi_fast.likelihood import WIDTHS
from mpi_fast.philox import standard_normal
from mpi_fast.schedule import VE


@dataclass(frozen=True)
class Case:
    """Sizes of a problem; the rank is reduced if the other sizes require it."""

    frames: int = 3
    samples: int = 4
    grid: tuple[int, ...] = (19, 19)
    rank: int = 150
    rows: int = 500
    seed: int = 0

    @property
    def voxels(self):
        return int(np.prod(self.grid))

    def calibration(self):
        """Random singular vectors, and singular values over six orders of magnitude, as real scanners have them."""
        rng = np.random.default_rng(self.seed)
        rank = min(self.rank, self.voxels, 2 * self.rows - 1)
        u = rng.standard_normal((2 * self.rows, rank)) / np.sqrt(2 * self.rows)
        v = np.linalg.qr(rng.standard_normal((self.voxels, rank)))[0]
        s = np.sort(np.exp(rng.uniform(-4.0, 10.0, rank)))[::-1]
        weights = np.exp(rng.standard_normal(self.rows))
        return Calibration(
            grid=self.grid,
            field_of_view=(1.0,) * len(self.grid),
            selection=np.ones((1, self.rows), dtype=bool),
            frequencies=np.arange(self.rows, dtype=np.float64),
            matrix=np.zeros((self.rows, self.voxels), dtype=np.complex64),
            weights=weights,
            singular_values=s.astype(np.float32),
            basis=v.astype(np.float32),
            projection=np.ascontiguousarray((u[: self.rows] - 1j * u[self.rows :]).T * weights),
        )

    def signals(self, calibration):
        """Noise of amplitudes from tiny to large, and one frame of zeros if there are several."""
        rng = np.random.default_rng(self.seed + 1)
        rows = rng.standard_normal((self.frames, calibration.num_rows, 2)) @ [1, 1j]
        rows *= np.exp(rng.uniform(-10, 10, (self.frames, 1)))
        rows[1:2] = 0
        return rows.astype(np.complex64)

    def reduced(self, calibration):
        """y and energy of frames from noise alone to 60 dB, of any scale, and one frame of zeros."""
        rng = np.random.default_rng(self.seed + 4)
        outside = 2 * self.rows - calibration.rank
        level = np.exp(rng.uniform(-10, 10, self.frames))
        signal = np.where(rng.random(self.frames) < 0.3, 0.0, np.exp(rng.uniform(-2, 7, self.frames)))
        level[1:2] = 0
        y = rng.standard_normal((self.frames, calibration.rank)) * (level * np.hypot(1.0, signal))[:, None]
        return y, np.square(y).sum(axis=1) + level**2 * rng.chisquare(outside, self.frames)


def filled(device, array):
    """A guarded array of the device with this content."""
    target = device.empty(array.shape, array.dtype)
    device.copy(np.ascontiguousarray(array), target)
    return target


def host(array):
    """The array as NumPy array, after all work of the device."""
    if isinstance(array, np.ndarray):
        return array
    array.device.synchronize()  # the stream that copies does not wait for the device's stream
    return array.get()


def close(found, expected, tolerance):
    """Assert differences within the tolerance, relative to the largest magnitude; unwritten values are NaN and fail."""
    largest = np.abs(expected).max(initial=0.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * largest + np.finfo(np.float32).tiny)


def check_reduce(device, case):
    calibration = case.calibration()
    rows = case.signals(calibration)
    expected_y, expected_energy = reduce.reference(calibration, rows)
    projection = reduce.Projection.upload(calibration, device)
    y, energy = device.empty(expected_y.shape, np.float64), device.empty(expected_energy.shape, np.float64)
    reduce.reduce(device, projection, filled(device, rows), y, energy)
    np.testing.assert_allclose(host(energy), expected_energy, rtol=1e-13)
    error = np.abs(host(y) - expected_y) / np.sqrt(np.maximum(expected_energy, 1e-300))[:, None]
    assert error.max() < 1e-12


def check_prepare(device, case):
    """Check both forms: one thread block for each frame, as for planes, and all multiprocessors, as for volumes."""
    calibration = case.calibration()
    reduced, energy = case.reduced(calibration)
    expected = prepare.reference(calibration, reduced, energy)
    basis = prepare.Basis.upload(calibration, device)
    for factors in (None, device.empty((case.frames, calibration.rank, prepare.CONDITION_CHANNELS), np.float32)):
        y, statistics, condition = found = [device.empty(a.shape, np.float32) for a in expected]
        prepare.prepare(device, basis, filled(device, reduced), filled(device, energy), *found, factors)
        compare_prepared(y, statistics, condition, expected)


def compare_prepared(y, statistics, condition, expected):
    """Compare with the results of `prepare.reference`."""
    close(host(y), expected[0], 1e-6)
    noise, scale, presence, snr_db, floor = host(statistics)
    np.testing.assert_allclose([noise, scale, floor], expected[1][[0, 1, 4]], rtol=2e-5)
    np.testing.assert_allclose(presence, expected[1][2], atol=1e-4)
    np.testing.assert_allclose(10 ** (snr_db / 10), 10 ** (expected[1][3] / 10), rtol=1e-4, atol=1e-6)
    for frame, wanted in zip(host(condition).astype(np.float64), expected[2], strict=True):
        (means, deviations), (wanted_means, wanted_deviations) = np.split(frame, 2), np.split(wanted, 2)
        for width, *pair in zip(WIDTHS, means, wanted_means, strict=True):
            close(*pair, 1e-5 * max(width, 1))
        squares = [np.square(array / np.reshape(WIDTHS, (-1, 1))) for array in (deviations, wanted_deviations)]
        np.testing.assert_allclose(*squares, rtol=0, atol=4e-6)


def random_parameters(blocks, seed=0, width=16, inner=32, coarse_every=3):
    """Random parameters of a network, by their names; none is zero, although training starts some at zero."""
    coarse = [(blocks - 1 - k) % coarse_every == 0 for k in range(blocks)]
    layers = {"tails": (2, width), "conditioner.embed.0": (64, 2 + len(WIDTHS)), "conditioner.embed.2": (64, 64)}
    layers["conditioner.spread"] = blocks, 64
    layers["conditioner.modulation"] = 2 * (blocks * width + sum(coarse) * inner), 64
    for k in range(blocks):
        layers[f"correctors.{k}.inject"] = width, 4 + (0 if k else 2 * len(WIDTHS)), 3, 3
        layers[f"correctors.{k}.head"] = 2 if k == blocks - 1 else 1, width, 3, 3
        layers |= {f"correctors.{k}.stages.0.{name}": (width, width, 3, 3) for name in ("first", "second")}
        if coarse[k]:
            layers[f"correctors.{k}.stages.1.down"] = inner, width, 3, 3
            layers[f"correctors.{k}.stages.1.up"] = 4 * width, inner, 1, 1
            layers |= {f"correctors.{k}.stages.1.block.{name}": (inner, inner, 3, 3) for name in ("first", "second")}
    rng, parameters = np.random.default_rng(seed), {}
    for name, shape in layers.items():
        size = 0.3 if any(part in name for part in ("head", "up", "conditioner")) else 1.0
        weight = rng.standard_normal(shape) * size / np.sqrt(np.prod(shape[1:]))
        bias = (
            np.linspace(np.log(3.0), np.log(0.4), blocks) if "spread" in name else 0.1 * rng.standard_normal(shape[0])
        )
        parameters |= {f"{name}.weight": weight.astype(np.float32), f"{name}.bias": bias.astype(np.float32)}
    return parameters


def check_network(device, case):
    """Compare tile sizes, with all kernels; test_network_kernels.py and test_device_gpu.py compare with PyTorch."""
    calibration = case.calibration()
    rows = case.signals(calibration)
    signals = np.random.default_rng(case.seed).uniform(size=(case.frames, case.voxels)) @ calibration.basis
    rows += (signals * calibration.singular_values) @ calibration.projection.conj() / calibration.weights
    multiprocessors, images, refined = device.multiprocessors, [], []
    for count, device.multiprocessors in ((case.frames, 1), (1, 1000)):  # large tiles, small tiles
        weights = Weights.upload(random_parameters(2), device)
        sampler = PosteriorSampler(device, calibration, weights, count)
        chain = posterior_chain("heun", VE(), 2)
        images.append(sampler(rows[:count].astype(np.complex64), 0, 1, 3, chain)[0].copy())
        loop = PosteriorLoop(device, calibration, weights, count, evaluations=2)
        device.copy(rows[:count].astype(np.complex64), loop.signals)
        loop()
        refined.append(np.stack([host(loop.image)[0], host(loop.std)[0]]))
    device.multiprocessors = multiprocessors
    for found in (images, refined):
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(*found)


def check_update(device, case):
    """Check coefficients of every kind; arrays with zero coefficients must not be read or written."""
    rng, images = np.random.default_rng(case.seed + 5), case.frames * case.samples
    statistics = rng.uniform(0.5, 2.0, (len(prepare.STATISTICS), images)).astype(np.float32)
    noise = standard_normal(11, case.samples, 3, case.voxels)[(np.arange(images) + 2) % case.samples]
    for change in (Update(0.5, -2.0, 0.3, 0.7, 1.5, 0.25, -0.5, 3), Update(noise=2.0, draw=3), Update(denoised=1.0)):
        shape = images, case.voxels
        denoised, x, saved = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
        new = change.x * x + change.denoised * denoised + change.saved * saved
        new += change.noise * statistics[1][:, None] * noise
        saves = change.save_x or change.save_denoised or change.save_saved
        kept = change.save_x * x + change.save_denoised * denoised + change.save_saved * saved if saves else saved
        given = {"denoised": denoised, "x": x, "saved": saved}
        unread = {name: not (getattr(change, name) or getattr(change, f"save_{name}")) for name in given}
        buffers = [
            device.empty(shape, np.float32)
            if unread[name] and not (name == "saved" and not saves)
            else filled(device, one)
            for name, one in given.items()
        ]
        precision = device.empty((images,), np.float32)
        arrays = filled(device, statistics), *buffers, precision
        sampling.update(device, change, arrays, 0.25, 2 + case.samples, case.samples, 11)
        close(host(buffers[1]), new, 2e-6)
        close(host(buffers[2]), kept, 2e-6)
        assert (host(precision) == 0.25).all()


def main():
    """Run a few cases of each kernel."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--shim", type=Path, metavar="FOLDER", help="on the CPU, with sanitizers, built in FOLDER")
    folder = parser.parse_args().shim
    if folder:
        from shim import ShimDevice

        device = ShimDevice(folder, sanitized=True)
    else:
        import cupy

        from mpi_fast.kernels.cupy_device import CupyDevice

        cupy.cuda.set_allocator(None)  # without the pool, memory ends at the end of an array
        device = CupyDevice()
    for case in (Case(frames=2, samples=3, rank=37, rows=600), Case(5, 1, (7, 13), 91, 48), Case(1, 5, (28, 30), 9, 5)):
        check_reduce(device, case)
        check_prepare(device, case)
        check_update(device, case)
    for grid in ((7, 13), (5, 7, 6)):
        check_network(device, Case(2, 1, grid, 41, 48))
    print("all kernels agree with their references")


if __name__ == "__main__":
    sys.exit(main())
