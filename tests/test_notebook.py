"""Displays of calibrations and reconstructions in notebooks."""

import base64
import io
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mpi_fast.notebook import GAP, SHOWN, SIZE
from mpi_fast.reconstruction import Reconstruction


def reconstruction(frames=3, grid=(5, 7)):
    image = np.zeros((frames, *grid), np.float32)
    image[:, ..., 0, 0] = np.arange(1, frames + 1).reshape(-1, *[1] * (len(grid) - 2))
    misfit, flags = np.ones((frames, 3), np.float32), np.zeros(frames, np.uint8)
    flags[-1:] = 4
    values = np.full(frames, 21.5, np.float32)
    return Reconstruction(image, 0.5 * image, values, values, 1.25, misfit, flags)


def picture(page):
    (data,) = re.findall(r"src='data:image/png;base64,([^']+)'", page)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def table(page):
    return dict(re.findall(r"<th[^>]*>([^<]+)</th><td[^>]*>([^<]+)</td>", page))


def test_a_reconstruction_shows_numbers_and_its_frames():
    page = reconstruction()._repr_html_()
    facts = table(page)
    assert facts["frames"] == "3"
    assert facts["mean SNR found, weighted rows"] == "21.5 dB"
    assert facts["peak concentration"] == "3 of the delta sample"
    assert facts["flagged frames"] == "empty: 1"
    assert "the frames, 0 to 3, above their standard deviation, 0 to 1.5" in page
    shown = picture(page)
    times = -(-SIZE // 7)
    assert shown.shape == (2 * (5 * times + GAP), 3 * (7 * times + GAP), 3)
    lowest = 5 * times - 1  # the first row is at the bottom
    first, last = shown[lowest, 0].sum(), shown[lowest, 2 * (7 * times + GAP)].sum()
    assert first < last  # one colour scale
    assert last > 600
    assert shown[0, 0].sum() < 50


def test_many_frames_volumes_and_none():
    page = reconstruction(20, (3, 5, 7))._repr_html_()
    assert f"the first {SHOWN} of 20 frames, 0 to 8" in page
    assert "the maxima along the first axis" in page
    assert picture(page).shape[1] == SHOWN * (7 * -(-SIZE // 7) + GAP)
    assert "no frames" in reconstruction(0)._repr_html_()


def test_frames_of_nan_are_grey():
    result = reconstruction(1)
    shown = picture(replace(result, image=result.image * np.nan, std=result.std * np.nan)._repr_html_())
    assert shown[0, 0].tolist() == [204, 204, 204]


def test_a_calibration_shows_what_it_selected_and_what_it_sees(calibration):
    page = replace(calibration, facts={**calibration.facts, "source": "<b>.mdf"})._repr_html_()
    facts = table(page)
    assert facts["grid"] == "19 x 19 voxels, 38 x 38 mm"
    assert facts["rank R"] == str(calibration.rank)
    assert "Calibration of &lt;b&gt;.mdf" in page  # texts of files are texts
    strength = np.linalg.norm(calibration.basis * calibration.singular_values, axis=1)
    assert f"0 to {strength.max():.3g}" in page
    shown = picture(page)
    assert shown.shape[0] == 19 * 6 + GAP
    brightness = shown[::-1][GAP + 3 :: 6, 3::6][:19, :19].sum(axis=2)
    assert np.corrcoef(brightness.ravel(), strength)[0, 1] > 0.9


@pytest.mark.parametrize("module", ["matplotlib", "PIL"])
def test_without_matplotlib_there_is_a_table(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    page = reconstruction()._repr_html_()
    assert "pip install 'mpi-fast[plots]' to see a picture here" in page
    assert table(page)["frames"] == "3"
