"""What the runner makes of data at hand before it trains: features, folds, an .npz of a zip."""

import contextlib
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.data.sources.files import SKIN7_FOLDERS, SKIN7_METADATA
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError
from deepknn_jax.files import new_folder, write_arrays
from deepknn_jax.reproduce.catalog import SETS
from deepknn_jax.reproduce.sets import config_of, folder, listing
from deepknn_jax.trainer import embed

GROUPED = 5  # further columns of the splits: drawn by group with the seeds 0..4
DRAWS = 5  # columns of the splits of a set without groups, drawn with the seeds 0..4
TEST_SHARE = 0.2  # of the grouped splits, as large as a fold
VALIDATION_SHARE = 0.2  # of the first column's training part, to choose options by
PART = 600  # training images a class of MNIST's part

Arrays = dict[str, Any]


def unmade(name: str, out: Path) -> Path | None:
    """The file or folder that is still to be made for the set `name`."""
    made = SETS[name].made
    return out / made if made and not (out / made).exists() else None


def make(name: str, data_root: Path, out: Path) -> None:
    """Makes what the set `name` is trained on, unless it is there.

    Raises:
        UserError: the set it is made of is missing or unsound.
    """
    if (target := unmade(name, out)) is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        maker = SETS[name].maker
        if maker in FOLDERS:
            with contextlib.suppress(FileExistsError), new_folder(target) as filled:
                FOLDERS[maker](name, data_root, filled)  # unless another process is first
        else:
            write_arrays(target, MAKERS[maker](name, data_root, out))


def feature_config(name: str, data_root: Path, views: Sequence[str] = ()) -> Any:
    """The config of a set's features: EfficientNet-Lite0 with ImageNet weights, 224 px.

    `views` are augment.views.
    """
    changes = {
        "data.dir": str(data_root / SETS[name].path),
        "data.channels": 3,  # of grey images, too: the weights want them
        "model.name": "efficientnet_lite0",
        "model.weights": "efficientnet_lite0",  # the package's: no download
        "augment.views": tuple(views),
    }
    config = config_of(name, changes)
    if not config.augment.crop:  # small arrays, which would be taken as they are
        config.data.size, config.augment.crop = 256, 224
    return config


def folds(name: str, data_root: Path, out: Path) -> Arrays:
    """The features [N, F] or [N, V, F] of a set, with splits [N, published folds + 5 by group]."""
    arrays, listed = _features(name, data_root, out)
    return arrays | {"splits": np.stack(_columns(name, data_root, listed), axis=1)}


def published(name: str, data_root: Path, out: Path) -> Arrays:
    """The features [N, F] of a set, with its one published split [N, 1]."""
    arrays, listed = _features(name, data_root, out)
    assert listed.splits is not None
    return arrays | {"splits": listed.splits[:, None]}


def published_tuning(name: str, data_root: Path, out: Path) -> Arrays:
    """The features of the published training part and, as "test", validation part; not its test."""
    arrays, listed = _features(name, data_root, out)
    assert listed.splits is not None
    rows = np.flatnonzero(listed.splits != TEST)
    splits = np.where(listed.splits[rows] == VALIDATION, TEST, listed.splits[rows])
    return _part(arrays, rows) | {"splits": splits}


def grouped(name: str, data_root: Path, out: Path) -> Arrays:
    """The features [N, F] of a set's images, with their groups [N] and no split."""
    arrays, listed = _features(name, data_root, out)
    assert listed.groups is not None
    return arrays | {"groups": listed.groups}


def tuning(name: str, data_root: Path, out: Path) -> Arrays:
    """The training part of the first of those splits alone, a fifth of it as "test".

    What options are chosen by: no group is on both sides, and the split's test part is not there.
    """
    arrays, listed = _features(name, data_root, out)
    rows = np.flatnonzero(_columns(name, data_root, listed)[0] == TRAIN)
    return _part(arrays, rows) | {"splits": _tuning_splits(_rows(listed, rows), "grouped")}


def skin7_tuning(name: str, data_root: Path, made: Path) -> None:
    """Skin-7's layout with fold 1's training part alone: a fifth of its lesions is the test part.

    The images are linked to.
    """
    source = data_root / SETS[SETS[name].of].path
    listed = listing(SETS[name].of, source, fold=1)
    assert listed.groups is not None
    part = _rows(listed, np.flatnonzero(listed.splits == TRAIN))
    splits = _tuning_splits(part, "grouped")
    for images in (source / each for each in SKIN7_FOLDERS):
        if images.is_dir():
            (made / images.name).symlink_to(images.resolve(), target_is_directory=True)
    ids = [Path(each).stem for each in part.names]
    diagnoses = [part.class_names[label] for label in part.labels]
    columns = {"image_id": ids, "dx": diagnoses, "lesion_id": part.groups}
    pd.DataFrame(columns).to_csv(made / SKIN7_METADATA, index=False)
    (made / "folds").mkdir()
    for which in (TRAIN, TEST):
        rows = np.flatnonzero(splits == which)
        columns = {f"image_{which}": [part.names[i] for i in rows],
                   f"label_{which}": part.labels[rows]}  # fmt: skip
        path = made / "folds" / f"split_data_1_fold_{which}.csv"
        pd.DataFrame(columns).to_csv(path, index=False)


def _tuning_splits(part: Listing, split: str) -> np.ndarray:
    """A training part's own split [n], drawn as `split` says."""
    return assign_splits(
        part, split=split, test_share=VALIDATION_SHARE, validation=0.0, split_seed=0
    )


def _part(arrays: Arrays, rows: np.ndarray) -> Arrays:
    """These rows of a set's features, and its classes."""
    kept = {key: arrays[key][rows] for key in ("features", "labels", "names")}
    return kept | {"classes": arrays["classes"]}


def _features(name: str, data_root: Path, out: Path) -> tuple[Arrays, Listing]:
    """The arrays of the features, and the listing in their order."""
    source = SETS[name].of
    made = (out / SETS[name].made).parent
    file = made / embed.FILE
    if not file.exists():  # what is there is checked below; the weights may be gone since
        embed.run(feature_config(source, data_root, SETS[name].views), made)
    with np.load(file, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in ("features", "labels", "names", "classes")}
        if "network" in archive:  # which lies beside this file, too
            arrays["network"] = archive["network"]
    path = data_root / SETS[source].path
    listed = _of_names(listing(source, path), arrays["names"].tolist())
    if not np.array_equal(listed.labels, arrays["labels"]):
        raise UserError(f"{file}: its labels are not those of the images; delete it")
    return arrays, listed


def _columns(name: str, data_root: Path, listed: Listing) -> list[np.ndarray]:
    """The columns of the splits, each [N] in the listing's order: published folds, draws."""
    source = SETS[name].of
    published = [
        _of_names(listing(source, data_root / SETS[source].path, fold=fold), listed.names)
        for fold in range(1, SETS[source].folds + 1)
    ]
    columns = [each.splits for each in published if each.splits is not None]
    return columns + [
        assign_splits(
            listed, split="grouped", test_share=TEST_SHARE, validation=0.0, split_seed=seed
        )
        for seed in range(GROUPED)
    ]


def _of_names(listed: Listing, names: Sequence[str]) -> Listing:
    """The listing in the order of `names`, which must be the same images."""
    place = {name: i for i, name in enumerate(listed.names)}
    if place.keys() != set(names):
        raise UserError(
            f"the features are of {len(names)} images, which are not the {len(place)} here: "
            "delete the folder features of --out"
        )
    return _rows(listed, np.asarray([place[name] for name in names]))


def _rows(listed: Listing, rows: np.ndarray) -> Listing:
    """The listing of these rows alone."""
    return Listing(
        tuple(listed.names[i] for i in rows),
        listed.labels[rows],
        listed.class_names,
        splits=None if listed.splits is None else listed.splits[rows],
        groups=None if listed.groups is None else listed.groups[rows],
        inputs=None if listed.inputs is None else listed.inputs[rows],
    )


def omniglot(name: str, data_root: Path, out: Path) -> Arrays:
    """Keras's arrays of a zip of alphabet/character/<class>_<drawer>.png, 105 x 105.

    The published split that it makes: drawers 16 to 20 of each alphabet test.

    Raises:
        UserError: the zip holds no such files.
    """
    from PIL import Image

    archive = data_root / SETS[name].path
    images: dict[str, list[np.ndarray]] = {TRAIN: [], TEST: []}
    labels: dict[str, list[str]] = {TRAIN: [], TEST: []}
    with zipfile.ZipFile(archive) as files:
        for member in sorted(files.namelist()):
            match = re.search(r"([^/]+/[^/]+)/\d+_(\d+)\.png$", member)
            if match is None:
                continue
            part = TEST if int(match[2]) > 15 else TRAIN
            with files.open(member) as file:
                images[part].append(np.asarray(Image.open(file).convert("L")))
            labels[part].append(match[1])
    if not images[TRAIN] or not images[TEST]:
        raise UserError(f"{archive}: holds no alphabet/character/<class>_<drawer>.png")
    return _keras({part: (np.stack(images[part]), labels[part]) for part in (TRAIN, TEST)})


def drawn_tuning(name: str, data_root: Path, out: Path) -> Arrays:
    """Keras's arrays of a drawn split's training part alone, a fifth of each class as test part."""
    source = SETS[name].of
    make(source, data_root, out)
    part, splits = _drawn_tuning(source, data_root, out)
    assert part.inputs is not None
    inputs, labels = part.inputs, part.labels
    return _keras({key: (inputs[splits == key], labels[splits == key]) for key in (TRAIN, TEST)})


def draws(name: str, data_root: Path, out: Path) -> Arrays:
    """The vectors [N, F] of a set without groups, with splits [N, 5] drawn by class."""
    source = SETS[name].of
    path = folder(source, data_root, out)
    drawn = [listing(source, path, split_seed=seed) for seed in range(DRAWS)]
    splits = [each.splits for each in drawn if each.splits is not None]
    return _vectors(drawn[0]) | {"splits": np.stack(splits, axis=1)}


def draws_tuning(name: str, data_root: Path, out: Path) -> Arrays:
    """The training part of the first of those draws alone, a fifth of each class as "test"."""
    part, splits = _drawn_tuning(SETS[name].of, data_root, out)
    return _vectors(part) | {"splits": splits}


def _drawn_tuning(source: str, data_root: Path, out: Path) -> tuple[Listing, np.ndarray]:
    """The training part of a set's own drawn split, and a split of that by class."""
    listed = listing(source, folder(source, data_root, out))
    assert listed.splits is not None
    part = _rows(listed, np.flatnonzero(listed.splits == TRAIN))
    return part, _tuning_splits(part, "stratified")


def _vectors(listed: Listing) -> Arrays:
    assert listed.inputs is not None
    names, classes = np.asarray(listed.names), np.asarray(listed.class_names)
    return {
        "features": listed.inputs, "labels": listed.labels, "names": names, "classes": classes
    }  # fmt: skip


def mnist_part(name: str, data_root: Path, out: Path) -> Arrays:
    """Keras's arrays with PART training images a class, drawn with seed 0, and the whole test."""
    with np.load(data_root / SETS[name].path, allow_pickle=False) as found:
        images, labels, *test = (found[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    rng = np.random.default_rng(0)
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:PART] for label in np.unique(labels)
    ]
    rows = np.sort(np.concatenate(chosen))
    return _keras({TRAIN: (images[rows], labels[rows]), TEST: tuple(test)})


def validation_as_test(name: str, data_root: Path, out: Path) -> Arrays:
    """Keras's arrays of a MedMNIST file's training and, as test, validation part; not its test."""
    with np.load(data_root / SETS[name].path, allow_pickle=False) as found:
        return _keras(
            {
                part: (found[f"{own}_images"], found[f"{own}_labels"].ravel())
                for part, own in ((TRAIN, "train"), (TEST, "val"))
            }
        )


def _keras(parts: Mapping[str, tuple[Any, ...]]) -> Arrays:
    """{"x_train", "y_train", "x_test", "y_test"} of each part's images and labels."""
    return {
        f"{letter}_{part}": np.asarray(array)
        for part, arrays in parts.items()
        for letter, array in zip("xy", arrays, strict=True)
    }


# What the column `maker` of sets.csv names: (set, data_root, out) -> arrays to write.
MAKERS: Mapping[str, Callable[[str, Path, Path], Arrays]] = {
    "folds": folds,
    "published": published,
    "published_tuning": published_tuning,
    "tuning": tuning,
    "grouped": grouped,
    "omniglot": omniglot,
    "drawn_tuning": drawn_tuning,
    "draws": draws,
    "draws_tuning": draws_tuning,
    "mnist_part": mnist_part,
    "validation_as_test": validation_as_test,
}
# And where that is a folder: (set, data_root, the folder to fill).
FOLDERS: Mapping[str, Callable[[str, Path, Path], None]] = {"skin7_tuning": skin7_tuning}
