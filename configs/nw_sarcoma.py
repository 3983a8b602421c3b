"""Neighborhood Watch on MRI of sarcoma: LM-Mining, k = 15, batches of 20, random flips.

The paper's 15 is the root of all 200 of cohort 1, of which 180 train.
Data: as in configs/sarcoma.py.
Command: python -m deepknn_jax.main --config=configs/nw_sarcoma.py --config.data.dir=DIR
The other rows of the paper's table 1 (69.44 for this one; LM 72.22, MM 58.33, MM-HardMin 55.56,
softmax 63.89): configs/nw_mnist.py has their options.
Time: not run here.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.neighborhood_watch()
    config.data.source = "sarcoma"
    config.data.split = "published"
    config.data.validation = 0.1
    config.data.size = 64
    config.augment.flip = True
    config.model.name = "sarcoma_cnn"
    config.loss.neighborhood = 15
    config.loss.w_sd = 0.0
    config.batch.size = 20
    config.evaluate.k_p = (1, 5, 15)
    return config
