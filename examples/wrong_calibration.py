"""A wrong calibration, detected by the metadata of the files, or by the signals alone.

A scanner is changed after its calibration. Every method still makes images of the new signals, even plausible ones. The
change is visible in the part of the signals that no image explains. Background frames in the measurement give the
expected noise.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from mpi_fast import Calibration, MPIFastError, Reconstructor, plots
from mpi_fast.experiment import Receiver, measure_matrix, save_frames, save_matrix
from mpi_fast.flags import names_of
from mpi_fast.mdf import MeasurementFile
from mpi_fast.pairing import MeasuredRows
from mpi_fast.phantoms import generate
from mpi_fast.simulation import ReceiveChain, Scanner

rng = np.random.default_rng(0)
scanner = Scanner(sub_voxels=2)
filters = ReceiveChain(resonance=tuple(1.4 * frequency for frequency in scanner.receive.resonance))
scanners = {
    "as calibrated": scanner,
    "resonances 40 % higher": replace(scanner, receive=filters),  # not visible in the files
    "gradient 30 % stronger": replace(scanner, gradient=(-1.3, -1.3)),  # stated in the files
}
matrices = {title: measure_matrix(one, 20.0, rng) for title, one in scanners.items()}
save_matrix("system-matrix.mdf", matrices["as calibrated"])
calibration = Calibration.from_mdf("system-matrix.mdf")
phantoms = generate("tumours", 12, scanner.grid, rng)

shown = {"truth": phantoms[0]}
for title, matrix in matrices.items():
    receiver = Receiver(matrix, calibration.selection, 30.0, rng, steady=True)
    save_frames("measurement.mdf", receiver, phantoms, background=16)
    try:
        with MeasurementFile("measurement.mdf") as file:
            [result] = Reconstructor(calibration, threads=1).stream(MeasuredRows(file, calibration))
    except MPIFastError as error:
        print(f"{title}: refused: {error}")
        continue
    foreign = sum("foreign" in names_of(int(flags)) for flags in result.flags)
    outside, receive, image = np.median(result.misfit, axis=0)
    print(f"{title}: {foreign} of {len(result)} frames are foreign; about 1 if all is right:")
    print(f"    noise outside {outside:.1f}, receive chain {receive:.1f}, image {image:.1f}")
    shown[title] = result.image[0]

figure = plots.reconstruction_figure(np.stack(list(shown.values())), None, calibration.field_of_view, titles=[*shown])
plots.save(figure, Path("wrong_calibration.png"))
