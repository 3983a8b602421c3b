"""Every option of a run with its default, and how two configs compare."""

import difflib
import json
from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from deepknn_jax.files import parse_json

# Keys that may change between a run and its continuation: they do not touch what is trained.
_FREE = (
    *("checkpoint_seconds", "step_timeout", "data.cache_dir", "data.placement"),
    *("evaluate.batch_size", "evaluate.pictures", "evaluate.references"),
    *("evaluate.vote.class_size_power", "evaluate.vote.temperature"),
    *("evaluate.vote.k_p", "evaluate.vote.choose_by"),
    *("model_folder.names", "model_folder.thumbnails"),
)


def default() -> ConfigDict:
    """The options of a run; a file in configs/ starts from here and sets its own."""
    return ConfigDict(
        {
            "seed": 0,  # of all chance in training: start, batches, augmentation, dropout, draws
            "epochs": 60,  # 0: nothing is trained; the kNN on the network as it starts
            "data": {
                "source": "digits",  # deepknn_jax/data/sources/__init__.py has the names
                "dir": "",  # folder of the data set; for npz, and mnist.npz, the file
                # published, stratified or grouped (by patient, lesion, ...); "": published where
                # the source has one, else grouped where it has groups, else stratified
                "split": "",
                "fold": 0,  # 1, 2, ...: that published fold of skin7, survival_csv or an npz
                "train_list": "",  # sd198: the lists of its published split, relative to dir;
                "test_list": "",  # "": every image, no published split
                # sarcoma, survival_csv: those censored before 1,096 days.
                "leave_out_censored": False,
                "test_share": 0.2,  # of each class, where the split is drawn here
                # Share of the training part to validate on, if no such part is published. Above 0
                # the network that is best on it is reported, not the last one.
                "validation": 0.0,
                "split_seed": 0,  # of the test and validation parts that are drawn here
                "size": 0,  # side that images are resized to, pixels; 0: as they are (arrays)
                # square: squash; short_side: keep the aspect, cut the middle; "": as the weights
                # were trained (published ones: short_side), square without weights.
                "resize_rule": "",
                "value_range": (),  # (low, high) of floats and of more than 8 bits
                "frame": "",  # middle or 0, 1, ...: of multi-frame DICOM, multi-page TIFF
                # 1 or 3; 0: the weights' own; without weights 3 for files, arrays as they are
                "channels": 0,
                "on_error": "stop",  # or skip: leave unreadable images out, counted
                # Examples of equal content in two parts: warn, with figures with and without them;
                # drop: those leave the training part whose copy tests or validates; or stop.
                "copies": "warn",
                # Images that nearly are copies: tell; drop; or group: a split that is drawn here
                # keeps them on one side.
                "near_copies": "tell",
                "cache_dir": "",  # of decoded images; "": a folder of this user's cache
                # auto: inputs in device memory if they fit a quarter of it; device: always;
                # stream: each call brings its own.
                "placement": "auto",
                "csv": "",  # csv_images, survival_csv: the table, relative to dir
                "image_column": "image",  # csv_images: columns of the image's file,
                "label_column": "label",  # its class,
                "label_columns": (),  # or a column a class, 1 in one of them,
                "group_column": "",  # its group, such as the patient ("": no groups),
                "split_column": "",  # and its part ("": no published split)
                "empty_labels": "error",  # csv_images: or skip: leave such rows out, counted
                "suffix": "",  # csv_images: added to image names without one, such as .jpg
                # class_folders: expression that finds the group in a file's path below its class
                "group_pattern": "",
                "ignore": (),  # class_folders: patterns of file names to leave out, as *_mask.*
                "name_column": "name",  # survival_csv: columns of the patient,
                "time_column": "time",  # of days,
                "event_column": "event",  # of 1 for a death and 0 for censored,
                "feature_prefixes": (),  # and how those of features begin; (): all the others
                "tfds_name": "",  # tfds: the set's name; dir is TFDS's data_dir, "" its own default
            },
            "augment": {
                "crop": 0,  # images: side of the random crop, pixels; 0: the whole image
                # By a fair coin: images left to right (with crop), volumes also up to down.
                "flip": False,
                # The symmetries that images have: of flip_lr, flip_ud, rot90, rot180. Training
                # draws one of the views that they make (both flips: 4, with rot90 8), evaluation
                # averages over all; embed writes [N, V, F]. Features bring theirs. docs/views.md
                "views": (),
                # Per channel, on the scale 0..1; (): the weights' own, and without weights those of
                # the training part. Not for feature vectors, which that part always standardises.
                "mean": (),
                "std": (),
            },
            "model": {
                "name": "cnn",  # deepknn_jax/models/__init__.py has the names
                # To start from: a published file (.pth, .safetensors), a run's folder, or
                # efficientnet_lite0: the installed package's. "": random. A run brings size, crop
                # and more where they are left at their defaults: docs/backbones.md.
                "weights": "",
                "embedding_size": 0,  # 0: the backbone's own
                "dtype": "float32",  # or bfloat16: of the layers' arithmetic; parameters: float32
                "normalize": False,  # embeddings of length 1 (the papers: no)
                "dropout": 0.0,  # mlp: share of each hidden layer zeroed in training
            },
            "loss": {
                # deep_knn, soft_deep_knn, triplet, cross_entropy, weighted_cross_entropy,
                # logit_adjusted_cross_entropy, nca, lmnn, or, of Neighborhood Watch, local_margin,
                # max_margin, max_margin_hard.
                "name": "deep_knn",
                # Anchors weigh n_c^-power, n_c the training examples of their class, 1 on average:
                # 0 alike, 1 each class alike (weighted_cross_entropy: always 1).
                "class_weight_power": 0.0,
                "k": 5,  # deep_knn, soft_deep_knn (0: all): nearest positives of an anchor,
                "m": 5,  # and nearest negatives
                # deep_knn, triplet, max_margin, max_margin_hard: alpha, in units of the distance;
                # soft_deep_knn, lmnn: in units of its square.
                "margin": 1.0,
                "p": 2.0,  # order of the norm, for losses that have one and for the kNN
                "temperature": 1.0,  # nca, soft_deep_knn: in units of the squared distance
                "each_positive": False,  # soft_deep_knn: the mean over the K; False: their softmin
                "tau": 1.0,  # logit_adjusted_cross_entropy: tau log(n_c / N) is added to the logits
                "log": False,  # nca: mean of -log p_i in place of -p_i
                "targets": 5,  # lmnn: target neighbours of an anchor
                "mu": 0.5,  # lmnn: weight of the push, 1 - mu that of the pull
                "c_b": 3.0,  # local_margin: its margin is c_b d_{a,k+} + eps
                "eps": 0.001,  # local_margin: in units of the distance; the paper gives none
                # local_margin: k of d_{a,k+} and N_{a,k}; 0: the root of the training part's size.
                "neighborhood": 5,
                "mine": True,  # local_margin: negatives inside N_{a,k}, positives outside
                # local_margin, max_margin: positives, and negatives, drawn for an anchor and epoch.
                "draws": 1,
                "hard_positives": True,  # max_margin_hard: the furthest of the batch; False: any
                # The three of Neighborhood Watch:
                "squared": False,  # D is the distance's square
                "reduction": "mean",  # of the hinge, over what counts; or sum, as it is printed
                "w_lm": 1000.0,  # weight of the hinge,
                "w_ms": 1.0,  # of the mean distance to positives,
                "w_md": 1.0,  # of that to negatives, which is to grow,
                "w_ss": 0.0,  # of the variance of the distances to positives,
                "w_sd": 1.0,  # and of that to negatives
            },
            "optimizer": {
                "name": "sgd",  # or adam
                "learning_rate": 0.01,  # Deep kNN, section 3
                "momentum": 0.9,  # sgd only
                "weight_decay": 0.0,  # added to the gradient (sgd), decoupled (adam)
                "nesterov": False,
                "decay_all": True,  # weight_decay; False: not of BatchNorm's scale and biases
                "schedule": "halving",  # of the rate (Deep kNN); or cosine, to 0 at the last step
                "halve_every_epochs": 20,  # Deep kNN: 20, on SD-198 30; 0: constant
                "warmup_epochs": 0.0,  # of a rate that grows to what the schedule gives
                # Of the weights, what is evaluated: their average over about 1 / (1 - average)
                # steps; 0: the last ones.
                "average": 0.0,
            },
            "batch": {
                "kind": "shuffled",  # or balanced (classes x per_class), proportional
                # Of all devices together; 0: chosen, 16 or fewer images, or an eighth of the
                # feature vectors, 96 to 480.
                "size": 96,
                "classes": 0,  # balanced: classes a batch
                # Balanced: examples a class, size = classes * per_class; 0: chosen, of images 8 or
                # fewer, of feature vectors such that the size is as above.
                "per_class": 0,
            },
            "evaluate": {
                # Neighbours that vote, ascending; neighbors.csv has the last one's. (): those of 1
                # and 5 of which the training part has enough.
                "k_p": (1, 5),
                "every_epochs": 1,  # leave-one-out training accuracy and validation; 0: at the end
                # mcr, acc or the mean of both, at the last k_p: by which the best on validation is
                # chosen, and the options of logistic_regression and svc.
                "best_by": "mcr",
                # Images: average over all views, which embeds each so often; False: as they are.
                "views": True,
                # The run's vote (docs/vote.md): that of results.json, of its answers and its model.
                # By default each of the last k_p's neighbours has one vote, as in the papers.
                "vote": {
                    # tau, 0 to 1, or auto, on validation: votes of class c count n_c^-tau, n_c its
                    # training examples.
                    "class_size_power": "0",
                    # Votes weigh exp(-d^2 / temperature), in units of the squared distance; 0: one
                    # each.
                    "temperature": 0.0,
                    "k_p": "last",  # of evaluate.k_p, the reported one; or auto, on validation
                    "choose_by": "mean",  # what is auto: acc, mcr, or the mean of these two
                },
                "batch_size": 128,  # examples embedded at a time; docs/measurements.md says why
                # To compare with: kNN on the inputs (pixels) and on embeddings before training
                # (untrained), and scikit-learn's logistic_regression and svc, tuned on validation.
                "references": ("pixels", "untrained"),
                "pictures": True,  # training curves, confusion matrix, t-SNE, neighbours
            },
            # WORKDIR/model/ answers for new images: docs/predict.md. It may hold the training
            # images' file names, and small pictures of them, which report.html shows.
            "model_folder": {"names": True, "thumbnails": True},
            # Where deep_knn's neighbours are searched: batch, or dataset: among the embeddings of
            # all training images, refreshed every so many steps.
            "neighbors": "batch",
            "refresh_steps": 0,  # of neighbors=dataset; 1: the paper's exact form; 0: an epoch
            # Loss of a training that comes first, whose head is then removed; deep kNN* of the
            # paper: weighted_cross_entropy. "": none.
            "first_stage": "",
            # Stop when an epoch's mean loss differs from the last one's by no more; 0: never.
            "stop_tolerance": 0.0,
            "parallel": "shard_map",  # or pmap: how a step is mapped over several devices
            "devices": 0,  # how many; 0: all
            "steps_per_call": 0,  # training steps in one call of the device; 0: chosen
            "checkpoint_seconds": 60.0,  # least time between two checkpoints
            # Seconds after which a call of the device, but for the first, counts as stuck and ends
            # the run; 0: never.
            "step_timeout": 0.0,
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


def of_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote, also one from before an option existed.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it is none.
    """
    config, known = default(), flatten(default())
    stored = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in _renamed(flatten(parse_json(text))).items()
    }
    if unknown := stored.keys() - known.keys():
        raise KeyError(f"no option is called {min(unknown)}")
    config.update_from_flattened_dict(stored)
    return config


def differences(
    config: ConfigDict, stored: Mapping[str, Any], *, unread: Collection[str] = ()
) -> list[str]:
    """'key: stored value -> present value' for each key that would change a run's training.

    `unread` are keys that the config's method does not read.
    """
    now = flatten(json.loads(to_json(config)))
    # A run from before an option existed is as one with its default.
    then = flatten(json.loads(to_json(default()))) | _renamed(flatten(stored))
    return [
        f"{key}: {then.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(now.keys() | then.keys())
        if now.get(key) != then.get(key) and key not in _FREE and key not in unread
    ]


def _renamed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """`stored` with loss.targets and loss.neighborhood: loss.k stood for them in older runs."""
    former = {"loss.targets": stored.get("loss.k"), "loss.neighborhood": stored.get("loss.k")}
    return {key: value for key, value in former.items() if value is not None} | dict(stored)
