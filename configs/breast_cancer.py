"""Deep kNN on feature vectors: Wisconsin breast cancer, 569 tumours x 30 features, two classes.

The path for those who have features, not images: an MLP 30-512-256-128. The features are
standardised by the training part's mean and deviation.
Data: come with scikit-learn (UCI, Breast Cancer Wisconsin, Diagnostic); a stratified fifth is the
    test part.
Command: python -m deepknn_jax.main --config=configs/breast_cancer.py
Time: measured: TODO-LEAD
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "breast_cancer"
    config.model.name = "mlp"
    return config
