"""Every option of a run with its default, and how two configs compare."""

import difflib
import json
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

# Keys that may change between a run and its continuation: they do not touch what is trained.
_FREE = (
    *("checkpoint_seconds", "data.cache_dir", "data.placement"),
    *("evaluate.batch_size", "evaluate.pictures", "evaluate.references"),
)


def default() -> ConfigDict:
    """The options of a run; a file in configs/ starts from here and sets its own."""
    return ConfigDict(
        {
            "seed": 0,  # of initialisation, batches and augmentation
            "epochs": 60,
            "data": {
                "source": "digits",  # deepknn_jax/data/sources/__init__.py has the names
                "dir": "",  # folder of the data set; for npz the file
                # published, stratified or grouped (by patient, lesion, ...); "": published where
                # the source has one, else grouped where it has groups, else stratified
                "split": "",
                "fold": 0,  # 1, 2, ...: that published fold of skin7, or of an npz that has several
                "train_list": "",  # sd198: the lists of its published split, relative to dir;
                "test_list": "",  # "": every image, no published split
                "leave_out_censored": False,  # sarcoma: those censored before 1,096 days
                "test_share": 0.2,  # of the images, where the split is drawn here
                "validation": 0.0,  # share of the training part; above 0 the best on it is kept
                "split_seed": 0,
                "size": 0,  # side that images are resized to, pixels; 0: as they are (arrays)
                # square: squash; short_side: keep the aspect, cut the middle; "": as the weights
                # were trained (published ones: short_side), square without weights.
                "resize_rule": "",
                "value_range": (),  # (low, high) of floats and of more than 8 bits
                "frame": "",  # middle or 0, 1, ...: of multi-frame DICOM, multi-page TIFF
                "channels": 0,  # 1 or 3; 0: 3 for images in files, arrays as they are
                "on_error": "stop",  # or skip: leave unreadable images out, counted
                "cache_dir": "",  # of decoded images; "": a folder of this user's cache
                "placement": "auto",  # images in device memory if they fit; or device, stream
                "csv": "",  # csv_images: the table, relative to dir
                "image_column": "image",
                "label_column": "label",
                "label_columns": (),  # a table with a column a class, 1 in one of them: these
                "empty_labels": "error",  # or skip: leave rows without a label out, counted
                "group_column": "",  # "": no groups
                "split_column": "",  # "": no published split
                "suffix": "",  # added to image names without one, such as .jpg
                # class_folders: expression that finds the group in a file's path below its class
                "group_pattern": "",
                "ignore": (),  # patterns of file names to leave out, as *_mask.*
                "name_column": "name",  # survival_csv: columns of patient,
                "time_column": "time",  # days,
                "event_column": "event",  # and 1 for a death, 0 for censored;
                "feature_prefixes": (),  # of the columns that are features; (): all the others
                "tfds_name": "",  # tfds: dir is TFDS's data_dir, "" its own default
            },
            "augment": {
                "crop": 0,  # side of the random crop; 0: the whole image
                "flip": False,  # every second image, left to right; volumes: and up to down
                # Per channel, images on the scale 0..1; (): the weights' own, and without weights
                # those of the training part, which for feature vectors is one per feature.
                "mean": (),
                "std": (),
            },
            "model": {
                "name": "cnn",  # deepknn_jax/models/__init__.py has the names
                # To start from: a published file (.pth, .safetensors), a run's folder, or
                # efficientnet_lite0: the installed package's. "": random.
                "weights": "",
                "embedding_size": 0,  # 0: the backbone's own
                "dtype": "float32",  # of the layers' arithmetic; parameters are float32
                "normalize": False,  # embeddings of length 1 (the papers: no)
                "dropout": 0.0,  # mlp: share of each hidden layer zeroed in training
            },
            "loss": {
                "name": "deep_knn",
                "k": 5,  # deep_knn: nearest positives
                "m": 5,  # and nearest negatives
                "margin": 1.0,  # alpha, in units of the distance; lmnn: of its square
                "p": 2.0,  # order of the norm
                "temperature": 1.0,  # nca: in units of the squared distance
                "log": False,  # nca: mean of -log p_i in place of -p_i
                "targets": 5,  # lmnn: target neighbours
                "mu": 0.5,  # lmnn: weight of the push, 1 - mu that of the pull
                # Neighborhood Watch: local_margin, max_margin, max_margin_hard
                "c_b": 3.0,  # local_margin: its margin is c_b d_{a,k+} + eps
                "eps": 0.001,  # in units of the distance; the paper gives none
                # local_margin: k of d_{a,k+} and N_{a,k}; 0: the root of the training part's size
                "neighborhood": 5,
                "mine": True,  # local_margin: negatives inside N_{a,k}, positives outside
                "draws": 1,  # positives, and negatives, drawn for an anchor and epoch
                "squared": False,  # D is the distance's square
                "hard_positives": True,  # max_margin_hard: the furthest; False: any
                "reduction": "mean",  # of the hinge: over what counts; or sum, as it is printed
                "w_lm": 1000.0,  # weights: of the hinge,
                "w_ms": 1.0,  # of the mean distance to positives,
                "w_md": 1.0,  # to negatives, which is to grow,
                "w_ss": 0.0,  # of the variances
                "w_sd": 1.0,
            },
            "optimizer": {
                "name": "sgd",
                "learning_rate": 0.01,  # Deep kNN, section 3
                "momentum": 0.9,  # sgd only
                "weight_decay": 0.0,  # added to the gradient (sgd), decoupled (adam)
                "halve_every_epochs": 20,  # Deep kNN: 20, SD-198 30; 0: constant
            },
            "batch": {
                "kind": "shuffled",  # or balanced (classes x per_class), proportional
                "size": 96,
                "classes": 0,  # balanced: classes a batch
                "per_class": 0,  # balanced: images a class; size = classes * per_class
            },
            "evaluate": {
                "k_p": (1, 5),  # neighbours that vote; the last one is written out as evidence
                "every_epochs": 1,  # leave-one-out training accuracy and validation; 0: at the end
                "best_by": "mcr",  # or acc: which validation figure the best has, at the last k_p
                "batch_size": 128,  # why not more: docs/measurements.md
                "references": ("pixels", "untrained"),  # kNN to compare with
                "pictures": True,
            },
            # Where deep_knn's neighbours are searched: batch, or dataset: among the embeddings of
            # all training images, refreshed every so many steps.
            "neighbors": "batch",
            "refresh_steps": 0,  # 1: the paper's exact form; 0: an epoch
            "first_stage": "",  # deep kNN*: weighted_cross_entropy; its head is then removed
            # Stop when an epoch's mean loss differs from the last one's by no more; 0: never.
            "stop_tolerance": 0.0,
            "parallel": "shard_map",  # or pmap
            "devices": 0,  # 0: all
            "steps_per_call": 0,  # training steps in one call of the device; 0: chosen
            "checkpoint_seconds": 60.0,  # least time between two checkpoints
            "deterministic": False,  # GPU: reproducible to the bit, slower
        }
    )


def neighborhood_watch() -> ConfigDict:
    """The options of Neighborhood Watch ("Setting"): LM-Mining with k = ceil(sqrt(n)), by Adam."""
    config = default()
    config.loss.name = "local_margin"
    config.loss.neighborhood = 0
    config.batch.size = 128
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.halve_every_epochs = 0
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"loss.k": 5, ...}: the leaves of a nested mapping by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def near_keys(name: str) -> str:
    """Words for an error about the unknown key `name`: the nearest keys that exist."""
    keys = list(flatten(default()))
    leaves = {key.rsplit(".", 1)[-1]: key for key in keys}
    near = difflib.get_close_matches(name, keys, cutoff=0.6)
    near += [
        leaves[leaf]
        for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], leaves, cutoff=0.6)
        if leaves[leaf] not in near
    ]
    return f"; did you mean {' or '.join(near[:3])}?" if near else f"; keys: {', '.join(keys)}"


def to_json(config: ConfigDict) -> str:
    """The config as the text of config.json."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def differences(
    config: ConfigDict, stored: Mapping[str, Any], *, unread: Collection[str] = ()
) -> list[str]:
    """'key: stored value -> present value' for each key that would change a run's training.

    `unread` are keys that the config's method does not read.
    """
    now = flatten(json.loads(to_json(config)))
    # A run from before an option existed had its default.
    then = flatten(json.loads(to_json(default()))) | _renamed(flatten(stored))
    return [
        f"{key}: {then.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key) and key not in _FREE and key not in unread
    ]


def _renamed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """With the names of today where loss.k stood for LMNN's targets and a neighbourhood, too."""
    former = {"loss.targets": stored.get("loss.k"), "loss.neighborhood": stored.get("loss.k")}
    return {key: value for key, value in former.items() if value is not None} | dict(stored)
