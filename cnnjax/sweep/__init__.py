"""Sweeps: the space of settings, the search, the report."""
