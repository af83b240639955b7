"""Benchmarks: what a training step costs in time and memory, alone and beside other libraries."""
