"""Embeddings judged: the kNN's metrics, the evidence for each prediction, and pictures.

Imports engine and the rooms below it.
"""
