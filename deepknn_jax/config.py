"""Every option of a run with its default, and the checks of values that need no data."""

import difflib
import json
import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from deepknn_jax.errors import UserError

_LOSSES = (
    "deep_knn",
    "triplet",
    "cross_entropy",
    "weighted_cross_entropy",
    "nca",
    "lmnn",
    "local_margin",
    "max_margin",
    "max_margin_hard",
)
_CHOICES = {
    "data.split": ("published", "stratified", "grouped"),
    "data.resize_rule": ("", "square", "short_side"),
    "data.on_error": ("stop", "skip"),
    "data.placement": ("auto", "device", "stream"),
    "model.dtype": ("float32", "bfloat16"),
    "loss.name": _LOSSES,
    "loss.reduction": ("sum", "mean"),
    "first_stage": ("", *_LOSSES),
    "optimizer.name": ("sgd", "adam"),
    "batch.kind": ("shuffled", "balanced", "proportional"),
    "evaluate.best_by": ("mcr", "acc"),
    "neighbors": ("batch", "dataset"),
    "parallel": ("shard_map", "pmap"),
}
# Smallest value allowed.
_LEAST = {
    "seed": 0,
    "data.split_seed": 0,
    "data.size": 0,
    "data.channels": 0,
    "data.fold": 0,
    "model.embedding_size": 0,
    "loss.k": 0,
    "loss.draws": 1,
    "loss.c_b": 0.0,
    "loss.eps": 0.0,
    "loss.w_lm": 0.0,
    "loss.w_ms": 0.0,
    "loss.w_md": 0.0,
    "loss.w_ss": 0.0,
    "loss.w_sd": 0.0,
    "stop_tolerance": 0.0,
    "loss.m": 1,
    "loss.p": 1.0,
    "loss.margin": 0.0,
    "loss.temperature": 0.0,
    "optimizer.learning_rate": 0.0,
    "optimizer.weight_decay": 0.0,
    "optimizer.halve_every_epochs": 0,
    "batch.size": 1,
    "epochs": 1,
    "devices": 0,
    "steps_per_call": 0,
    "refresh_steps": 0,
    "augment.crop": 0,
    "evaluate.every_epochs": 0,
    "evaluate.batch_size": 1,
    "checkpoint_seconds": 0.0,
}
# Keys that may change between a run and its continuation: they do not touch the result.
_FREE = ("checkpoint_seconds", "data.cache_dir", "data.placement")


def default() -> ConfigDict:
    """The options of a run; a file in configs/ starts from here and sets its own."""
    return ConfigDict(
        {
            "seed": 0,  # of initialisation, batches and augmentation
            "epochs": 60,
            "data": {
                "source": "digits",  # deepknn_jax/data/load.py has the names
                "dir": "",  # folder of the data set; for npz the file
                "split": "stratified",  # or published, grouped (by patient, lesion, ...)
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
                "value_range": (),  # (low, high) of pixels that are floats (.npy, .tif)
                "channels": 0,  # 1 or 3; 0: 3 for images in files, arrays as they are
                "on_error": "stop",  # or skip: leave undecodable images out, counted
                "cache_dir": "",  # of decoded images; "": a folder of this user's cache
                "placement": "auto",  # images in device memory if they fit; or device, stream
                "csv": "",  # csv_images: the table, relative to dir
                "image_column": "image",
                "label_column": "label",
                "group_column": "",  # "": no groups
                "split_column": "",  # "": no published split
                "suffix": "",  # added to image names without one, such as .jpg
                "group_pattern": "",  # class_folders: expression that finds the group in a name
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
                # Nearest positives; lmnn: target neighbours; local_margin: the neighbourhood's
                "k": 5,  # size, there 0: the square root of the number of training examples
                "m": 5,  # nearest negatives
                "margin": 1.0,  # alpha, in units of the distance; lmnn: of its square
                "p": 2.0,  # order of the norm
                "temperature": 1.0,  # nca: in units of the squared distance
                "log": False,  # nca: mean of -log p_i in place of -p_i
                "mu": 0.5,  # lmnn: weight of the push, 1 - mu that of the pull
                # Neighborhood Watch: local_margin, max_margin, max_margin_hard
                "c_b": 3.0,  # local_margin: its margin is c_b d_{a,k+} + eps
                "eps": 0.001,  # in units of the distance; the paper gives none
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
                "batch_size": 128,  # why not more: docs/decisions.md
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
    config.loss.k = 0
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


def check(config: ConfigDict) -> None:
    """Raises UserError, naming the key, for an unknown key or a value out of range."""
    flat, known = flatten(config), flatten(default())
    for key in flat:
        if key not in known:
            raise UserError(f"config key {key} does not exist{near_keys(key)}")
    for key in known:
        if key not in flat:
            raise UserError(f"config key {key} is missing: start from deepknn_jax.config.default()")
    for key, choices in _CHOICES.items():
        if flat[key] not in choices:
            raise UserError(f"config.{key} is {flat[key]!r}: choose from {', '.join(choices)}")
    for key, least in _LEAST.items():
        if not least <= flat[key] < float("inf"):
            raise UserError(f"config.{key} is {flat[key]}: it must be finite and at least {least}")
    if flat["optimizer.learning_rate"] == 0:
        raise UserError("config.optimizer.learning_rate is 0: nothing would be learnt")
    if not 0 <= flat["loss.mu"] <= 1:
        raise UserError(f"config.loss.mu is {flat['loss.mu']}: choose 0 to 1")
    if flat["loss.k"] == 0 and flat["loss.name"] in ("deep_knn", "lmnn"):
        raise UserError(f"config.loss.k is 0: {flat['loss.name']} wants at least 1")
    if flat["loss.squared"] and flat["loss.p"] != 2:
        raise UserError("config.loss.squared goes with config.loss.p=2")
    if not 0 <= flat["model.dropout"] < 1:
        raise UserError(f"config.model.dropout is {flat['model.dropout']}: choose 0 to below 1")
    if flat["loss.temperature"] <= 0:
        raise UserError(f"config.loss.temperature is {flat['loss.temperature']}: choose above 0")
    if not 0 <= flat["optimizer.momentum"] < 1:
        raise UserError(f"config.optimizer.momentum is {flat['optimizer.momentum']}: choose 0 to 1")
    k_p = flat["evaluate.k_p"]
    if not k_p or not all(isinstance(k, int) and k >= 1 for k in k_p) or list(k_p) != sorted(k_p):
        raise UserError(f"config.evaluate.k_p is {k_p}: ascending whole numbers of at least 1")
    for name in flat["evaluate.references"]:
        if name not in ("pixels", "untrained"):
            raise UserError(f"config.evaluate.references has {name!r}: pixels, untrained or none")
    for key in ("augment.mean", "augment.std"):
        if not all(isinstance(x, int | float) and math.isfinite(x) for x in flat[key]):
            raise UserError(f"config.{key} is {flat[key]}: it must hold numbers")
    if any(std <= 0 for std in flat["augment.std"]):
        raise UserError(f"config.augment.std is {flat['augment.std']}: it must be above 0")
    if len(flat["augment.mean"]) != len(flat["augment.std"]):
        raise UserError("config.augment.mean and config.augment.std need one number per channel")


def to_json(config: ConfigDict) -> str:
    """The config as the text of config.json."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def differences(config: ConfigDict, stored: Mapping[str, Any]) -> list[str]:
    """'key: stored value -> present value' for each key that would change a run's result."""
    now = flatten(json.loads(to_json(config)))
    # A run from before an option existed had its default.
    then = flatten(json.loads(to_json(default()))) | flatten(stored)
    return [
        f"{key}: {then.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key) and key not in _FREE
    ]
