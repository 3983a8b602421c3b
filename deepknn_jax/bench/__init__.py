"""The same work in XLA and in other libraries, side by side: `python -m deepknn_jax.bench`."""
