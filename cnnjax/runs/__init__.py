"""Runs: their folders, checkpoints, signals, executors and supervision."""
