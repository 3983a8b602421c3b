"""Deep kNN on Tiny ImageNet: 100,000 / 10,000 images of 64 x 64, 200 classes.

Data: cs231n.stanford.edu/tiny-imagenet-200.zip; DIR (tiny-imagenet-200) holds wnids.txt, words.txt,
    train/<wnid>/images/*.JPEG, val/images/ and val/val_annotations.txt. Its val part is the test
    part here, as the labels of its test part are not published.
Command: python -m deepknn_jax.main --config=configs/tiny_imagenet.py --config.data.dir=DIR
    --workdir=OUT
    --config.model.weights=FILE   from ImageNet weights, as the paper: torchvision's resnet50-*.pth
Small, for a CPU: --config.model.name=resnet18 --config.data.size=64 --config.augment.crop=56
Memory: 22 GB of decoded images in the cache folder, streamed where the device cannot hold them.
Time: not run here. An estimate for two CPU cores: 460 h, by 3.6 images/s of ResNet-50's train step.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "tiny_imagenet"
    config.data.split = "published"
    config.data.size = 256
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet50"
    config.batch.kind = "balanced"  # the paper tells it for SD-198, which has as many classes
    config.batch.size = 90
    config.batch.classes = 9
    config.batch.per_class = 10
    config.evaluate.references = ("untrained",)  # a pixel kNN needs 66 GB at 224 px
    return config
