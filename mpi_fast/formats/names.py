"""Names of files that lie beside each other."""

from pathlib import Path


def with_std(path: Path, suffix: str) -> Path:
    """Where the uncertainty goes of formats that hold one array: ``x.nii.gz`` -> ``x.std.nii.gz``."""
    return path.with_name(f"{path.name[: -len(suffix)]}.std{path.name[-len(suffix) :]}")
