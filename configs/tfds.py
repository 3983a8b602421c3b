"""Deep kNN on a TensorFlow Datasets set by name, read without TensorFlow.

Data: a set with an image (or a vector) and one label an example, already prepared under DIR as
    array_record; nothing is downloaded here. To prepare one, for most sets with TensorFlow:
    tensorflow_datasets.builder("beans", data_dir=DIR, file_format="array_record")
    .download_and_prepare()
    Its train, validation and test parts are the published split; a set that has only train:
    --config.data.split=stratified
Command: python -m deepknn_jax.main --config=configs/tfds.py --config.data.dir=DIR
    --config.data.tfds_name=beans --workdir=OUT
Vectors: --config.model.name=mlp --config.augment.crop=0 --config.augment.flip=False
Time: as configs/skin7.py, in proportion to the number of images.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "tfds"
    config.data.split = "published"
    config.data.tfds_name = "beans"
    config.data.size = 256
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet18"
    return config
