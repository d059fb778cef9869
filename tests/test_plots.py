import sys

import numpy as np
import pytest

from mpi_fast import plots
from mpi_fast.errors import InputError, MPIFastError

SIZE = 0.038, 0.038


def images(frames=2, shape=(5, 7)):
    return np.random.default_rng(0).random((frames, *shape), dtype=np.float32)


def comparison():
    columns = [plots.Column(f"frame {index}", *images(4)) for index in range(2)]
    return plots.comparison_figure(columns, SIZE, title="a title")


def texts(figure):
    labels = {text for cell in figure.axes for text in (cell.get_xlabel(), cell.get_ylabel()) if text}
    return labels | {text.get_text() for text in figure.texts}


@pytest.mark.parametrize("suffix", plots.FORMATS)
def test_figures_are_written_in_every_format(tmp_path, suffix):
    plots.save(plots.reconstruction_figure(images(), images(), SIZE), tmp_path / f"figure{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"figure{suffix}"]


def test_a_reconstruction_has_titles_scales_and_units():
    figure = plots.reconstruction_figure(images(), images(), SIZE, titles=["frame 3", "frame 4"], axes="zx")
    assert {"frame 3", "frame 4", "x / mm", "z / mm", "concentration", "std\n(of the delta sample)"} <= texts(figure)
    assert len(figure.axes) == 2 * 2 + 2
    assert figure.axes[0].get_images()[0].get_extent() == pytest.approx((-19, 19, -19, 19))


def test_one_colour_scale_for_all_frames_of_a_row():
    values = images() * np.float32([[[1.0]], [[5.0]]])
    figure = plots.reconstruction_figure(values, None, SIZE)
    limits = {cell.get_images()[0].get_clim() for cell in figure.axes[:2]}
    assert len(limits) == 1
    assert limits.pop() == pytest.approx((0.0, values.max()))


def test_the_comparison_has_a_row_for_each_image():
    figure = comparison()
    names = {text.split("\n")[0] for text in texts(figure)}
    assert {"truth", "ART", "mpi-fast", "error", "uncertainty", "frame 0", "frame 1"} <= names


def test_empty_images_can_be_drawn(tmp_path):
    plots.save(plots.reconstruction_figure(0 * images(), 0 * images(), SIZE), tmp_path / "empty.png")


def test_nothing_global_is_touched(tmp_path):
    plots.save(comparison(), tmp_path / "figure.png")
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MPIFastError, match=r"pip install 'mpi-fast\[plots\]'"):
        plots.require(tmp_path / "figure.png")


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(InputError, match="must end in one of"):
        plots.require(tmp_path / "figure.bmp")


def test_a_volume_is_seen_along_all_axes_in_its_true_proportions():
    volume = np.zeros((1, 3, 4, 5), np.float32)
    volume[0, 0, 1, 4] = 2.0
    figure = plots.reconstruction_figure(volume, None, (30e-3, 20e-3, 50e-3), titles=["frame 7"])
    panels = [cell.get_images()[0] for cell in figure.axes if cell.get_images()]
    assert {"frame 7", "x / mm", "y / mm", "z / mm"} <= texts(figure)
    shapes = [np.asarray(panel.get_array()).shape for panel in panels]
    assert {tuple(shape) for shape in shapes} == {(3, 5), (3, 4), (4, 5)}
    assert len(panels) == 6  # three maximum projections, three central slices
    shown = [float(np.asarray(panel.get_array()).max()) for panel in panels]
    assert sorted(shown) == [0, 0, 0, 2, 2, 2]  # the central slices miss the voxel
    for panel in panels:
        left, right, bottom, top = panel.get_extent()
        rows, columns = np.asarray(panel.get_array()).shape
        size = {3: 30.0, 4: 20.0, 5: 50.0}
        assert (right - left, top - bottom) == pytest.approx((size[columns], size[rows]))
