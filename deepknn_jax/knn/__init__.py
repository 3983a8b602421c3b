"""Distances, the search for neighbours, and their vote: what all else stands on.

Imports no other room.
"""
