"""Deep kNN on your own images: a csv file with a row an image, beside the images.

A template: copy it, or set its fields on the command line.
Data: DIR holds the csv and the images; a row names an image (relative to DIR), its class and, if
    you have them, its patient and its part (train, validation or test). Columns have any name.
Command: python -m deepknn_jax.main --config=configs/csv_images.py --config.data.dir=DIR
    --config.data.csv=labels.csv --config.data.image_column=file
    --config.data.label_column=diagnosis --workdir=OUT
With patients, so that none is on two sides: --config.data.group_column=patient
With a column of parts, which are then the split: --config.data.split_column=part
Names without a suffix get that of the image that lies there, or --config.data.suffix=.jpg
A column a class, 1 in one of them (ISIC's ground truth):
    --config.data.label_columns="('MEL','NV','BCC','AKIEC','BKL','DF','VASC')"
Rows without a label, or without an image, are errors, or left out and counted:
    --config.data.empty_labels=skip --config.data.on_error=skip
Time: as configs/skin7.py, in proportion to the number of images.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "csv_images"
    config.data.csv = "labels.csv"
    config.data.image_column = "image"
    config.data.label_column = "label"
    config.data.size = 256
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet18"
    return config
