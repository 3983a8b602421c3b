"""Deep kNN on your own feature vectors: one .npz file, an MLP F-512-256-128.

The features are standardised by the training part's mean and deviation.
Data: FILE.npz with features [N, F], or [N, V, F] of V views of each (docs/views.md), and labels
    [N] (integers or strings), and, if you have them, names [N], splits [N] (train, validation,
    test), classes [C], which labels then index.
    The embeddings.npz that a run leaves is such a file, and features.npz of --mode=embed;
    a run on the latter answers for images, too (docs/predict.md).
Command: python -m deepknn_jax.main --config=configs/features.py --config.data.dir=FILE.npz
    --workdir=OUT
Splits in the file are used; another: --config.data.split=stratified
Time: seconds to minutes, see configs/breast_cancer.py.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "npz"
    config.model.name = "mlp"
    return config
