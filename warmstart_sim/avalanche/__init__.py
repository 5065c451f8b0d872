"""Adapters for Avalanche 0.6: strategies as plugins, scenarios as benchmarks, benchmarks as scenarios.

Nothing else in the package imports Avalanche, which takes seconds.
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Avalanche's modules warn of what they use themselves
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
