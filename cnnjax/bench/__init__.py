"""How fast the networks are, where the time goes, how PyTorch does the same, and what was kept of earlier times."""
