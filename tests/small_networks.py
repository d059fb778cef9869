"""Small configurations of DERnet and DEQ-MPI, for one small grid."""

from mpi_fast.training.deq_network import DeqConfig
from mpi_fast.training.dernet_network import DernetConfig

GRID = (6, 7)
CONFIGS = {
    "dernet": DernetConfig(filters=3, hidden=8, width=16, inner=16, blocks=1),
    "deq": DeqConfig(features=8, growth=8, blocks=2, layers=2),
}
