"""Deep kNN on STL-10: 5,000 / 8,000 photographs of 96 x 96, ten classes.

Data: ai.stanford.edu/~acoates/stl10 (stl10_binary.tar.gz); DIR, or DIR/stl10_binary, holds
    {train,test}_X.bin, {train,test}_y.bin and class_names.txt.
    The same through TFDS: configs/tfds.py, --config.data.tfds_name=stl10
Command: python -m deepknn_jax.main --config=configs/stl10.py --config.data.dir=DIR --workdir=OUT
    --config.model.weights=FILE   from ImageNet weights, as the paper: torchvision's resnet50-*.pth
Small, for a CPU: --config.model.name=cnn --config.data.size=96 --config.augment.crop=88
Memory: 0.4 GB of images as they come, 2.6 GB in the cache folder at 256 px.
Time: not run here. An estimate for two CPU cores: 23 h, by 3.6 images/s of ResNet-50's train step.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "stl10"
    config.data.split = "published"
    config.data.size = 256
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet50"
    config.batch.size = 96
    config.evaluate.references = ("untrained",)  # a pixel kNN needs 8 GB at 224 px
    return config
