"""Neighborhood Watch on EPID's gamma images: LM-Mining, k = 17, batches of 30.

Data: as in configs/epid.py.
Command: python -m deepknn_jax.main --config=configs/nw_epid.py --config.data.dir=DIR
The other rows of the paper's table 1 (68.24 for this one; LM 65.10, MM 68.24, MM-HardMin 41.57,
softmax 62.75): configs/nw_mnist.py has their options.
Time: not run here.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.neighborhood_watch()
    config.data.source = "csv_images"
    config.data.csv = "epid.csv"
    config.data.split = "published"
    config.data.split_column = "split"
    config.data.group_column = "beam"
    config.data.validation = 30 / 303
    config.data.size = 256
    config.data.channels = 1
    config.data.value_range = (0.0, 2.0)
    config.model.name = "epid_cnn"
    config.loss.w_sd = 0.0
    config.batch.size = 30
    config.evaluate.k_p = (1, 5, 17)
    return config
