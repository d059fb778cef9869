"""Compare how two files were acquired: what must agree, what can be converted exactly, what is doubtful.

    refused     gradient, drive strength and phase in any period in use, waveform, base frequency, dividers, bandwidth,
                and units or transfer functions whose conversion is unknown
    converted   units of the volt; transfer functions and induction factors, if stated by both files or by the file that
                is not corrected for them; a shift of all drive phases that a later start of the trajectory explains
    doubtful    offset fields (they shift the images), phases a few degrees off, gradients of zero, arbitrary units

Values that only one of the files states are not compared. The cycle is not compared either, because it follows from
clock and dividers, and files state it with few digits, or for several periods. Reading a file already compares its
cycle with its clock and dividers.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import MismatchError
from mpi_fast.mdf import Acquisition
from mpi_fast.mdf.acquisition import NEGLIGIBLE_DRIVE
from mpi_fast.period_fields import FIELD_TOLERANCE, PHASE_TOLERANCE

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
CLOCK_TOLERANCE = 1e-6  # relative
PHASE_DOUBT = 0.1  # rad, above which images suffer
TELLS_NOTHING = {"a.u.", "au", "arb. u.", "arb. units", "arbitrary", "arbitrary units", "unknown", "none", "n/a"}
CHAIN_TOLERANCE = 1e-3  # relative, up to which transfer functions are equal
VOLTS = {"V": 1.0, "kV": 1e3, "mV": 1e-3, "uV": 1e-6, "nV": 1e-9, "pV": 1e-12}


@dataclass(frozen=True)
class Agreement:
    """Conversion of measured signals to the signals that the scanner of the calibration would have measured.

    Attributes
    ----------
    factor : (C, K) complex128, or None
        Factor for the spectra; NaN where it is unknown.
    done : tuple of str
        Conversions, as texts for users.
    doubts : tuple of str
        Differences that may impair the images, as texts for users.
    """

    factor: Complex | None
    done: tuple[str, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Side:
    """One of the two files: its acquisition, and whether it is corrected for the transfer function."""

    acquisition: Acquisition
    corrected: bool


def compare(measured: Side, calibrated: Side, periods: range) -> Agreement:
    """Compare the values that both files state.

    Parameters
    ----------
    measured, calibrated : Side
        The two files, with equal numbers of channels and samples.
    periods : range
        The periods of the measurement's frames that are in use.

    Raises
    ------
    MismatchError
        For the first difference that cannot be converted; the message names both values.
    """
    m, c = measured.acquisition, calibrated.acquisition
    factors: list[Complex] = []
    done: list[str] = []
    doubts: list[str] = []
    _check_agreement("receiver bandwidth", " MHz", 1e-6, m.bandwidth, c.bandwidth, CLOCK_TOLERANCE)
    _check_agreement("base frequency", " MHz", 1e-6, m.base_frequency, c.base_frequency, CLOCK_TOLERANCE)
    _drive(m, c, periods)
    _gradient(m, c, periods, doubts)
    _phase(m, c, periods, factors, done, doubts)
    _offset(m, c, periods, doubts)
    _unit(m, c, factors, done, doubts)
    _check_receive_chain(measured, calibrated, factors, done)
    if np.isnan(c.base_frequency):
        doubts.append(
            "the calibration was saved by an earlier release, which did not keep gradient, phase, base frequency and "
            "transfer function: calibrate again to have them compared"
        )
    shape = m.num_channels, m.num_frequencies
    with np.errstate(invalid="ignore"):
        product = np.prod([np.broadcast_to(factor, shape) for factor in factors], axis=0) if factors else None
    return Agreement(product, tuple(done), tuple(doubts))


# -- numbers that must agree ----------------------------------------------------------------------------------------


def _check_agreement(
    called: str,
    unit: str,
    scale: float,
    found: Any,
    expected: Any,
    tolerance: float,
    where: str = "",
    negligible: float = 0.0,
) -> None:
    """Refuse numbers that differ; NaN means unknown, and agrees with any number."""
    a, b = np.atleast_1d(np.asarray(found, float)), np.atleast_1d(np.asarray(expected, float))
    if a.shape == b.shape and (np.isclose(a, b, rtol=tolerance, atol=negligible) | np.isnan(a) | np.isnan(b)).all():
        return
    raise MismatchError(f"{called} {_listed(a, scale)}{unit}{where}, but the calibration has {_listed(b, scale)}{unit}")


def _listed(values: Array, scale: float) -> str:
    return " x ".join(f"{scale * value + 0.0:.6g}" for value in values) or "none"  # + 0.0 avoids a minus before zero


def _in(periods: range, number: int) -> str:
    return "" if len(periods) == 1 else f" in period {periods[number]}"


def _in_use(values: NDArray[Any], periods: range) -> NDArray[Any]:
    """The periods in use of values (J, ...) that are stated once or for every period."""
    return values if len(values) == 1 else values[list(periods)]


# -- drive field ----------------------------------------------------------------------------------------------------


def _tones(m: Acquisition, c: Acquisition) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tones to compare in both, (T,) bool over flat (D, F): all; or the driven ones, if the dividers differ."""
    everything = [np.ones(a.divider.size, bool) for a in (m, c)]
    if np.array_equal(m.divider.reshape(-1), c.divider.reshape(-1)):
        return everything[0], everything[1]
    return m.driven.reshape(-1), c.driven.reshape(-1)


def _drive(m: Acquisition, c: Acquisition, periods: range) -> None:
    tones_m, tones_c = _tones(m, c)
    _check_agreement(
        "drive-field dividers", "", 1.0, m.divider.reshape(-1)[tones_m], c.divider.reshape(-1)[tones_c], 0.0
    )
    expected = np.abs(c.strength[0].reshape(-1)[tones_c])
    negligible = NEGLIGIBLE_DRIVE * float(np.nan_to_num(expected).max(initial=0.0))
    for number, strength in enumerate(_in_use(m.strength, periods)):
        found = np.abs(strength.reshape(-1)[tones_m])
        where = _in(periods, number)
        _check_agreement("drive-field strength", " mT", 1e3, found, expected, FIELD_TOLERANCE, where, negligible)
    if m.waveform is not None and c.waveform is not None:
        a = [_waveform(text) for text in m.waveform.reshape(-1)[tones_m]]
        b = [_waveform(text) for text in c.waveform.reshape(-1)[tones_c]]
        if a != b:
            raise MismatchError(f"waveform {' x '.join(a)}, but the calibration has {' x '.join(b)}")


def _waveform(text: str) -> str:
    plain = str(text).strip().lower()
    return "sine" if plain in ("sine", "sin", "sinus", "sinusoidal", "cosine", "cos") else plain


def _phase(
    m: Acquisition, c: Acquisition, periods: range, factors: list[Complex], done: list[str], doubts: list[str]
) -> None:
    """Find the delay of the trajectory's start that explains all phase differences, and compensate it."""
    tones_m, tones_c = _tones(m, c)
    amplitude = c.strength[0].reshape(-1)[tones_c]
    tones = np.flatnonzero(c.driven.reshape(-1)[tones_c])
    expected = np.where(amplitude < 0, np.pi, 0.0) + c.phase[0].reshape(-1)[tones_c]
    strengths, phases = _in_use(m.strength, periods), _in_use(m.phase, periods)
    found = np.stack(
        [
            np.where(strengths[min(j, len(strengths) - 1)] < 0, np.pi, 0.0).reshape(-1)[tones_m]
            + phases[min(j, len(phases) - 1)].reshape(-1)[tones_m]
            for j in range(max(len(strengths), len(phases)))
        ]
    )
    shift = _wrapped(found - expected)[:, tones]
    if not shift.size or np.isnan(shift).any():
        return
    uneven = np.abs(_wrapped(shift - shift[0])).max(axis=1)
    if uneven.max() > PHASE_TOLERANCE:
        other = int(np.argmax(uneven > PHASE_TOLERANCE))
        raise MismatchError(
            f"drive-field phase {_listed(found[0, tones], 1.0)} rad in period {periods[0]}, but "
            f"{_listed(found[other, tones], 1.0)} rad in period {periods[other]}: select periods that share one"
        )
    if np.abs(shift).max() <= PHASE_TOLERANCE:
        return
    both = f"drive-field phase {_listed(found[0, tones], 1.0)} rad, but the calibration has "
    both += f"{_listed(expected[tones], 1.0)} rad"
    frequencies = c.base_frequency / c.divider.reshape(-1)[tones_c][tones]
    delay, left = _delay(shift[0], frequencies * c.common_period)
    if left <= PHASE_TOLERANCE:
        factors.append(np.exp(-2j * np.pi * m.frequencies * delay * c.common_period)[None])
        done.append(f"{both}: the trajectory starts {1e6 * delay * c.common_period:.4g} us later, which was undone")
    elif np.abs(shift).max() <= PHASE_DOUBT:
        doubts.append(both)
    else:
        raise MismatchError(f"{both}, and no common delay explains the difference")


def _delay(shift: Array, turns: Array) -> tuple[float, float]:
    """Delay, as a fraction of the cycle, that explains the phase ``shift`` (rad) of each tone, and the remaining error.

    A tone has ``turns`` periods per cycle. The slowest tone allows as many delays as it has turns, and the other tones
    select one; among equal delays the shortest is taken.
    """
    if np.isnan(turns).any() or np.abs(turns - np.round(turns)).max() > 1e-3:
        return 0.0, np.inf
    turns = np.round(turns)
    slowest = int(turns.argmin())
    choices = (shift[slowest] / (2 * np.pi) + np.arange(turns[slowest])) / turns[slowest]
    choices = choices - np.round(choices)
    left = np.abs(_wrapped(2 * np.pi * choices[:, None] * turns - shift)).max(axis=1)
    best = int(np.lexsort((np.abs(choices), left > PHASE_TOLERANCE, np.round(left, 6)))[0])
    return float(choices[best]), float(left[best])


def _wrapped(angle: Array) -> Array:
    """Angles wrapped to -pi ... pi."""
    return np.asarray(np.angle(np.exp(1j * angle)))


# -- selection and offset fields --------------------------------------------------------------------------------------


def _gradient(m: Acquisition, c: Acquisition, periods: range, doubts: list[str]) -> None:
    if m.gradients is None or c.gradients is None:
        return
    expected = c.gradients.reshape(-1, 3, 3)[0]
    largest = np.abs(expected).max()
    for number, patches in enumerate(_in_use(m.gradients, periods)):
        for found in patches:
            if np.isnan(found).any() or np.isnan(expected).any():
                return
            if not found.any() or not largest:
                doubts.append(f"gradient {_matrix(found)}, and the calibration has {_matrix(expected)}")
                return
            if np.abs(found - expected).max() > FIELD_TOLERANCE * largest:
                raise MismatchError(
                    f"gradient {_matrix(found)}{_in(periods, number)}, but the calibration has {_matrix(expected)}"
                )


def _matrix(gradient: Array) -> str:
    diagonal = not (gradient - np.diag(np.diag(gradient))).any()
    return f"{_listed(np.diag(gradient) if diagonal else gradient.reshape(-1), 1.0)} T/m"


def _offset(m: Acquisition, c: Acquisition, periods: range, doubts: list[str]) -> None:
    if m.offset_field is None or c.offset_field is None:
        return
    expected = c.offset_field.reshape(-1, 3)[0]
    apart = _in_use(m.offset_field, periods).reshape(-1, 3) - expected
    allowed = FIELD_TOLERANCE * float(np.abs(c.strength).max(initial=0.0))
    moved = np.flatnonzero(np.abs(apart).max(axis=1) > allowed)
    if not moved.size:
        return
    found = apart[moved[0]] + expected
    text = f"offset field {_listed(found, 1e3)} mT, but the calibration has {_listed(expected, 1e3)} mT"
    alike = np.abs(apart - apart[0]).max() <= allowed
    if alike and c.gradient is not None and abs(np.linalg.det(c.gradient)) > 0:
        place = np.linalg.solve(c.gradient, -apart[0])
        text += f": the images lie {_listed(place, 1e3)} mm (x, y, z) from where they are drawn"
    doubts.append(text)


# -- receive chain ----------------------------------------------------------------------------------------------------


def _unit(m: Acquisition, c: Acquisition, factors: list[Complex], done: list[str], doubts: list[str]) -> None:
    a, b = _plain_unit(m.unit), _plain_unit(c.unit)
    if not a or not b or a == b:
        return
    both = f"unit {a}, but the calibration has {b}"
    if a.lower() in TELLS_NOTHING or b.lower() in TELLS_NOTHING:
        doubts.append(f"{both}: they may differ by a factor, and so may the images")
        return
    if a not in VOLTS or b not in VOLTS:
        raise MismatchError(both)
    factors.append(np.full((1, 1), VOLTS[a] / VOLTS[b], np.complex128))
    done.append(f"{both}: converted")


def _plain_unit(unit: str | None) -> str:
    """The unit in ASCII, with V for volt."""
    plain = (unit or "").strip(" \0").replace("\u00b5", "u").replace("\u03bc", "u")
    return "V" if plain.lower() in ("v", "volt", "volts") else plain


def _check_receive_chain(measured: Side, calibrated: Side, factors: list[Complex], done: list[str]) -> None:
    """Compare transfer functions and induction factors, which multiply signals unless these are corrected for them."""
    m, c = measured.acquisition, calibrated.acquisition
    if measured.corrected and calibrated.corrected:
        return
    if measured.corrected != calibrated.corrected:
        yes_no = ("no", "yes")
        both = (
            f"transfer function corrected {yes_no[measured.corrected]}, but the calibration has "
            f"{yes_no[calibrated.corrected]}"
        )
        raw = c if measured.corrected else m
        if _known(raw.transfer_function) is None:
            raise MismatchError(f"{both}, and the one that is not does not state it")
        chain = np.asarray(raw.transfer_function, np.complex128)
        if raw.induction_factor is not None:
            chain = chain * raw.induction_factor[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            factors.append(chain if measured.corrected else 1 / chain)
        done.append(f"{both}: converted by the one that is stated")
        return
    for called, a, b in (
        ("transfer function", _known(m.transfer_function), _known(c.transfer_function)),
        ("induction factor", _known(m.induction_factor), _known(c.induction_factor)),
    ):
        if a is None or b is None:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(a == b, 1.0, b / a).astype(np.complex128)
        known = np.isfinite(ratio)
        if np.abs(ratio[known] - 1).max(initial=0.0) > CHAIN_TOLERANCE or not known.all():
            factors.append(ratio if ratio.ndim == 2 else ratio[:, None])
            where = np.unravel_index(np.nanargmax(np.where(known, np.abs(ratio - 1), -1)), ratio.shape)
            done.append(
                f"{called} {a[where]:.4g}, but the calibration has {b[where]:.4g}, say: converted by their ratio"
            )


def _known(values: NDArray[Any] | None) -> NDArray[Any] | None:
    """The values, or None if they are all zero or NaN."""
    return values if values is not None and (np.nan_to_num(values) != 0).any() else None
