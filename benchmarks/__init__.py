"""Measuring code; its results lie in `benchmarks/results/` of the repository."""
