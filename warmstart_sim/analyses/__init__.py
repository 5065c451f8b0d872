"""Analyses: tables made from a run's stored tables and weights. One function a file, found by the registry."""
