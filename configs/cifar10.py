"""Deep kNN on CIFAR-10, as Neighborhood Watch: features of InceptionResNetV2, then feed-forward.

45,000 / 5,000 / 10,000 images of 32 x 32, resized to 224 x 224 for 1,536 features each.
Data: cs.toronto.edu/~kriz/cifar.html, the binary version (cifar-10-binary.tar.gz); DIR, or
    DIR/cifar-10-batches-bin, holds data_batch_{1..5}.bin, test_batch.bin and batches.meta.txt.
    The same through TFDS: configs/tfds.py, --config.data.tfds_name=cifar10
Command: two; FILE are ImageNet weights (timm's inception_resnet_v2, .pth or .safetensors)
    python -m deepknn_jax.main --mode=embed --config=configs/cifar10.py --config.data.dir=DIR
    --config.model.weights=FILE --workdir=OUT
    python -m deepknn_jax.main --config=configs/features.py --config.data.dir=OUT/features.npz
    --config.data.split=published --config.data.validation=0.1 --config.model.name=feed_forward
    --config.batch.size=128 --workdir=OUT_2 --config.loss.name=deep_knn
    --config.loss.class_weight_power=0 --config.model.normalize=False --config.model.dropout=0
    --config.optimizer.weight_decay=0 --config.optimizer.learning_rate=0.01
Without features, small: --config.model.name=cnn --config.data.size=32, and no --mode
Memory: 9 GB of images in the cache folder at 224 px.
Time: not run here.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "cifar10"
    config.data.split = "published"
    config.data.validation = 0.1  # of the 50,000: 5,000
    config.data.size = 224
    config.model.name = "inception_resnet_v2"
    config.batch.size = 128
    config.evaluate.references = ("untrained",)  # a pixel kNN needs 36 GB at 224 px
    return config
