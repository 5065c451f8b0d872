"""Adapters for Avalanche 0.6: our strategies as plugins, and conversion between our scenarios and its benchmarks.

No other module of the package imports Avalanche, because the import takes seconds.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Avalanche's imports emit deprecation warnings
    import avalanche.benchmarks
    import avalanche.training.supervised  # noqa: F401

from warmstart_sim.avalanche.benchmarks import from_benchmark, to_benchmark
from warmstart_sim.avalanche.convergence import ConvergencePlugin
from warmstart_sim.avalanche.metrics import TrainingCSVLogger, training_metrics
from warmstart_sim.avalanche.start import StrategyPlugin

__all__ = [
    "ConvergencePlugin",
    "StrategyPlugin",
    "TrainingCSVLogger",
    "from_benchmark",
    "to_benchmark",
    "training_metrics",
]
