"""Measurements: `python -m benchmarks.<name>`. They print, and assert nothing."""
