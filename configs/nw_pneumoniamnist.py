"""Neighborhood Watch on PneumoniaMNIST: LM-Mining, k = 69, 4,708 / 624 images of 28 x 28.

Data: as in configs/pneumoniamnist.py.
Command: python -m deepknn_jax.main --config=configs/nw_pneumoniamnist.py --config.data.dir=FILE.npz
The other methods: configs/nw_mnist.py has them.
Time: docs/results.md.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.neighborhood_watch()
    config.data.source = "npz"
    config.data.split = "published"
    config.model.name = "mnist_cnn"
    config.epochs = 10
    return config
