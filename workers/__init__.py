"""MECHANISM: build and time candidates in isolated processes, on this machine or on a Ray cluster.

Nothing here imports TVM or Ray until a worker starts.
"""

from tunewright.workers.config import WorkerConfig
from tunewright.workers.local import LocalMeasurer, MeasurerStats
from tunewright.workers.peak import measure_peak
from tunewright.workers.pool import Pool
from tunewright.workers.process_space import ProcessSpace, ReplayFailure, design_spaces, replay_all
from tunewright.workers.ray_cluster import RayMeasurer
from tunewright.workers.simulated import Failing, Noisy, SimulatedMeasurer

__all__ = [
    "Failing",
    "LocalMeasurer",
    "MeasurerStats",
    "Noisy",
    "Pool",
    "ProcessSpace",
    "RayMeasurer",
    "ReplayFailure",
    "SimulatedMeasurer",
    "WorkerConfig",
    "design_spaces",
    "measure_peak",
    "replay_all",
]
