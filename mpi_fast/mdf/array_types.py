"""Type names for the arrays and tuples of this package."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
TextArray: TypeAlias = NDArray[np.str_]
ComplexArray: TypeAlias = NDArray[np.complexfloating[Any, Any]]

# Values along x, y and z.
Triple: TypeAlias = tuple[float, float, float]
# Axis and 0-based index, such as ("z", 9).
Plane: TypeAlias = tuple[str, int]
