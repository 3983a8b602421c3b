"""Sources that are arrays: scikit-learn's sets and .npz files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, VALIDATION, Listing
from deepknn_jax.data.levels import tell_left_aside
from deepknn_jax.data.listing import SPLIT_WORDS, checked, index_groups, index_labels
from deepknn_jax.data.npy import PlainError, read_npz
from deepknn_jax.data.view import of_arrays
from deepknn_jax.errors import UserError
from deepknn_jax.logs import say

# For each layout: the part, the key of its inputs, the key of its labels.
NPZ_PARTS = {
    "MedMNIST": (
        (TRAIN, "train_images", "train_labels"),
        (VALIDATION, "val_images", "val_labels"),
        (TEST, "test_images", "test_labels"),
    ),
    "Keras": (
        (TRAIN, "x_train", "y_train"),
        (VALIDATION, "x_val", "y_val"),
        (TEST, "x_test", "y_test"),
    ),
}


def digits() -> Listing:
    """Scikit-learn's handwritten digits: uint8 [1797, 8, 8, 1], 0..16 there scaled to 0..255.

    Source: UCI, Optical Recognition of Handwritten Digits, the test part.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    names = tuple(f"digits/{i:04d}" for i in range(len(images)))
    class_names = tuple(str(name) for name in bunch.target_names)
    return Listing(names, bunch.target.astype(np.int32), class_names, inputs=images)


def breast_cancer() -> Listing:
    """Scikit-learn's Wisconsin breast cancer set: float32 [569, 30], unscaled.

    Source: UCI, Breast Cancer Wisconsin (Diagnostic).
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    names = tuple(f"breast_cancer/{i:03d}" for i in range(len(bunch.data)))
    class_names = tuple(str(name) for name in bunch.target_names)
    inputs = bunch.data.astype(np.float32)
    return Listing(names, bunch.target.astype(np.int32), class_names, inputs=inputs)


def npz(folder: str | Path, *, fold: int = 0, value_range: Sequence[float] = ()) -> Listing:
    """An .npz file (`folder` is its path) in MedMNIST's keys, in Keras's keys, or of features.

    MedMNIST: {train,val,test}_{images,labels}; Keras: x_train, y_train, x_test, y_test. Their split
    is published. Images are [N, H, W] or [N, H, W, 1 or 3], uint8, wider integers, or, with a
    `value_range`, floats: what is no uint8 yet is scaled once the split is known. A 2-D array is
    features.
    Features: features (or embeddings) [N, F], or [N, V, F] of V views of each, labels [N], and, if
    they like, names [N], splits [N], groups [N], and classes [C], which labels then index; and the
    images that they are of, as `data.view` has it. Features stay float64 where they are: a large
    offset, as that of POSIX seconds, would take all of float32's digits. Labels are [N] or [N, 1].
    Of splits [N, S] `fold`, 1..S, chooses the column; 0: no split, which is told.

    Raises:
        UserError: no such file, other keys, Python objects inside (they are never unpickled),
            arrays of other shapes or types, no such fold, or a range for features.
    """
    if not str(folder):
        raise UserError("no .npz file given: set `folder` to it")
    path = Path(folder).expanduser()
    arrays = _read_npz(path)
    listing = _listed(path, arrays, fold, ranged=len(value_range) > 0)
    assert listing.inputs is not None
    if fold and (listing.inputs.ndim == 4 or "splits" not in arrays):
        raise UserError(f"`fold` is set, but {path} holds no features with splits [N, S] to "
                        "choose from; leave it out")  # fmt: skip
    if len(value_range) and listing.inputs.ndim < 4:
        raise UserError(f"{path}: holds feature vectors, which have no use for `value_range`; "
                        "leave it out")  # fmt: skip
    if len(value_range) and listing.inputs.dtype == np.uint8:
        tell_left_aside()
    return listing


def _listed(path: Path, arrays: dict[str, np.ndarray], fold: int, *, ranged: bool) -> Listing:
    """The listing of the arrays, by whose keys they have."""
    for parts in NPZ_PARTS.values():
        if parts[0][1] in arrays:
            return _from_parts(path, arrays, parts, ranged=ranged)
    for key in ("features", "embeddings"):
        if key in arrays:
            return _from_features(path, arrays, key, fold)
    raise UserError(
        f"{path}: has keys {', '.join(arrays)}; wanted are train_images (MedMNIST), x_train "
        "(Keras) or features, each with its labels"
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; set `folder` to an .npz file")
    try:
        return read_npz(path)
    except PlainError as error:
        raise UserError(f"{path}: {error} holds Python objects; save a plain array") from error
    except MemoryError as error:
        raise UserError(f"{path}: its arrays (`folder`) want more memory than there is") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is not a sound .npz file (`folder`): copy or save it anew"
                        ) from error  # fmt: skip


def _from_parts(
    path: Path,
    arrays: dict[str, np.ndarray],
    parts: tuple[tuple[str, str, str], ...],
    *,
    ranged: bool,
) -> Listing:
    inputs, labels, names, splits = [], [], [], []
    for split, input_key, label_key in parts:
        if input_key not in arrays and split == VALIDATION:
            continue
        for key in (input_key, label_key):
            if key not in arrays:
                raise UserError(f"{path}: has no {key}; it has: {', '.join(arrays)}")
        inputs.append(_inputs(path, input_key, arrays[input_key], ranged=ranged))
        labels.append(_labels(path, label_key, arrays[label_key]))
        n = len(inputs[-1])
        if len(labels[-1]) != n:
            raise UserError(f"{path}: {n} {input_key} but {len(labels[-1])} {label_key}; save one "
                            "label for each")  # fmt: skip
        if inputs[-1].shape[1:] != inputs[0].shape[1:]:
            raise UserError(
                f"{path}: {input_key} are {inputs[-1].shape[1:]}, but {parts[0][1]} "
                f"{inputs[0].shape[1:]}: bring all parts to one shape"
            )
        if (inputs[-1].dtype == np.uint8) != (inputs[0].dtype == np.uint8):
            raise UserError(f"{path}: {input_key} are {inputs[-1].dtype}, but {parts[0][1]} "
                            f"{inputs[0].dtype}: save all parts in one type")  # fmt: skip
        names += [f"{split}/{i:05d}" for i in range(n)]
        splits += [split] * n
    indexed, class_names = index_labels(np.concatenate(labels))
    listing = Listing(tuple(names), indexed, class_names, inputs=np.concatenate(inputs),
                      splits=np.asarray(splits))  # fmt: skip
    return checked(listing, path)


def _from_features(path: Path, arrays: dict[str, np.ndarray], key: str, fold: int) -> Listing:
    if "labels" not in arrays:
        raise UserError(f"{path}: has {key} but no labels; it has: {', '.join(arrays)}")
    features = arrays[key]
    are_images = features.ndim == 3 and features.dtype == np.uint8
    if features.ndim not in (2, 3) or 0 in features.shape[1:] or are_images:
        raise UserError(f"{path}: {key} must be [N, F], or [N, V, F] of V views, not "
                        f"{features.dtype} {list(features.shape)}")  # fmt: skip
    if features.dtype.kind not in "fiu":
        raise UserError(f"{path}: {key} must be numbers, not {features.dtype}")
    features = as_features(features)
    labels = _labels(path, "labels", arrays["labels"])
    if "classes" in arrays:
        class_names = _words(path, arrays, "classes")
        if labels.dtype.kind not in "iu":
            raise UserError(f"{path}: labels must be integers that index classes")
        outside = (labels < 0) | (labels >= len(class_names))  # before any is cut to int32
        if outside.any():
            raise UserError(
                f"{path}: label {labels[outside][0]} is outside the {len(class_names)} classes"
            )
        labels = labels.astype(np.int32)
    else:
        labels, class_names = index_labels(labels)
    known = {"names": np.arange(len(features))} | arrays
    names = _words(path, known, "names")
    splits = _fold(path, arrays["splits"], fold) if "splits" in arrays else None
    groups = index_groups(_words(path, arrays, "groups")) if "groups" in arrays else None
    listing = Listing(
        names, labels, class_names, inputs=features, splits=splits, groups=groups,
        view=of_arrays(arrays, len(features), path),
        contents=_bytes_of_rows(arrays.get("contents")), trained=arrays.get("trained"),
    )  # fmt: skip
    return checked(listing, path)


def _words(path: Path, arrays: Mapping[str, np.ndarray], key: str) -> tuple[str, ...]:
    """An array [N] of strings or numbers as N strings."""
    array = arrays[key]
    if array.ndim != 1:
        raise UserError(f"{path}: {key} must be [N], not {list(array.shape)}")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return tuple(str(word) for word in array)


def _bytes_of_rows(array: np.ndarray | None) -> np.ndarray | None:
    """Digests uint8 [N, L] that report.write_embeddings wrote, not what another file calls so."""
    return array if array is not None and array.dtype == np.uint8 and array.ndim == 2 else None


def _fold(path: Path, splits: np.ndarray, fold: int) -> np.ndarray | None:
    """The only split [N], which fold 0 and 1 mean, or of several, [N, S], that of `fold`."""
    if splits.ndim not in (1, 2):
        raise UserError(f"{path}: splits must be [N] or [N, S], not {list(splits.shape)}")
    count = splits.shape[1] if splits.ndim == 2 else 1
    if fold > count:
        raise UserError(f"{path}: `fold` is {fold}: choose one of its splits, 1..{count}")
    if splits.ndim == 2:
        if fold == 0 and count != 1:
            say(f"not used: the {count} splits of {path.name}: `fold`, 1..{count}, chooses one")
            return None
        splits = splits[:, fold - 1 if fold else 0]
    words = [word.lower() for word in _words(path, {"splits": splits}, "splits")]
    if unknown := set(words) - set(SPLIT_WORDS):
        raise UserError(f"{path}: split {min(unknown)!r}; use train, validation or test")
    return np.asarray([SPLIT_WORDS[word] for word in words])


def _inputs(path: Path, key: str, array: np.ndarray, *, ranged: bool = True) -> np.ndarray:
    """Images [N, H, W, C] or features float32 or float64 [N, F] of an array as found.

    `ranged`: floats are images, too, since their range is given.
    """
    if array.ndim == 2:
        if array.dtype.kind not in "fiu":
            raise UserError(f"{path}: {key} must be numbers, not {array.dtype}")
        return as_features(array)
    images = array[..., None] if array.ndim == 3 else array
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{path}: {key} must be [N, H, W] or [N, H, W, 1 or 3], not {list(array.shape)}; "
            "colours come last: transpose and save it anew"
        )
    if images.dtype.kind not in "iuf" or (images.dtype.kind == "f" and not ranged):
        remedy = "; set `value_range` to their (low, high)" if images.dtype.kind == "f" else ""
        raise UserError(f"{path}: {key} must be uint8 images (0..255) or of wider integers, not "
                        f"{array.dtype}{remedy}")  # fmt: skip
    return images


def as_features(features: np.ndarray) -> np.ndarray:
    """Numbers as float32 where that holds them all exactly, else as float64."""
    exact = np.can_cast(features.dtype, np.float32)
    return features.astype(np.float32 if exact else np.float64)


def _labels(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """Labels [N] of integers or strings."""
    labels = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if labels.ndim != 1:
        raise UserError(f"{path}: {key} must be [N] or [N, 1], one label each, not "
                        f"{list(array.shape)}; of a column a class save the argmax")  # fmt: skip
    if labels.dtype.kind == "b":
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "f" and (labels == np.rint(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iuU":
        raise UserError(
            f"{path}: {key} must be integers or strings, not {labels.dtype}; save it so"
        )
    return labels
