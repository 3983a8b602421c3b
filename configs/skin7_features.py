"""Deep kNN on features of Skin-7: the MLP of the paper's table 3, and other methods by options.

Data: FILE.npz with features [N, F], labels, names, classes and splits. `python -m
    deepknn_jax.reproduce --table=3` makes one of EfficientNet-Lite0's features, whose splits have
    ten columns: the published folds 1 to 5, then five drawn by lesion. Or, of fold 1 alone,
    python -m deepknn_jax.main --mode=embed --config=configs/skin7.py --config.data.dir=DIR
    --config.model.name=efficientnet_lite0 --config.model.weights=efficientnet_lite0
Command: python -m deepknn_jax.main --config=configs/skin7_features.py --config.data.dir=FILE.npz
    --config.data.fold=2                                another fold
The other methods, each with the options that a search on validation chose:
    --config.loss.name=triplet --config.loss.margin=0.3 --config.model.normalize=True
    --config.optimizer.learning_rate=0.01 --config.batch.kind=balanced --config.batch.size=96
    --config.batch.classes=6 --config.batch.per_class=16                     MLP + triplets
    --config.loss.name=cross_entropy --config.optimizer.learning_rate=0.01
    --config.optimizer.weight_decay=0.005 --config.batch.size=96             MLP + CE
    --config.loss.name=nca --config.loss.temperature=100 --config.loss.log=True
    --config.model.name=linear --config.model.embedding_size=128 --config.model.dropout=0
    --config.optimizer.name=adam --config.optimizer.learning_rate=0.001      NCA
    --config.loss.name=lmnn --config.loss.margin=10
    --config.model.name=linear --config.model.embedding_size=128 --config.model.dropout=0
    --config.optimizer.name=adam --config.optimizer.learning_rate=0.001
    --config.batch.kind=balanced --config.batch.size=96 --config.batch.classes=6
    --config.batch.per_class=16                                              LMNN
    --config.loss.name=nca --config.loss.temperature=0.1 --config.loss.log=True
    --config.model.normalize=True --config.optimizer.learning_rate=0.01      a soft deep kNN, ours
Time: 12 s on two CPU cores without other work (an estimate from ten epochs).
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "npz"
    config.data.split = "published"
    config.data.fold = 1
    config.model.name = "mlp"
    config.epochs = 30
    config.optimizer.halve_every_epochs = 10
    # The best of 20 trials on a validation part (docs/results.md). Batches of 6 classes x 16, so
    # that df and vasc have positives, cost 7 points of mean class recall beside shuffled ones.
    config.loss.margin = 4.0
    config.model.dropout = 0.3
    config.optimizer.learning_rate = 0.05
    config.batch.size = 480
    config.evaluate.references = ("pixels",)
    return config
