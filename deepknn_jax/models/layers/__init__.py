"""Layers that several backbones are made of: convolution, pooling, BatchNorm."""
