"""Trained weights of runs, of published networks and of files: to score, to distill and to transfer."""

from cnnjax.pretrained.loading import LoadedNetwork, Restored, load
from cnnjax.pretrained.transfer import TransferPlan, apply_transfer, match_for_transfer

__all__ = ["LoadedNetwork", "Restored", "TransferPlan", "apply_transfer", "load", "match_for_transfer"]
