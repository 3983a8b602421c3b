"""Neighborhood Watch on MNIST: LM-Mining, k = 233, 54,000 / 6,000 / 10,000 digits.

Data: as in configs/mnist.py.
Command: python -m deepknn_jax.main --config=configs/nw_mnist.py --config.data.dir=FILE.npz
The other rows of the paper's table 1 (99.24 for this one; LM 99.30, MM 98.63, MM-HardMin 81.72,
softmax 98.64):
    --config.loss.mine=False                                     LM
    --config.loss.name=max_margin --config.loss.margin=1e6       MM
    --config.loss.name=max_margin_hard --config.loss.margin=1e6  MM-HardMin, at 3 to 4 times the
        batch on par, says the paper: --config.batch.size=512
    --config.loss.name=cross_entropy                             softmax, kNN on its features
Other weights of the loss: --config.loss.w_sd=0.01, ...; the hinge as the sum that the paper prints:
    --config.loss.reduction=sum
Memory: 55 MB of images, 100 MB for the neighbourhoods.
Time: docs/results.md.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.neighborhood_watch()
    config.data.source = "mnist"
    config.data.split = "published"
    config.data.validation = 0.1
    config.model.name = "mnist_cnn"
    config.evaluate.k_p = (1, 5, 233)
    config.epochs = 60
    config.stop_tolerance = 0.01
    return config
