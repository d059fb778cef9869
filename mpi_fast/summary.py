"""Summary numbers over all images."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mpi_fast.description import UNIT
from mpi_fast.flags import Flag, names_of

if TYPE_CHECKING:
    from mpi_fast.reconstruction import Reconstruction


def counted(flags: Iterable[int]) -> str:
    """Number of frames with each flag, as a text."""
    flags = list(flags)
    counts = {str(flag.name).lower(): sum(bool(one & flag) for one in flags) for flag in Flag}
    return ", ".join(f"{name}: {count}" for name, count in counts.items() if count) or "none"


class Summary:
    """Collects a few numbers from a stream of reconstructions."""

    def __init__(self) -> None:
        self.frames, self.peak = 0, 0.0
        self._snr: list[float] = []
        self._milliseconds = 0.0
        self._misfit: list[Any] = []
        self._flags: list[int] = []

    def add(self, result: "Reconstruction") -> None:
        """Add a chunk."""
        self.frames += len(result)
        self.peak = max(self.peak, float(np.nanmax(result.image, initial=0.0)))
        if result.misfit is not None and result.flags is not None:
            self._misfit.append(result.misfit)
            self._flags.extend(result.flags.tolist())
        self._snr.extend(result.snr_db.tolist())
        self._milliseconds += result.elapsed_ms * len(result)

    def facts(self) -> dict[str, Any]:
        """Numbers for the JSON file."""
        found = np.asarray(self._snr)[np.isfinite(self._snr)]
        misfit = np.concatenate(self._misfit) if self._misfit else np.empty((0, 3))
        return {
            "frames": self.frames,
            "mean_snr_db": float(found.mean()) if found.size else None,
            "ms_per_frame": self._milliseconds / self.frames,
            "peak_concentration": self.peak,
            "snr_db": self._snr,
            "misfit": {name: misfit[:, part].tolist() for part, name in enumerate(("outside", "receiver", "image"))},
            "flags": [names_of(int(flags)) for flags in self._flags],
        }

    def shown(self) -> dict[str, str]:
        """Texts for the screen."""
        facts = self.facts()
        snr = facts["mean_snr_db"]
        return {
            "frames": f"{self.frames}",
            "mean SNR found, weighted rows": "no signal" if snr is None else f"{snr:.1f} dB",
            "time per frame": f"{facts['ms_per_frame']:.1f} ms",
            "peak concentration": f"{self.peak:.4g} {UNIT}",
            "flagged frames": counted(self._flags),
        }
