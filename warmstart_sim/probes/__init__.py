"""Probes: what is measured on a model while it trains. One function a file, found by the registry."""
