"""Frozen embeddings in other models (Neighborhood Watch, "Setting", second experiment)."""
