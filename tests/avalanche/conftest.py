"""Avalanche's own imports warn; ours are quiet, and come first."""

import warmstart_sim.avalanche  # noqa: F401
