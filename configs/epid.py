"""Deep kNN on gamma images of EPID measurements: 273 / 30 / 255 of 256 x 256, three classes.

No error, random or systematic error of the leaves: three images of each of 186 beams.
Data: Nyflot et al., Medical Physics 46 (2019), not public; DIR holds the images (any image format,
    or .npy arrays of gamma) and epid.csv: a row an image, with image (relative to DIR), label,
    beam, and split (train, test and, if you like, validation).
Command: python -m deepknn_jax.main --config=configs/epid.py --config.data.dir=DIR --workdir=OUT
Another split: the validation part is drawn by beam; to draw the test part too, as large as the
    published one: --config.data.split_column= --config.data.test_share=0.457 and
    --config.data.split=grouped      a beam's three on one side
    --config.data.split=stratified   image by image
    and --config.data.group_column= where the beams are not known.
Memory: 37 MB of images.
Time: not run here.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "csv_images"
    config.data.csv = "epid.csv"
    config.data.split = "published"
    config.data.split_column = "split"
    config.data.group_column = "beam"
    config.data.validation = 30 / 303
    config.data.size = 256
    config.data.channels = 1
    config.data.value_range = (0.0, 2.0)  # gamma of .npy arrays; 1 is the limit of passing
    config.model.name = "epid_cnn"
    config.batch.size = 30  # Neighborhood Watch, "Setting"; no augmentation there
    config.evaluate.k_p = (1, 5, 17)  # 17: the root of 273
    return config
