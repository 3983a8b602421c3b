"""What the runner makes of data at hand before it trains: features, folds, an .npz of a zip."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.sources.files import skin7
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError
from deepknn_jax.files import write_arrays
from deepknn_jax.reproduce.sets import SETS, config_of, listing
from deepknn_jax.trainer import embed

FOLDS = 5
GROUPED = 5  # further columns: splits by lesion, drawn with the seeds 0..4
TEST_SHARE = 0.2  # of the grouped splits, as large as a fold
VALIDATION = 0.2  # of fold 1's training part, to choose options by

PART = 600  # training images a class of MNIST's part

MODEL = "efficientnet_lite0"
WEIGHTS = "efficientnet_lite0"  # the package's: no download


def feature_config(name: str, data_root: Path) -> Any:
    """The config of a set's features: EfficientNet-Lite0 with ImageNet weights, 224 px."""
    changes = {
        "data.dir": str(data_root / SETS[name].path),
        "data.channels": 3,  # of grey images, too: the weights want them
        "model.name": MODEL,
        "model.weights": WEIGHTS,
    }
    return config_of(name, changes)


def make(name: str, data_root: Path, out: Path) -> None:
    """Makes what the set `name` is trained on, unless it is there.

    Raises:
        UserError: the set it is made of is missing or unsound.
    """
    target = out / SETS[name].made
    if not SETS[name].made or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = data_root / SETS[name].path
    match name:
        case "omniglot":
            write_omniglot(source, target)
        case "omniglot_tuning":
            make("omniglot", data_root, out)
            write_drawn_tuning(listing("omniglot", out / SETS["omniglot"].made), target)
        case "mnist_part":
            write_part(source, target, per_class=PART)
        case "pneumoniamnist_tuning":
            write_validation_as_test(source, target)
        case "chest_features" | "chest_tuning":
            found = embed.run(feature_config("chest_xray", data_root), target.parent)
            listed = listing("chest_xray", source)
            (write_grouped_tuning if name == "chest_tuning" else write_grouped)(
                found, listed, target
            )
        case _:
            found = embed.run(feature_config("skin7", data_root), target.parent)
            (write_tuning_set if name.endswith("tuning") else write_folds)(found, source, target)


def write_folds(features_file: Path, skin7_folder: Path, target: Path) -> None:
    """An .npz of the features with splits [N, 10]: the published folds, then five by lesion.

    Raises:
        UserError: the features are of other images or labels than `skin7_folder` has.
    """
    arrays, listed = aligned(features_file, skin7(skin7_folder, fold=0))
    published = [_fold_splits(skin7_folder, fold, arrays["names"]) for fold in range(1, FOLDS + 1)]
    _save(target, arrays | {"splits": np.stack([*published, *_grouped(listed)], axis=1)})


def write_grouped(features_file: Path, listed: Listing, target: Path) -> None:
    """An .npz of the features with splits [N, 5], drawn by the listing's groups."""
    arrays, listed = aligned(features_file, listed)
    _save(target, arrays | {"splits": np.stack(_grouped(listed), axis=1)})


def _grouped(listed: Listing) -> list[np.ndarray]:
    return [
        assign_splits(
            listed, split="grouped", test_share=TEST_SHARE, validation=0.0, split_seed=seed
        )
        for seed in range(GROUPED)
    ]


def write_tuning_set(features_file: Path, skin7_folder: Path, target: Path) -> None:
    """An .npz of fold 1's training part alone, a fifth of it as "test": what options are chosen by.

    No lesion is on both sides. The images of fold 1's test part are not in the file.
    """
    arrays, listed = aligned(features_file, skin7(skin7_folder, fold=0))
    rows = np.flatnonzero(_fold_splits(skin7_folder, 1, arrays["names"]) == TRAIN)
    _save_tuning(arrays, listed, rows, target)


def write_grouped_tuning(features_file: Path, listed: Listing, target: Path) -> None:
    """`write_tuning_set` of the first draw's training part."""
    arrays, listed = aligned(features_file, listed)
    _save_tuning(arrays, listed, np.flatnonzero(_grouped(listed)[0] == TRAIN), target)


def _save_tuning(
    arrays: dict[str, np.ndarray], listed: Listing, rows: np.ndarray, target: Path
) -> None:
    part = _rows(listed, rows)
    splits = assign_splits(
        part, split="grouped", test_share=VALIDATION, validation=0.0, split_seed=0
    )
    kept = {key: arrays[key][rows] for key in ("features", "labels", "names")}
    _save(target, kept | {"classes": arrays["classes"], "splits": splits})


def aligned(features_file: Path, listed: Listing) -> tuple[dict[str, np.ndarray], Listing]:
    """The arrays of a features.npz, and the listing of its data set in their order."""
    with np.load(features_file, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in ("features", "labels", "names", "classes")}
    listed = _of_names(listed, arrays["names"])
    if not np.array_equal(listed.labels, arrays["labels"]):
        raise UserError(f"{features_file}: its labels are not those of the images; delete it")
    return arrays, listed


def _fold_splits(skin7_folder: Path, fold: int, names: np.ndarray) -> np.ndarray:
    splits = _of_names(skin7(skin7_folder, fold=fold), names).splits
    assert splits is not None
    return splits


def _of_names(listing: Listing, names: np.ndarray) -> Listing:
    """The listing in the order of `names`, which must be the same images."""
    place = {name: i for i, name in enumerate(listing.names)}
    if place.keys() != set(names.tolist()):
        raise UserError(
            f"the features are of {len(names)} images, which are not the {len(place)} here: "
            "delete the folder features of --out"
        )
    return _rows(listing, np.asarray([place[name] for name in names.tolist()]))


def _rows(listing: Listing, rows: np.ndarray) -> Listing:
    """The listing of these rows alone."""
    return Listing(
        tuple(listing.names[i] for i in rows),
        listing.labels[rows],
        listing.class_names,
        splits=None if listing.splits is None else listing.splits[rows],
        groups=None if listing.groups is None else listing.groups[rows],
        inputs=None if listing.inputs is None else listing.inputs[rows],
    )


def write_omniglot(archive: Path, target: Path) -> None:
    """An .npz in Keras's keys of a zip of alphabet/character/<class>_<drawer>.png, 105 x 105.

    The published split that it makes: drawers 16 to 20 of each alphabet test.
    """
    from PIL import Image

    images: dict[str, list[np.ndarray]] = {TRAIN: [], TEST: []}
    labels: dict[str, list[str]] = {TRAIN: [], TEST: []}
    with zipfile.ZipFile(archive) as files:
        for name in sorted(files.namelist()):
            match = re.search(r"([^/]+/[^/]+)/\d+_(\d+)\.png$", name)
            if match is None:
                continue
            part = TEST if int(match[2]) > 15 else TRAIN
            with files.open(name) as file:
                images[part].append(np.asarray(Image.open(file).convert("L")))
            labels[part].append(match[1])
    if not images[TRAIN] or not images[TEST]:
        raise UserError(f"{archive}: holds no alphabet/character/<class>_<drawer>.png")
    arrays = {}
    for part in (TRAIN, TEST):
        arrays[f"x_{part}"] = np.stack(images[part])
        arrays[f"y_{part}"] = np.asarray(labels[part])
    _save(target, arrays)


def write_drawn_tuning(listed: Listing, target: Path) -> None:
    """An .npz in Keras's keys of the training part alone, a fifth of each class as test part."""
    assert listed.splits is not None
    part = _rows(listed, np.flatnonzero(listed.splits == TRAIN))
    splits = assign_splits(
        part, split="stratified", test_share=VALIDATION, validation=0.0, split_seed=0
    )
    assert part.inputs is not None
    arrays = {}
    for name in (TRAIN, TEST):
        arrays[f"x_{name}"] = part.inputs[splits == name]
        arrays[f"y_{name}"] = part.labels[splits == name]
    _save(target, arrays)


def write_part(archive: Path, target: Path, *, per_class: int) -> None:
    """An .npz in Keras's keys with that many training images a class, drawn with seed 0.

    The test part is whole.
    """
    with np.load(archive, allow_pickle=False) as found:
        arrays = {key: found[key] for key in ("x_train", "y_train", "x_test", "y_test")}
    labels, rng = arrays["y_train"], np.random.default_rng(0)
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)
    ]
    rows = np.sort(np.concatenate(chosen))
    _save(target, arrays | {"x_train": arrays["x_train"][rows], "y_train": labels[rows]})


def write_validation_as_test(archive: Path, target: Path) -> None:
    """An .npz in Keras's keys of a MedMNIST file's training and, as test, validation part.

    The test part is not in the file.
    """
    with np.load(archive, allow_pickle=False) as found:
        arrays = {}
        for part, own in ((TRAIN, "train"), (TEST, "val")):
            arrays[f"x_{part}"] = found[f"{own}_images"]
            arrays[f"y_{part}"] = found[f"{own}_labels"].ravel()
    _save(target, arrays)


def _save(target: Path, arrays: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(target, arrays)
