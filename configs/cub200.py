"""Deep kNN on CUB-200-2011: 5,994 / 5,794 photographs of 200 bird species.

Data: Caltech-UCSD Birds, doi 10.22002/D1.20098 (CUB_200_2011.tgz); DIR (CUB_200_2011) holds
    images/, images.txt, image_class_labels.txt, train_test_split.txt and classes.txt.
    The same through TFDS: configs/tfds.py, --config.data.tfds_name=caltech_birds2011
Command: python -m deepknn_jax.main --config=configs/cub200.py --config.data.dir=DIR --workdir=OUT
    --config.model.weights=FILE   from ImageNet weights, as the paper: torchvision's resnet50-*.pth
Memory: 2.3 GB of decoded images in the cache folder.
Time: not run here. An estimate for two CPU cores: 28 h, by 3.6 images/s of ResNet-50's train step.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "cub200"
    config.data.split = "published"
    config.data.size = 256
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet50"
    config.batch.kind = "balanced"  # the paper tells it for SD-198, which has as many small classes
    config.batch.size = 90
    config.batch.classes = 9
    config.batch.per_class = 10
    config.evaluate.references = ("untrained",)  # a pixel kNN needs 7 GB at 224 px
    return config
