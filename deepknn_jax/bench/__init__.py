"""The same work in XLA and in other libraries, side by side: `python -m deepknn_jax.bench`.

A command, which may import every room; the other libraries only where they are installed.
"""
