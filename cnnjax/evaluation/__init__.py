"""Evaluation: scores, protocols, classification metrics, predictions."""
