"""Embeddings judged: figures, evidence and pictures."""
