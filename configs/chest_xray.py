"""Deep kNN on class folders: paediatric chest X-rays, normal, bacteria or virus.

No patient is on two sides of the split: what `group_pattern` matches in a file name is the
patient. Class folders of anybody else: configs/class_folders.py
Channels are those of the weights, and 3 without any; in one: --config.data.channels=1
Data: Kermany et al., doi 10.17632/rscbjbr9sj (CC BY 4.0); DIR holds one folder a class with its
    images: normal/, bacteria/, virus/. (Or train/ and test/ that hold such folders: then
    --config.data.split=published. As published, bacteria and virus share one folder.)
Command:
    python -m deepknn_jax.main --config=configs/chest_xray.py --config.data.dir=DIR --workdir=OUT
Small, for a CPU: --config.model.name=cnn --config.data.size=64 --config.augment.crop=56
Time: not run to its end at 224 px yet.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "class_folders"
    config.data.split = "grouped"
    config.data.group_pattern = r"^(person\d+|(?:NORMAL2-)?IM-\d+)"
    config.data.size = 256
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet18"
    return config
