r"""Deep kNN on anybody's class folders: one folder a class, with its images at any depth.

Data: DIR holds one folder a class, or train/, test/ and perhaps val/ that each hold such folders,
    which are then the split. Else a fifth of each class is drawn to test. docs/data.md tells which
    files are read. The first lines of a run tell what was found, left out, and how it was split;
    --mode=inspect tells that, and memory and time to expect, and trains nothing.
Command: python -m deepknn_jax.main --config=configs/class_folders.py --config.data.dir=DIR
Several images of one patient: --config.data.group_pattern='^(p\d+)', an expression for the
    patient in the path below the class folder; no patient is then on two sides.
Masks beside the images: --config.data.ignore='*_mask.*'
Grey: --config.data.channels=1
Larger, for a GPU: --config.model.name=resnet18 --config.data.size=256 --config.augment.crop=224
    From ImageNet weights: --config.model.weights=FILE (docs/backbones.md)
Some hundred images: the features of a pretrained network, and configs/features.py on them, are
    better where the images show detail, and quicker (README.md, "Your own images").
Many classes: --config.batch.classes=6 --config.batch.per_class=16
Time: --mode=inspect tells it; 40 images take half a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "class_folders"
    config.data.size = 64
    config.augment.crop = 56
    config.augment.flip = True
    config.model.name = "cnn"
    # Batches of two classes and eight images of each, which has the neighbours for K = M = 5, and
    # of fewer where the training part is smaller; likewise votes of 1 and 5.
    config.batch.kind = "balanced"
    config.batch.classes = 2
    config.batch.per_class = 0
    config.batch.size = 0
    config.evaluate.k_p = ()
    config.evaluate.every_epochs = 5
    return config
