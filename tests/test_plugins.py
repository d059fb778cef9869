"""Methods of other packages, registered by entry points, are found, tuned and shown by name, or refused."""

import importlib
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from mpi_fast import comparison
from mpi_fast.cli import app
from mpi_fast.comparison import Setup, compare
from mpi_fast.errors import InputError
from mpi_fast.methods import REGISTRY, create, get, plugins

MODULE = """
import numpy as np

from mpi_fast.methods import Entry
from mpi_fast.methods.base import ReducedMethod
from mpi_fast.methods.tuning import Axis


class Landweber(ReducedMethod):
    def __init__(self, calibration, iterations=20):
        super().__init__(calibration)
        self.iterations = int(iterations)

    def solve(self, likelihood):
        forward = likelihood.basis * likelihood.singular_values
        images = np.zeros((len(likelihood.y), len(forward)))
        for _ in range(self.iterations):
            residual = likelihood.y - images @ forward
            images = np.maximum(images + residual @ forward.T / likelihood.singular_values[0] ** 2, 0)
        return images


LANDWEBER = Entry("Landweber's", Landweber, {"iterations": Axis((3, 30), low=1, high=100, whole=True)})
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package with entry points on the path, as an installer does."""

    def installed(package, module, **points):
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[mpi_fast.methods]\n{lines}\n")
        (tmp_path / f"{package}.py").write_text(module)
        importlib.invalidate_caches()
        plugins.registered.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield installed
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    plugins.registered.cache_clear()
    comparison._built.cache_clear()


@pytest.fixture
def landweber(install):
    install("their_package", MODULE, landweber="their_package:LANDWEBER")


def test_a_registered_method_is_built_by_its_name(landweber, calibration, true_rows):
    assert "their_package" not in sys.modules
    method = create("landweber", calibration, iterations=5)
    assert method.iterations == 5
    signals = np.ones((2, calibration.num_voxels), "f4") @ true_rows.T
    assert method(signals).image.shape == (2, *calibration.grid)


def test_it_is_tuned_over_its_parameters_in_other_processes_too(landweber):
    setup = Setup(phantoms=7)
    here = compare(setup, ["landweber"], [15.0])["landweber", 15.0]
    assert list(here.tuned.curves) == ["iterations"]
    assert here.tuned.interior == {"iterations": True}
    there = compare(setup, ["landweber"], [15.0], workers=2)["landweber", 15.0]
    assert there.tuned == here.tuned
    np.testing.assert_array_equal(there.image, here.image)


def test_the_command_shows_it_beside_the_others(landweber, tmp_path):
    figure = tmp_path / "figure.png"
    options = "--phantoms", "7", "--workers", "1", "-o", str(figure)
    result = CliRunner().invoke(app, ["compare", "--methods", "landweber tikhonov", "--snr", "15", *options])
    assert result.exit_code == 0, result.output
    assert "Landweber's" in result.stdout
    assert figure.stat().st_size > 10_000


def test_an_unknown_name_is_answered_with_theirs(landweber):
    result = CliRunner().invoke(app, ["compare", "--methods", "magic", "--phantoms", "7"])
    assert result.exit_code == 2
    assert "art, " in result.stderr
    assert ", landweber" in result.stderr


@pytest.mark.parametrize(
    ("module", "name", "value", "message"),
    [
        ("import no_such_module", "theirs", "broken:METHOD", "ModuleNotFoundError: .*no_such_module"),
        ("raise RuntimeError('no licence')", "theirs", "broken:METHOD", "RuntimeError: no licence"),
        ("", "theirs", "broken:METHOD", "AttributeError"),
        ("METHOD = 3", "theirs", "broken:METHOD", "of type int, expected mpi_fast.methods.Entry"),
        ("METHOD = 3", "art", "broken:METHOD", "is taken"),
    ],
)
def test_a_broken_one_is_one_error_when_it_is_asked_for(install, module, name, value, message):
    install("broken", module, **{name: value})
    with pytest.raises(InputError, match=f"method '{name}'.* the package broken.*{message}"):
        get(name)
    assert get("tikhonov") is REGISTRY["tikhonov"]
    result = CliRunner().invoke(app, ["compare", "--methods", f"tikhonov {name}", "--phantoms", "7"])
    assert result.exit_code == 2
    assert "broken" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_name_of_two_packages_is_refused(install):
    install("their_package", MODULE, landweber="their_package:LANDWEBER")
    install("another", MODULE, landweber="another:LANDWEBER")
    with pytest.raises(InputError, match=r"more than one package \((another, their_package|their_package, another)\)"):
        get("landweber")
