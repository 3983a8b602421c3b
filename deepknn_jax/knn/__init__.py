"""Distances, the search for neighbours, and their vote: what all else stands on.

Also the door by which the public functions' arguments come in (intake.py). Imports errors only.
"""
