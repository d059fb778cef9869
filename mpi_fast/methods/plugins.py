"""Methods of other packages: each is an entry point of the group ``mpi_fast.methods`` whose object is an `Entry`.

The ``pyproject.toml`` of such a package, with ``LANDWEBER = Entry("Landweber", ...)`` in its module, contains::

    [project.entry-points."mpi_fast.methods"]
    landweber = "their_package:LANDWEBER"

Names are read once per process, at their first use. A package is imported when its method is requested.
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from mpi_fast.errors import InputError
from mpi_fast.methods.entry import Entry

GROUP = "mpi_fast.methods"


@cache
def registered() -> dict[str, tuple[EntryPoint, ...]]:
    """The entry points of every name; two packages may have chosen the same name."""
    found = entry_points(group=GROUP)
    return {name: tuple(found.select(name=name)) for name in sorted(found.names)}


def package(point: EntryPoint) -> str:
    """The name of the package of an entry point."""
    return (point.dist and point.dist.name) or point.module


def load(name: str) -> Entry:
    """The method that a package registers under this name.

    Raises
    ------
    InputError
        If the package cannot be imported or has no such object, if the object is not an `Entry`, or if two packages
        have registered the name.
    """
    point, *others = registered()[name]
    if others:
        packages = ", ".join(package(one) for one in (point, *others))
        raise InputError(
            f"method '{name}': registered by more than one package ({packages}); expected one of them alone"
        )
    origin = f"method '{name}' of the package {package(point)}: '{point.value}'"
    try:
        entry = point.load()
    except Exception as error:  # modules of other packages may raise anything when they are imported
        raise InputError(f"{origin} cannot be loaded ({type(error).__name__}: {error})") from error
    if not isinstance(entry, Entry):
        raise InputError(f"{origin} is of type {type(entry).__name__}, expected mpi_fast.methods.Entry")
    return entry
