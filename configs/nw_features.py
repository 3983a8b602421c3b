"""Neighborhood Watch on feature vectors: LM-Mining with the MLP of Deep kNN, F-512-256-128.

The paper's own network for features, F-1024-128: --config.model.name=feed_forward
Data: FILE.npz as in configs/features.py, with splits [N] or [N, folds].
Command: python -m deepknn_jax.main --config=configs/nw_features.py --config.data.dir=FILE.npz
Another fold: --config.data.fold=2; the other methods: configs/nw_mnist.py has them.
Time: docs/results.md.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.neighborhood_watch()
    config.data.source = "npz"
    config.data.split = "published"
    config.model.name = "mlp"
    config.epochs = 30
    return config
