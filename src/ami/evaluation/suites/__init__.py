"""Frozen lists of benchmarks."""
