"""What is asked of a trained run: files, a folder, a csv, an .npz or arrays, read in blocks."""

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from deepknn_jax.answers.network import Form, fits
from deepknn_jax.answers.thumbnails import LARGE, SIDE, encode, encode_array, open_scaled
from deepknn_jax.data.cache import threads
from deepknn_jax.data.images import fit_array, fit_image
from deepknn_jax.data.levels import scale_arrays
from deepknn_jax.data.listing import read_header, read_table
from deepknn_jax.data.npy import read_npz
from deepknn_jax.data.walk import heic_is_read, open_heic, walk
from deepknn_jax.errors import UserError
from deepknn_jax.files import sound

BLOCK = 512  # images that are read and answered at a time
# Keys of an .npz, the first that is there; MedMNIST's and Keras's give their test part.
_KEYS = {
    "images": ("images", "test_images", "x_test"),
    "volumes": ("volumes", "images"),
    "feature vectors": ("features", "test_images", "x_test"),
}
_LABELS = {"test_images": "test_labels", "x_test": "y_test"}


Images = str | Path | Sequence[str | Path] | np.ndarray


class Questions(NamedTuple):
    """n images that are asked about: `files` [n] or `arrays` [n, ...], and what is known of them.

    `names` [n]; `labels` [n], the classes' names as they stand, None where none is known; `groups`
    [n], patients or lesions, likewise, or None where nothing is known of them.
    """

    names: tuple[str, ...]
    labels: tuple[str | None, ...]
    files: tuple[Path, ...] | None = None
    arrays: np.ndarray | None = None
    groups: tuple[str | None, ...] | None = None


class Block(NamedTuple):
    """Some of the questions, read: those at `rows` int [m], as `inputs` [m, ...] of the network.

    `thumbnails` are their pictures as WebP, empty where there are none; `errors` {row: reason} of
    the others.
    """

    rows: np.ndarray
    inputs: np.ndarray
    thumbnails: tuple[bytes, ...]
    errors: dict[int, str]


def questions(
    images: Images,
    form: Form,
    classes: Sequence[str],
    *,
    image_column: str = "image",
    label_column: str = "label",
    group_column: str = "group",
) -> Questions:
    """What `images` are: nothing is decoded yet.

    Args:
        images: a path to an image file, to a folder (images at any depth), to a csv (its columns
            `image_column`, relative to it, and where they are there `label_column` and
            `group_column`), or to an .npz; several paths of files; an array uint8 [n, H, W, C], or
            of features [n, F] or [n, V, F].
        form: of the model's inputs.
        classes: the model's. The label of an image in a folder is the nearest of the folders it
            lies in that is called like one of them.

    Raises:
        UserError: there is nothing there, or not what the model takes.
    """
    if isinstance(images, np.ndarray):
        names = tuple(f"{i:05d}" for i in range(len(images)))
        return Questions(names, (None,) * len(names), arrays=as_inputs(images, form, "`images`"))
    if not isinstance(images, str | Path):
        files = tuple(Path(file).expanduser() for file in images)
        return _files(tuple(map(str, images)), files, (None,) * len(files), form)
    path = Path(images).expanduser()
    if path.is_dir():
        return _folder(path, form, classes)
    if not path.is_file():
        raise UserError(f"{path}: no such file or folder (`images`)")
    if path.suffix.lower() == ".csv":
        return _table(path, form, image_column, (label_column, group_column))
    if path.suffix.lower() == ".npz":
        return _npz(path, form, classes)
    return _files((path.name,), (path,), (None,), form)


def _files(
    names: tuple[str, ...],
    files: tuple[Path, ...],
    labels: tuple[str | None, ...],
    form: Form,
) -> Questions:
    if form.kind != "images":
        raise UserError(f"the run was trained on {form.kind}: give `images` as an .npz of them, not"
                        " as image files")  # fmt: skip
    return Questions(tuple(map(sound, names)), labels, files=files)


def _folder(root: Path, form: Form, classes: Sequence[str]) -> Questions:
    files = walk(root).files
    if not files:
        raise UserError(f"{root}: holds no images (`images`)")
    known, names, labels = set(classes), [], []
    for file in files:
        inside = file.relative_to(root)
        names.append(inside.as_posix())
        labels.append(next((part for part in reversed(inside.parts[:-1]) if part in known), None))
    return _files(tuple(names), files, tuple(labels), form)


def _table(path: Path, form: Form, image_column: str, beside: tuple[str, str]) -> Questions:
    label_column, group_column = beside
    header = read_header(path, (image_column,))
    columns = (image_column, *(column for column in beside if column in header))
    options = {image_column: "image_column", label_column: "label_column",
               group_column: "group_column"}  # fmt: skip
    table = read_table(path, columns, options).columns
    names = tuple(table[image_column])
    if not names:
        raise UserError(f"{path}: has no rows (`images`)")
    labels, groups = (
        tuple(word or None for word in table[column]) if column in columns else None
        for column in beside
    )
    files = tuple(path.parent / name for name in names)
    return _files(names, files, labels or (None,) * len(names), form)._replace(groups=groups)


def _npz(path: Path, form: Form, classes: Sequence[str]) -> Questions:
    try:
        arrays = read_npz(path)
    except (OSError, ValueError, MemoryError) as error:
        raise UserError(f"{path}: is not a sound .npz file of plain arrays ({error})") from error
    keys = (*(("features",) if form.features else ()), *_KEYS[form.kind])
    key = next((key for key in keys if key in arrays), "")
    if not key:
        raise UserError(f"{path}: has keys {', '.join(arrays)}; wanted is one of "
                        f"{', '.join(dict.fromkeys(keys))}")  # fmt: skip
    inputs = as_inputs(arrays[key], form, f"{path}: {key}")
    names = tuple(map(str, arrays.get("names", [f"{i:05d}" for i in range(len(inputs))])))
    labels = _words(arrays.get(_LABELS.get(key, "labels")), arrays.get("classes", classes))
    groups = tuple(map(str, np.ravel(arrays["groups"]).tolist())) if "groups" in arrays else None
    found = Questions(names, labels or (None,) * len(names), arrays=inputs, groups=groups)
    if groups is not None and len(groups) != len(inputs):
        raise UserError(f"{path}: {len(inputs)} {key} and {len(groups)} groups; there must be as"
                        " many")  # fmt: skip
    if not len(names) == len(found.labels) == len(inputs) or not names:
        raise UserError(f"{path}: {len(inputs)} {key}, {len(names)} names and {len(found.labels)} "
                        "labels; there must be as many, and one at least")  # fmt: skip
    return found


def _words(
    labels: np.ndarray | None, classes: np.ndarray | Sequence[str]
) -> tuple[str | None, ...]:
    """Labels as class names: integers are either the names themselves or indices of `classes`."""
    if labels is None:
        return ()
    words = [str(label) for label in np.asarray(labels).reshape(-1).tolist()]
    names = [str(name) for name in classes]
    if set(words) <= set(names):
        return tuple(words)
    with contextlib.suppress(ValueError, IndexError):
        return tuple(names[int(word)] for word in words)
    return tuple(words)


def as_inputs(array: np.ndarray, form: Form, where: str) -> np.ndarray:
    """An array as the model stores its inputs; `where` names it in messages.

    Images of another size or number of channels are fitted, grey values of more than 8 bits scaled,
    as those of the run were.

    Raises:
        UserError: it cannot be made such.
    """
    array = np.asarray(array)
    may_be = array.ndim == 2 or (array.ndim == 3 and array.shape[1:] != form.shape[:2])
    own_length = may_be and array.shape[-1] == form.features
    if form.features and (own_length or (array.ndim == 2 and form.kind == "images")):
        form = Form("feature vectors", (form.features,))
    if form.kind == "feature vectors":
        if not fits(array.shape[1:], form) or array.dtype.kind not in "fiu":
            raise UserError(f"{where}: {array.dtype} {list(array.shape)}, but the run was trained "
                            f"on features [n, {form.shape[-1]}]")  # fmt: skip
        if not np.isfinite(array).all():
            raise UserError(f"{where}: holds NaN or infinity")
        return array
    if form.kind == "images" and array.ndim == 3:
        array = array[..., None]
    if array.ndim != len(form.shape) + 1 or array.dtype.kind not in "iuf":
        raise UserError(f"{where}: {array.dtype} {list(array.shape)}, but the run was trained on "
                        f"{form.kind} of {' x '.join(map(str, form.shape))}")  # fmt: skip
    if array.dtype != np.uint8 and not (form.value_range or form.set_range):
        raise UserError(f"{where}: {array.dtype}, but the run was trained on images of 8 bits: "
                        "convert them to uint8")  # fmt: skip
    scaled, _ = scale_arrays(
        array, training=np.arange(1), value_range=form.value_range, set_range=form.set_range
    )
    if scaled.shape[1:] == form.shape or form.kind != "images":
        return scaled
    return np.stack([_fit(image, form) for image in scaled])


def _fit(image: np.ndarray, form: Form) -> np.ndarray:
    if not form.size or image.shape[-1] not in (1, 3):
        raise UserError(f"images of {' x '.join(map(str, image.shape))}, but the run was trained on"
                        f" {' x '.join(map(str, form.shape))}")  # fmt: skip
    return fit_array(image, size=form.size, resize_rule=form.resize_rule, channels=form.channels)


def blocks(asked: Questions, form: Form) -> Iterator[Block]:
    """The questions in their order, at most BLOCK at a time; only so many are in memory."""
    n = len(asked.names)
    for start in range(0, n, BLOCK):
        rows = np.arange(start, min(start + BLOCK, n))
        if asked.arrays is not None:
            inputs = asked.arrays[rows]
            shown = tuple(encode_array(x) for x in inputs) if inputs.ndim == 4 else ()
            yield Block(rows, inputs, shown or (b"",) * len(rows), {})
        else:
            assert asked.files is not None
            yield _read(rows, [asked.files[row] for row in rows], form)


def one_block(asked: Questions, row: int, form: Form) -> Block:
    """One of the questions, read, with a picture as large as can be looked at alone."""
    rows = np.array([row])
    if asked.files is not None:
        return _read(rows, [asked.files[row]], form, side=LARGE)
    alone = asked._replace(names=("",), arrays=None if asked.arrays is None else asked.arrays[rows])
    return next(blocks(alone, form))._replace(rows=rows)


def _read(rows: np.ndarray, files: Sequence[Path], form: Form, side: int = SIDE) -> Block:
    if heic_is_read():
        open_heic(files)

    def one(file: Path) -> tuple[np.ndarray, bytes] | str:
        try:
            return read_file(file, form, side)
        except Exception as error:  # whatever a decoder raises
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return sound(" ".join(str(reason).split()))

    with ThreadPoolExecutor(threads()) as pool:
        found = list(pool.map(one, files))
    there = [i for i, each in enumerate(found) if not isinstance(each, str)]
    pairs: list[Any] = [found[i] for i in there]
    inputs = np.stack([pixels for pixels, _ in pairs]) if pairs else np.zeros((0, *form.shape))
    errors = {int(rows[i]): each for i, each in enumerate(found) if isinstance(each, str)}
    return Block(rows[there], inputs.astype(np.uint8), tuple(shown for _, shown in pairs), errors)


def read_file(file: Path, form: Form, side: int = SIDE) -> tuple[np.ndarray, bytes]:
    """The input uint8 [H, W, C] that the network takes of an image file, and its thumbnail.

    That is `side` pixels long at most.

    Raises:
        Exception: as `data.images.read_image`; UserError for a form that the run did not know.
    """
    how = {"value_range": form.value_range, "set_range": form.set_range, "frame": form.frame}
    try:
        image = open_scaled(file, how)
    except UserError as error:  # its remedy would be an option of the training
        raise ValueError("its pixels are floats or have more than 8 bits, and no range is known: "
                         "the run was trained on others; convert it to 8 bits"
                         ) from error  # fmt: skip
    return _fitted(image, form), encode(image, side)


def _fitted(image: Image.Image, form: Form) -> np.ndarray:
    if form.size:
        return fit_image(
            image, size=form.size, resize_rule=form.resize_rule, channels=form.channels
        )
    pixels = np.asarray(image.convert("L" if form.channels == 1 else "RGB"))
    height, width = form.shape[:2]
    if pixels.shape[:2] != (height, width):
        raise ValueError(f"is {pixels.shape[0]} x {pixels.shape[1]} pixels, but the run was trained"
                         f" on {height} x {width}")  # fmt: skip
    return pixels.reshape(form.shape)
