"""A kNN on your own feature vectors: one .npz file, an MLP F-512-256-128 trained for the kNN.

The features are standardised by the training part's mean and deviation.
Data: FILE.npz with features [N, F], or [N, V, F] of V views of each (docs/views.md), and labels
    [N] (integers or strings), and, if you have them, names [N], splits [N] (train, validation,
    test), classes [C], which labels then index.
    The embeddings.npz that a run leaves is such a file, and features.npz of --mode=embed;
    a run on the latter answers for images, too (docs/predict.md).
Command: python -m deepknn_jax.main --config=configs/features.py --config.data.dir=FILE.npz
    --workdir=OUT
Splits in the file are used; another: --config.data.split=stratified
The loss is the soft form of deep kNN in which all neighbours of the batch count, NCA's logarithm,
    on embeddings of length 1, small classes' anchors weighted. It was chosen on small sets beside
    the hinge, cross entropy, an SVC and logistic regression: docs/results.md, "Few examples".
    Batches are an eighth of the training part, 96 to 480: of thousands of examples larger ones are
    better ("Thousands of examples" there).
To be trained on later with more epochs: --config.optimizer.schedule=halving
The hinge of the deep kNN paper: --config.loss.name=deep_knn --config.loss.class_weight_power=0
    --config.model.normalize=False --config.model.dropout=0 --config.optimizer.weight_decay=0
    --config.optimizer.learning_rate=0.01 --config.optimizer.schedule=halving
    --config.optimizer.nesterov=False --config.batch.size=96
Frozen features, no training: --config.epochs=0 --config.model.name=linear
    --config.model.dropout=0 --config.model.normalize=False
Time: seconds to minutes, see configs/breast_cancer.py.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "npz"
    config.model.name = "mlp"
    config.model.normalize = True
    config.model.dropout = 0.5
    config.loss.name = "nca"
    config.loss.log = True
    config.loss.temperature = 0.05
    config.loss.class_weight_power = 0.25
    config.optimizer.schedule = "cosine"
    config.optimizer.nesterov = True
    config.optimizer.learning_rate = 0.03
    config.optimizer.weight_decay = 1e-2
    config.batch.size = 0
    return config
