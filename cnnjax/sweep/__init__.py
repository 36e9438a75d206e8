"""Sweeps: search spaces, the search, the report."""
