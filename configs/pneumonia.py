"""Deep kNN on RSNA's pneumonia challenge: 26,684 chest X-rays, three classes.

Lung opacity 6,012, no lung opacity but not normal 11,821, normal 8,851; a patient has one image.
Data: kaggle.com/c/rsna-pneumonia-detection-challenge, stage 2; DIR holds
    stage_2_train_images/<patientId>.dcm and stage_2_detailed_class_info.csv (patientId, class).
    The test part of 5,339, as large as the paper's, is drawn here class by class.
Command: python -m deepknn_jax.main --config=configs/pneumonia.py --config.data.dir=DIR
    --workdir=OUT
    --config.model.weights=FILE   from ImageNet weights, as the paper: torchvision's resnet50-*.pth
Small, for a CPU: --config.model.name=cnn --config.data.size=64 --config.augment.crop=56
Memory: 5.2 GB of decoded images in the cache folder.
Time: not run here. An estimate for two CPU cores: 100 h, by 3.6 images/s of ResNet-50's train step;
    the first decoding 4 min, by 15 ms of one core for a JPEG of 1024 x 1024.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "pneumonia"
    config.data.split = "stratified"
    config.data.test_share = 5339 / 26684  # each class rounded, that is 1203 + 2365 + 1771
    config.data.size = 256
    config.data.resize_rule = "square"  # the paper squashes
    config.data.channels = 3  # grey, but ImageNet weights want three
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet50"
    config.batch.size = 96  # Deep kNN, section 3, as is the halving each 20 epochs
    config.optimizer.halve_every_epochs = 20
    config.evaluate.references = ("untrained",)  # a pixel kNN needs 16 GB at 224 px
    return config
