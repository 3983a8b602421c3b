"""Deep kNN on features of Skin-7: the MLP of the paper's table 3, and the other methods there.

Data: FILE.npz with features [N, F], labels, names, classes and splits. `python -m
    deepknn_jax.reproduce --table=3` makes one of EfficientNet-Lite0's features, whose splits have
    ten columns: the published folds 1 to 5, then five drawn by lesion. Or, of fold 1 alone,
    python -m deepknn_jax.main --mode=embed --config=configs/skin7.py --config.data.dir=DIR
    --config.model.name=efficientnet_lite0 --config.model.weights=efficientnet_lite0
Command: python -m deepknn_jax.main --config=configs/skin7_features.py --config.data.dir=FILE.npz
    --config.data.fold=2                                another fold
The other methods of table 3:
    --config.loss.name=triplet                          MLP + triplets
    --config.loss.name=cross_entropy --config.batch.kind=shuffled             MLP + CE
    --config.loss.name=nca --config.model.name=linear --config.optimizer.name=adam
    --config.model.embedding_size=128 --config.loss.temperature=10            NCA
    --config.loss.name=lmnn --config.model.name=linear --config.optimizer.name=adam
    --config.model.embedding_size=128 --config.loss.margin=10                 LMNN
    --config.loss.name=nca --config.model.normalize=True
    --config.loss.temperature=0.1                       a soft deep kNN, ours
    deepknn_jax/reproduce/chosen.json has what a search on validation chose for each.
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
    # Drawn from the whole set, a batch has one df or vasc, so no positive for it.
    config.batch.kind = "balanced"
    config.batch.size = 96
    config.batch.classes = 6
    config.batch.per_class = 16
    config.evaluate.references = ("pixels",)
    return config
