"""Deep kNN on MNIST: 70,000 handwritten digits of 28 x 28, ten classes.

Data: mnist.npz as keras.datasets.mnist keeps it (CC BY-SA 3.0): the keys
    x_train, y_train, x_test, y_test. Any other .npz in these keys will do.
Command: python -m deepknn_jax.main --config=configs/mnist.py --config.data.dir=FILE.npz
Time: 12 min on two busy CPU cores; one seed, K_p = 5: Acc 99.1, beside kNN on the pixels 96.9.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "npz"
    config.data.split = "published"
    config.epochs = 5
    config.optimizer.halve_every_epochs = 2
    return config
