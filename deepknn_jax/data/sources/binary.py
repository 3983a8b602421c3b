"""Sets of small images in binary files of their own: MNIST, CIFAR-10, STL-10."""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.levels import tell_left_aside
from deepknn_jax.data.listing import checked, existing_folder, read_fields
from deepknn_jax.data.sources.arrays import npz
from deepknn_jax.errors import UserError

# Split, and what the part's files are called: images, labels.
MNIST_PARTS = (
    (TRAIN, "train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    (TEST, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
# No file is packed by gzip to a smaller part of itself.
_MOST_PACKED = 1100
CIFAR10_FILES = {TRAIN: [f"data_batch_{i}.bin" for i in range(1, 6)], TEST: ["test_batch.bin"]}


def mnist(folder: str | Path, *, value_range: Sequence[float] = ()) -> Listing:
    """MNIST, 60,000 / 10,000, or a set in its form: Keras's .npz file, or a folder of idx files.

    A folder holds {train,t10k}-{images-idx3,labels-idx1}-ubyte, with .gz or without. `value_range`
    is for an .npz file whose images are no uint8, see `npz`.

    Raises:
        UserError: no such file or folder, or one that is not sound.
    """
    if not str(folder) or Path(folder).suffix == ".npz":
        return npz(folder, value_range=value_range)
    layout = ", ".join(f"{name}[.gz]" for part in MNIST_PARTS for name in part[1:])
    root = existing_folder(folder, f"{layout} (or give Keras's mnist.npz)")
    parts = []
    for split, *names in MNIST_PARTS:
        files = [next((root / n for n in (name, f"{name}.gz") if (root / n).is_file()), None)
                 for name in names]  # fmt: skip
        if None in files:
            raise UserError(f"{root}: holds no {names[files.index(None)]}[.gz]; wanted: {layout}")
        images, labels = (_read_idx(file) for file in files if file)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise UserError(f"{files[1]}: has labels {list(labels.shape)} for images "
                            f"{list(images.shape)}; give the pair of one part")  # fmt: skip
        parts.append((split, images[..., None], labels))
    if len(value_range):
        tell_left_aside()
    classes = 1 + max(int(labels.max(initial=0)) for _, _, labels in parts)
    return _joined(parts, [str(c) for c in range(classes)], root)


def _read_idx(path: Path) -> np.ndarray:
    """The uint8 array of an idx file: 0, 0, 8, rank, the sizes as big-endian int32, the bytes.

    No more is unpacked than the sizes ask for, and nothing where the file cannot hold so much.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4)
            rank = head[3] if head[:3] == b"\0\0\x08" and len(head) > 3 else 0
            sizes = file.read(4 * rank)
            shape = [int.from_bytes(sizes[i : i + 4]) for i in range(0, len(sizes), 4)]
            count = math.prod(shape)
            held = path.stat().st_size * (_MOST_PACKED if path.suffix == ".gz" else 1)
            fits = len(sizes) == 4 * rank and 1 <= rank <= 3 and 0 < count <= held
            data = file.read(count + 1) if fits else b""
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}; copy it anew") from error
    except MemoryError as error:
        raise UserError(f"{path}: wants more memory than there is") from error
    if not fits or len(data) != count:
        raise UserError(f"{path}: is not a sound idx file of bytes: copy it anew")
    return np.frombuffer(data, np.uint8).reshape(shape)


def cifar10(folder: str | Path) -> Listing:
    """CIFAR-10, binary version, 50,000 / 10,000: uint8 [60000, 32, 32, 3].

    `folder` is cifar-10-batches-bin/ or what holds it: data_batch_{1..5}.bin, test_batch.bin (a
    row: the label, then 32 x 32 red, green and blue values) and batches.meta.txt. The Python
    version consists of pickles, which could run code and are not read.

    Raises:
        UserError: any of these is missing or damaged.
    """
    layout = "data_batch_{1..5}.bin, test_batch.bin and batches.meta.txt (the binary version)"
    root = existing_folder(folder, layout)
    inside = root / "cifar-10-batches-bin"
    needed = (*CIFAR10_FILES[TRAIN], *CIFAR10_FILES[TEST], "batches.meta.txt")
    root = existing_folder(inside if inside.is_dir() else root, layout, needed)
    parts = []
    for split, names in CIFAR10_FILES.items():
        rows = np.concatenate([_read_rows(root / name, 1 + 3 * 32 * 32) for name in names])
        parts.append((split, rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]))
    class_names = [row[0] for row in read_fields(root / "batches.meta.txt", 1)]
    return _joined(parts, class_names, root)


def stl10(folder: str | Path) -> Listing:
    """STL-10, 5,000 / 8,000: uint8 [13000, 96, 96, 3]. The unlabelled images are not used.

    `folder` is stl10_binary/ or what holds it: {train,test}_X.bin (channels first, each column
    after column), {train,test}_y.bin (labels from 1) and class_names.txt.

    Raises:
        UserError: any of these is missing or damaged.
    """
    files = ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "class_names.txt")
    root = existing_folder(folder, ", ".join(files))
    inside = root / "stl10_binary"
    root = existing_folder(inside if inside.is_dir() else root, ", ".join(files), files)
    parts = []
    for split in (TRAIN, TEST):
        columns = _read_rows(root / f"{split}_X.bin", 3 * 96 * 96).reshape(-1, 3, 96, 96)
        labels = _read_rows(root / f"{split}_y.bin", 1)[:, 0].astype(np.int32) - 1
        if len(labels) != len(columns):
            raise UserError(f"{root}: {len(labels)} {split} labels for {len(columns)} images; "
                            "copy both files anew")  # fmt: skip
        parts.append((split, columns.transpose(0, 3, 2, 1), labels))
    class_names = [row[0] for row in read_fields(root / "class_names.txt", 1)]
    return _joined(parts, class_names, root)


def _read_rows(path: Path, length: int) -> np.ndarray:
    """A file of bytes as uint8 [N, length]."""
    data = np.fromfile(path, np.uint8)
    if not len(data) or len(data) % length:
        raise UserError(f"{path}: {len(data)} bytes are not a number of rows of {length}; "
                        "copy it anew")  # fmt: skip
    return data.reshape(-1, length)


def _joined(
    parts: Sequence[tuple[str, np.ndarray, np.ndarray]], class_names: Sequence[str], where: Path
) -> Listing:
    """The listing of (split, images [n, H, W, C], labels [n]) one after the other.

    Raises:
        UserError: the parts' images differ in size; as `checked`.
    """
    sizes = [images.shape[1:3] for _, images, _ in parts]
    if len(set(sizes)) > 1:
        told = ", ".join(f"{part[0]} {h} x {w}" for part, (h, w) in zip(parts, sizes, strict=True))
        raise UserError(f"{where}: images differ in size ({told}); give the parts of one set")
    listing = Listing(
        tuple(f"{split}/{i:05d}" for split, images, _ in parts for i in range(len(images))),
        np.concatenate([labels for _, _, labels in parts]).astype(np.int32),
        tuple(class_names),
        inputs=np.concatenate([images for _, images, _ in parts]),
        splits=np.concatenate([np.full(len(images), split) for split, images, _ in parts]),
    )
    return checked(listing, where)
