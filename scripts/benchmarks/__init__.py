"""Benchmarks that print tables; run them through `scripts/bench`."""
