"""Benchmarks: speed, memory, profiles by layer, comparisons with PyTorch and with a saved baseline."""
