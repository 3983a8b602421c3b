"""Deep kNN on scikit-learn's handwritten digits: 1,797 images of 8 x 8, ten classes.

Data: come with scikit-learn; a stratified fifth is the test part.
Command: python -m deepknn_jax.main
Time: measured: TODO-LEAD
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "digits"
    config.epochs = 40
    return config
