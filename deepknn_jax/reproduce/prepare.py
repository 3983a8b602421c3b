"""What the runner makes of data at hand before it trains: features, folds, an .npz of a zip."""

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax import features
from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.sources_files import skin7
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError
from deepknn_jax.files import write_arrays
from deepknn_jax.reproduce.sets import SETS, config_of

FOLDS = 5
GROUPED = 5  # further columns: splits by lesion, drawn with the seeds 0..4
TEST_SHARE = 0.2  # of the grouped splits, as large as a fold
VALIDATION = 0.2  # of fold 1's training part, to choose options by

MODEL = "efficientnet_lite0"
WEIGHTS = "efficientnet_lite0"  # the package's: no download


def feature_config(data_root: Path) -> Any:
    """The config of Skin-7's features: EfficientNet-Lite0 with ImageNet weights, 224 px."""
    changes = {
        "data.dir": str(data_root / SETS["skin7"].path),
        "model.name": MODEL,
        "model.weights": WEIGHTS,
    }
    return config_of("skin7", changes)


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
    if name == "omniglot":
        write_omniglot(source, target)
        return
    found = features.run(feature_config(data_root), target.parent)
    (write_tuning_set if name == "skin7_tuning" else write_folds)(found, source, target)


def write_folds(features_file: Path, skin7_folder: Path, target: Path) -> None:
    """An .npz of the features with splits [N, 10]: the published folds, then grouped splits.

    Raises:
        UserError: the features are of other images or labels than `skin7_folder` has.
    """
    arrays, listing = aligned(features_file, skin7_folder)
    published = [_fold_splits(skin7_folder, fold, arrays["names"]) for fold in range(1, FOLDS + 1)]
    grouped = [
        assign_splits(listing, split="grouped", test_share=TEST_SHARE, validation=0.0, seed=seed)
        for seed in range(GROUPED)
    ]
    _save(target, arrays | {"splits": np.stack([*published, *grouped], axis=1)})


def write_tuning_set(features_file: Path, skin7_folder: Path, target: Path) -> None:
    """An .npz of fold 1's training part alone, a fifth of it as "test": what options are chosen by.

    No lesion is on both sides. The images of fold 1's test part are not in the file.
    """
    arrays, listing = aligned(features_file, skin7_folder)
    rows = np.flatnonzero(_fold_splits(skin7_folder, 1, arrays["names"]) == TRAIN)
    part = _rows(listing, rows)
    splits = assign_splits(part, split="grouped", test_share=VALIDATION, validation=0.0, seed=0)
    kept = {key: arrays[key][rows] for key in ("features", "labels", "names")}
    _save(target, kept | {"classes": arrays["classes"], "splits": splits})


def aligned(features_file: Path, skin7_folder: Path) -> tuple[dict[str, np.ndarray], Listing]:
    """The arrays of a features.npz, and Skin-7's listing in their order."""
    with np.load(features_file, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in ("features", "labels", "names", "classes")}
    listing = _of_names(skin7(skin7_folder, fold=0), arrays["names"])
    if not np.array_equal(listing.labels, arrays["labels"]):
        raise UserError(f"{features_file}: its labels are not those of {skin7_folder}; delete it")
    return arrays, listing


def _fold_splits(skin7_folder: Path, fold: int, names: np.ndarray) -> np.ndarray:
    splits = _of_names(skin7(skin7_folder, fold=fold), names).splits
    assert splits is not None
    return splits


def _of_names(listing: Listing, names: np.ndarray) -> Listing:
    """The listing in the order of `names`, which must be the same images."""
    place = {name: i for i, name in enumerate(listing.names)}
    if place.keys() != set(names.tolist()):
        raise UserError(
            f"the features are of {len(names)} images, which are not the {len(place)} of Skin-7 "
            "here: delete the folder features/skin7 of --out"
        )
    return _rows(listing, np.asarray([place[name] for name in names.tolist()]))


def _rows(listing: Listing, rows: np.ndarray) -> Listing:
    """The listing of these rows alone."""
    assert listing.groups is not None
    return Listing(
        tuple(listing.names[i] for i in rows),
        listing.labels[rows],
        listing.class_names,
        splits=None if listing.splits is None else listing.splits[rows],
        groups=listing.groups[rows],
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


def _save(target: Path, arrays: dict[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(target, arrays)
