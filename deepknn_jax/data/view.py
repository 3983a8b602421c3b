"""The images that features were made from: where they lie, so that pictures of them can be drawn.

In an .npz of features they are its keys files [N] (paths, below the .npz's folder relative to it,
else absolute), file_stamps int64 [N, 2] (size in bytes, time of modification in ns) and files_read
(how they were decoded, in JSON); or, of what came as arrays, thumbnails uint8 [N, h, w, 1 or 3].
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepknn_jax.errors import UserError
from deepknn_jax.files import parse_json

THUMBNAIL = 64  # longest side in pixels
_READ = ("size", "resize_rule", "channels", "value_range", "frame", "set_range")


class View(NamedTuple):
    """N images: `files`, which `images.read_image` decodes with `how`, or uint8 `thumbnails`.

    `stamps` int64 [N, 2] are size and time of modification that the files had; None: not known.
    """

    files: tuple[Path, ...] = ()
    how: Mapping[str, Any] = {}
    stamps: np.ndarray | None = None
    thumbnails: np.ndarray | None = None

    def images(self, rows_n: np.ndarray) -> np.ndarray:
        """The images uint8 [n, h, w, C] of those rows.

        Raises:
            UserError: a file is gone, was changed since, or cannot be decoded.
        """
        from deepknn_jax.data.images import read_image  # it brings Pillow
        from deepknn_jax.data.walk import open_heic

        if self.thumbnails is not None:
            return self.thumbnails[rows_n]
        open_heic([self.files[row] for row in rows_n])
        found = []
        for row in rows_n.tolist():
            file = self.files[row]
            try:
                stamp = _stamp(file)
                image = read_image(file, **self.how)
            except Exception as error:  # whatever a decoder raises
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                raise UserError(f"{file}: cannot be shown ({reason})") from error
            if self.stamps is not None and stamp != self.stamps[row].tolist():
                raise UserError(f"{file}: was changed since its features were made")
            found.append(image)
        return np.stack(found)


def _stamp(file: Path) -> list[int]:
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]


def to_arrays(view: View, rows_n: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """The keys for an .npz in `folder` that hold the rows `rows_n` of the view."""
    if view.thumbnails is not None:
        return {"thumbnails": view.thumbnails[rows_n]}
    files, root = [view.files[row] for row in rows_n.tolist()], folder.absolute()
    if view.stamps is None:
        stamps = np.asarray([_stamp(file) for file in files])
    else:
        stamps = view.stamps[rows_n]
    return {
        "files": np.asarray([_shown(file.absolute(), root) for file in files]),
        "file_stamps": stamps.astype(np.int64),
        "files_read": np.asarray(json.dumps({key: view.how[key] for key in _READ})),
    }


def _shown(file: Path, root: Path) -> str:
    return os.path.relpath(file, root) if file.is_relative_to(root) else str(file)


def of_arrays(arrays: Mapping[str, np.ndarray], count: int, path: Path) -> View | None:
    """The view that the .npz at `path` of `count` features holds; None where it holds none.

    Raises:
        UserError: its keys do not fit each other, or the features.
    """
    if "thumbnails" in arrays:
        thumbnails = arrays["thumbnails"]
        fits = thumbnails.ndim == 4 and thumbnails.shape[-1] in (1, 3)
        if not fits or thumbnails.dtype != np.uint8 or len(thumbnails) != count:
            raise UserError(f"{path}: thumbnails must be uint8 [{count}, h, w, 1 or 3], not "
                            f"{thumbnails.dtype} {list(thumbnails.shape)}")  # fmt: skip
        return View(thumbnails=thumbnails)
    if "files_read" not in arrays or "files" not in arrays:
        return None
    files, stamps = arrays["files"], arrays.get("file_stamps")
    try:
        read = parse_json(str(arrays["files_read"]))
        how = {key: read[key] for key in _READ}
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path}: files_read is not what --mode=embed writes") from error
    if files.shape != (count,) or (stamps is not None and stamps.shape != (count, 2)):
        raise UserError(f"{path}: {list(files.shape)} files for {count} features")
    root = path.absolute().parent
    return View(tuple(root / str(file) for file in files), how, stamps)


def thumbnails(images_NxHxWxC: np.ndarray) -> np.ndarray:
    """Images uint8 brought to at most THUMBNAIL pixels a side, their aspect kept."""
    from PIL import Image

    count, height, width, channels = images_NxHxWxC.shape
    if max(height, width) <= THUMBNAIL:
        return np.asarray(images_NxHxWxC)
    longest = max(height, width)
    small = tuple(max(1, round(side * THUMBNAIL / longest)) for side in (width, height))
    found = np.empty((count, *small[::-1], channels), np.uint8)
    for i, image in enumerate(images_NxHxWxC):
        whole = Image.fromarray(image[..., 0] if channels == 1 else image)
        found[i] = np.asarray(whole.resize(small)).reshape(found.shape[1:])
    return found
