"""Layers that several backbones are made of."""
