"""Benchmarks: one command each, against peers in the same run."""
