"""Neighborhood Watch on CIFAR-10: LM-Mining on InceptionResNetV2's features, k = 213.

Data: FILE.npz, the features that the first command of configs/cifar10.py writes.
Command: python -m deepknn_jax.main --config=configs/nw_cifar10.py --config.data.dir=FILE.npz
The other rows of the paper's table 1 (92.02 for this one; LM 91.79, MM 91.45, MM-HardMin 91.14,
softmax 87.04): configs/nw_mnist.py has their options.
Time: not run here.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.neighborhood_watch()
    config.data.source = "npz"
    config.data.split = "published"
    config.data.validation = 0.1  # of the 50,000: 5,000
    config.model.name = "feed_forward"
    config.loss.w_sd = 0.01
    config.evaluate.k_p = (1, 5, 213)
    return config
