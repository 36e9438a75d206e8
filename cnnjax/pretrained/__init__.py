"""Trained weights of runs, of published networks and of files: to score, to distill and to transfer."""

from cnnjax.pretrained.file_networks import FileOptions
from cnnjax.pretrained.loading import load
from cnnjax.pretrained.network import LoadedNetwork, Restored
from cnnjax.pretrained.transfer import TransferPlan, apply_transfer, match_for_transfer

__all__ = [
    "FileOptions",
    "LoadedNetwork",
    "Restored",
    "TransferPlan",
    "apply_transfer",
    "load",
    "match_for_transfer",
]
