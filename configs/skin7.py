"""Deep kNN on Skin-7 (HAM10000, ISIC 2018 task 3): 10,015 skin lesions, seven classes.

Data: HAM10000 at Harvard Dataverse, doi 10.7910/DVN/DBW86T (CC BY-NC 4.0); DIR holds
    HAM10000_images/ISIC_*.jpg (or HAM10000_images_part_1/ and _2/) and HAM10000_metadata.csv;
    a published fold needs folds/split_data_{1..5}_fold_{train,test}.csv as well, by the authors
    of Deep kNN.
Command: python -m deepknn_jax.main --config=configs/skin7.py --config.data.dir=DIR --workdir=OUT
Another split:
    --config.data.fold=2                                  another of the five folds
    --config.data.split=stratified --config.data.fold=0   drawn class by class
    --config.data.split=grouped --config.data.fold=0      and no lesion on two sides
    37 to 39 % of a fold's test images share a lesion with training images; grouped ones do not.
A lesion has no upright: in training one of its views, in evaluation the average over all of them,
    --config.augment.views='("flip_lr","flip_ud","rot90")'   eight; four without rot90
    With --mode=embed all of them become features [N, V, F] (docs/views.md).
With published weights whose embeddings start far apart (EfficientNet-Lite0's: 28) metric losses
    shrink them into one point; what learns there, of deep kNN the best of a search at 64 px
    (docs/results.md, which has the other losses' rates, too):
    --config.model.normalize=True --config.loss.margin=0.5 --config.optimizer.learning_rate=0.3
    --config.optimizer.schedule=cosine --config.optimizer.warmup_epochs=1
    --config.optimizer.nesterov=True --config.optimizer.weight_decay=5e-4
Small, for a CPU: --config.model.name=cnn --config.data.size=64 --config.augment.crop=56
Time: at 224 px not run to its end yet; ResNet-18 at 64 px, six epochs, 11 min on two CPU cores
    (docs/skin7.md has the command): Acc 75.0, MCR 48.8, RS (df) 26.1 at K_p = 5.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "skin7"
    config.data.split = "published"
    config.data.fold = 1
    config.data.size = 256
    config.data.resize_rule = "square"  # the paper squashes
    config.augment.crop = 224
    config.augment.flip = True
    config.model.name = "resnet50"
    config.batch.size = 96  # Deep kNN, section 3, as is the halving each 20 epochs
    config.optimizer.halve_every_epochs = 20
    # Drawn from the whole set, a batch has one df or vasc, so no positive for it; by classes the
    # mean class recall on validation rose by 6 points (docs/measurements.md).
    config.batch.kind = "balanced"
    config.batch.classes = 6
    config.batch.per_class = 16
    config.evaluate.references = ("untrained",)  # a pixel kNN needs 6 GB at 224 px
    return config
