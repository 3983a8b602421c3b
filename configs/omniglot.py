"""Deep kNN on many small classes: handwritten characters of Omniglot, 15 / 5 images a class.

136 characters of 20 images each in the small background set: as many small classes as in SD-198.
Data: FILE.npz in Keras's keys, which `python -m deepknn_jax.reproduce --table=2` makes of
    images_background_small1.zip (Lake et al., Science 2015; github.com/brendenlake/omniglot, MIT).
    Its published split, the last five drawers of each alphabet test: --config.data.split=published
    --config.data.test_share=0.2, which is the default: a published split draws nothing.
Command: python -m deepknn_jax.main --config=configs/omniglot.py --config.data.dir=FILE.npz
Time: 2 min on one CPU core; three draws and seeds, K_p = 5: Acc 82.9 +- 0.6, triplets 86.0, cross
    entropy 86.3 (docs/results.md).
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "npz"
    config.data.split = "stratified"
    config.data.test_share = 0.25
    config.data.size = 32
    config.augment.crop = 28
    config.epochs = 40
    config.batch.kind = "balanced"  # Deep kNN, section 3, on SD-198: 9 classes x 10 images
    config.batch.size = 90
    config.batch.classes = 9
    config.batch.per_class = 10
    config.optimizer.learning_rate = 0.2  # on validation 80.6 %; 0.05 78.4, 0.01 76.7
    config.optimizer.halve_every_epochs = 15
    config.evaluate.every_epochs = 5
    return config
