"""Runs and weights on the Hugging Face Hub: the commands `push` and `pull`. No other command sends or fetches them.

A repository holds the files of one run or of one weight file, a card (README.md), and the list of the files with their
digests (cnnjax.json), against which `pull` checks all that it fetches.
"""
