"""Deep kNN on SD-198: 6,584 photographs of 198 skin diseases, 9 to 60 a class.

Data: Sun et al., ECCV 2016 ("A benchmark for automatic visual classification of clinical skin
    disease images"), from its authors; DIR holds images/<class>/*.jpg and
    8_2_split/{train,val}_{0..4}.txt: a line an image, as "Acne_Vulgaris/x.jpg 1" or without the 1.
    Other lists: --config.data.train_list and --config.data.test_list, relative to DIR. Without:
    --config.data.train_list= --config.data.test_list= --config.data.split=stratified
Command: python -m deepknn_jax.main --config=configs/sd198.py --config.data.dir=DIR --workdir=OUT
    --config.model.weights=FILE   from ImageNet weights, as the paper: torchvision's resnet50-*.pth
Memory: 1.3 GB of decoded images in the cache folder.
Time: not run here. An estimate for two CPU cores: 36 h, by 3.6 images/s of ResNet-50's train step.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "sd198"
    config.data.split = "published"
    config.data.train_list = "8_2_split/train_0.txt"
    config.data.test_list = "8_2_split/val_0.txt"
    config.data.size = 256
    config.data.resize_rule = "square"  # the paper squashes
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet50"
    config.epochs = 90
    config.batch.kind = "balanced"  # Deep kNN, section 3: 9 classes x 10 images, halving each 30
    config.batch.size = 90
    config.batch.classes = 9
    config.batch.per_class = 10
    config.optimizer.halve_every_epochs = 30
    config.evaluate.references = ("untrained",)  # a pixel kNN needs 4 GB at 224 px
    return config
