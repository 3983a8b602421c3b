"""Sound data sets of every reader, one file of which is to be damaged, and what reads each."""

import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from campaign import lies
from campaign.mutations import Draw, damaged, hostile_json, hostile_table
from PIL import Image
from support import tiny_sets
from support.pickles import MAKE, NUMBERS, VIEW, state, storage, tensor
from support.tiffs import save_tiff

from deepknn_jax.data.load import load_dataset
from deepknn_jax.data.survival import read_survival_csv
from deepknn_jax.models.weights.torch_files import read_tensors
from deepknn_jax.trainer import inherited, run_folder

Damage = Callable[[bytes, Draw], tuple[str, bytes]]


class Kind(NamedTuple):
    """A sound folder's maker, the files to be damaged in it, how, and what reads the folder."""

    make: Callable[[Path], None]
    files: str  # a pattern; one of those found is damaged
    damage: Damage
    read: Callable[[Draw], object]


def of_text(hostile: Callable[[str, Draw], tuple[str, bytes]]) -> Damage:
    return lambda data, draw: hostile(data.decode(), draw)


TABLE, JSON = of_text(hostile_table), of_text(hostile_json)


def loaded(source: str, **options: Any) -> Callable[..., None]:
    """Reads a data set, as a run does, and looks at each of its numbers."""

    def read(draw: Draw, root: Path = Path()) -> None:
        wanted = {"folder": root / "set", "cache_dir": root / "cache", **options}
        if draw.random() < 0.3:
            wanted["on_error"] = "skip"
        dataset = load_dataset(source, **wanted)
        n = len(dataset.labels)
        assert n == len(dataset.inputs) == len(dataset.names) == len(dataset.splits)
        assert 0 <= dataset.labels.min() <= dataset.labels.max() < len(dataset.class_names)
        assert np.isfinite(np.asarray(dataset.inputs, np.float32)).all()

    return read


def pixels(i: int, *shape: int, dtype: Any = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(i)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)


def images(save: Callable[[Path, int], None], suffix: str) -> Callable[[Path], None]:
    """Class folders a and b of six images each."""

    def make(folder: Path) -> None:
        for i in range(12):
            path = folder / "set" / "ab"[i % 2] / f"{i:02d}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            save(path, i)

    return make


def by_pillow(mode: str, **options: Any) -> Callable[[Path, int], None]:
    def save(path: Path, i: int) -> None:
        wide = mode.startswith("I;16")
        if wide or mode == "F":
            array = pixels(i, 24, 20, dtype=np.uint16 if wide else np.float32)
            Image.fromarray(array).save(path, **options)
        else:
            Image.fromarray(pixels(i, 24, 20, 3)).convert(mode).save(path, **options)

    return save


def pages(path: Path, i: int) -> None:
    frames = [Image.fromarray(pixels(i + 50 * j, 24, 20)) for j in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def by_dicom(dtype: Any, **options: Any) -> Callable[[Path, int], None]:
    def save(path: Path, i: int) -> None:
        bits = 8 * np.dtype(dtype).itemsize
        tiny_sets.save_dicom(path, pixels(i, 24, 20, dtype=dtype), bits=bits, **options)

    return save


def jpeg_dicom(path: Path, i: int) -> None:
    from pydicom.uid import JPEGBaseline8Bit

    buffer = io.BytesIO()
    Image.fromarray(pixels(i, 24, 20)).save(buffer, "JPEG")
    tiny_sets.save_dicom(path, pixels(i, 24, 20), syntax=JPEGBaseline8Bit, data=buffer.getvalue())


def frames_dicom(path: Path, i: int) -> None:
    stored = pixels(i, 72, 20, dtype=np.uint16)
    tiny_sets.save_dicom(path, stored, bits=16, Rows=24, NumberOfFrames=3)


IMAGES: dict[str, tuple[Callable[[Path, int], None], str, dict[str, Any]]] = {
    "png RGB": (by_pillow("RGB"), ".png", {}),
    "png RGBA": (by_pillow("RGBA"), ".png", {}),
    "png palette": (by_pillow("P"), ".png", {}),
    "png 1 bit": (by_pillow("1"), ".png", {}),
    "png 16 bits": (by_pillow("I;16"), ".png", {}),
    "jpeg": (by_pillow("RGB"), ".jpg", {}),
    "jpeg progressive": (by_pillow("RGB", progressive=True), ".jpg", {}),
    "jpeg CMYK": (by_pillow("CMYK"), ".jpeg", {}),
    "gif": (by_pillow("P"), ".gif", {}),
    "bmp": (by_pillow("RGB"), ".bmp", {}),
    "webp": (by_pillow("RGB"), ".webp", {}),
    "ppm": (by_pillow("RGB"), ".ppm", {}),
    "pgm 16 bits": (by_pillow("I;16"), ".pgm", {}),
    "tiff": (by_pillow("RGB"), ".tif", {}),
    "tiff LZW": (by_pillow("RGB", compression="tiff_lzw"), ".tif", {}),
    "tiff deflate": (by_pillow("L", compression="tiff_adobe_deflate"), ".tiff", {}),
    "tiff JPEG": (by_pillow("RGB", compression="jpeg"), ".tiff", {}),
    "tiff float": (by_pillow("F"), ".tif", {"value_range": (-2.0, 2.0)}),
    "tiff 16 bits": (lambda p, i: save_tiff(p, pixels(i, 24, 20, dtype=np.uint16)), ".tif", {}),
    "tiff pages": (pages, ".tif", {"frame": "middle"}),
    "npy": (lambda p, i: np.save(p, pixels(i, 24, 20, 3)), ".npy", {}),
    "npy float": (lambda p, i: np.save(p, pixels(i, 24, 20, dtype=np.float64)), ".npy",
                  {"value_range": (-2.0, 2.0)}),
    "dicom": (by_dicom(np.uint8), ".dcm", {}),
    "dicom 16 bits": (by_dicom(np.uint16, RescaleSlope="2", RescaleIntercept="-1024"), ".dcm", {}),
    "dicom window": (by_dicom(np.uint16, WindowCenter="900", WindowWidth="500"), ".dcm", {}),
    "dicom palette": (by_dicom(np.uint8, PhotometricInterpretation="PALETTE COLOR",
                      RedPaletteColorLookupTableDescriptor=[256, 0, 8],
                      GreenPaletteColorLookupTableDescriptor=[256, 0, 8],
                      BluePaletteColorLookupTableDescriptor=[256, 0, 8],
                      RedPaletteColorLookupTableData=bytes(range(256)),
                      GreenPaletteColorLookupTableData=bytes(256),
                      BluePaletteColorLookupTableData=bytes(range(256))), ".dcm", {}),
    "dicom JPEG": (jpeg_dicom, ".dcm", {}),
    "dicom frames": (frames_dicom, ".dcm", {"frame": "1"}),
}  # fmt: skip


def npz_of(keys: str, **packing: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        x, y = pixels(0, 40, 8, 8), np.arange(40) % 3
        arrays = {
            "keras": {"x_train": x[:30], "y_train": y[:30], "x_test": x[30:], "y_test": y[30:]},
            "medmnist": {f"{part}_{what}": a[rows] for part, rows in
                         (("train", slice(24)), ("val", slice(24, 32)), ("test", slice(32, 40)))
                         for what, a in (("images", x), ("labels", y[:, None]))},
            "features": {"features": pixels(1, 40, 6, dtype=np.float64), "labels": y,
                         "names": [f"n{i}" for i in range(40)], "classes": list("abc"),
                         "splits": ["test" if i % 4 == 0 else "train" for i in range(40)],
                         "groups": np.arange(40) // 2, "thumbnails": x[..., None]},
        }[keys]  # fmt: skip
        save = np.savez_compressed if packing.get("packed") else np.savez
        save(folder / "set.npz", **arrays)

    return make


def csv_images(folder: Path) -> None:
    rows = [("image", "label", "patient", "part")]
    for i in range(16):
        tiny_sets.save_image(folder / "set" / "images" / f"{i}.png", i % 2)
        part = ("train", "train", "val", "test")[i // 2 % 4]
        rows.append((f"images/{i}.png", "ab"[i % 2], f"p{i // 2}", part))
    tiny_sets.write_rows(folder / "set" / "set.csv", rows)


def hot_images(folder: Path) -> None:
    csv_images(folder)
    rows = [
        ("image", "mel", "nv"),
        *((f"images/{i}", 1.0 * (i % 2), 1.0 - i % 2) for i in range(16)),
    ]
    tiny_sets.write_rows(folder / "set" / "set.csv", rows)


def idx(folder: Path) -> None:
    (folder / "set").mkdir()
    for part, n in (("train", 40), ("t10k", 10)):
        for what, array in (("images-idx3", pixels(n, n, 8, 8)),
                            ("labels-idx1", np.arange(n, dtype=np.uint8) % 3)):  # fmt: skip
            head = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">i4").tobytes()
            data, name = head + array.tobytes(), f"{part}-{what}-ubyte"
            if what == "images-idx3":
                data, name = gzip.compress(data), name + ".gz"
            (folder / "set" / name).write_bytes(data)


def survival(folder: Path) -> None:
    tiny_sets.survival_csv(folder / "set", tiny_sets.survival_rows())


def read_survival(draw: Draw) -> None:
    read_survival_csv("set/set.csv", feature_prefixes=("ct_",), **tiny_sets.SURVIVAL_COLUMNS)


def torch_file(form: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        body = state({"conv.weight": tensor(of=storage("0", "torch.FloatStorage", 6, *VIEW[form]))})
        (folder / "weights.pth").write_bytes(MAKE[form](body))

    return make


def safetensors(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file(
        {"a.weight": NUMBERS, "b.bias": NUMBERS.reshape(2, 3)}, folder / "weights.safetensors"
    )


def weights(name: str) -> Callable[[Draw], None]:
    def read(draw: Draw) -> None:
        for array in read_tensors(Path(name)).values():
            assert array.flags.writeable
            array.sum()

    return read


def read_run(draw: Draw) -> None:
    """What a training that starts from the run's weights reads of it."""
    run_folder.run_config(Path("run"))
    inherited.read(Path("run"))
    run_folder.open_weights("mlp", "run")


def kinds(run: Path) -> dict[str, Kind]:
    """All kinds by name; `run` is a finished run's folder."""

    def copy_run(folder: Path) -> None:
        shutil.copytree(run, folder / "run")

    def of(make: Any, source: str, files: str, damage: Damage = damaged, **options: Any) -> Kind:
        return Kind(make, files, damage, loaded(source, **options))

    found = {
        f"image {name}": of(images(save, suffix), "class_folders", f"set/a/*{suffix}", size=8,
                            split="stratified", **options)
        for name, (save, suffix, options) in IMAGES.items()
    }  # fmt: skip
    for keys in ("keras", "medmnist", "features"):
        for packed in (False, True):
            found[f"npz {keys}{' packed' * packed}"] = of(
                npz_of(keys, packed=packed), "npz", "set.npz", folder="set.npz", split="stratified"
            )
    tables = {"csv": "set.csv", "image_column": "image", "size": 8, "split": "stratified"}
    sets = {
        "csv": of(csv_images, "csv_images", "set/set.csv", TABLE, group_column="patient",
                  split_column="part", **tables | {"split": "published"}),
        "csv grouped": of(csv_images, "csv_images", "set/set.csv", TABLE, group_column="patient",
                          **tables | {"split": "grouped"}),
        "csv one-hot": of(hot_images, "csv_images", "set/set.csv", TABLE,
                          label_columns=("mel", "nv"), **tables),
        "csv survival": of(survival, "survival_csv", "set/set.csv", TABLE, csv="set.csv",
                           split="stratified", **tiny_sets.SURVIVAL_COLUMNS),
        "csv survival read": Kind(survival, "set/set.csv", TABLE, read_survival),
        "sarcoma volume": of(lambda f: tiny_sets.sarcoma(f / "set", (6, 4)), "sarcoma",
                             "set/*/image.nii.gz", size=8, split="published"),
        "sarcoma mask": of(lambda f: tiny_sets.sarcoma(f / "set", (6, 4)), "sarcoma",
                           "set/*/roi.nii.gz", size=8, split="published"),
        "sarcoma nii inside": of(lambda f: tiny_sets.sarcoma(f / "set", (6, 4), ".nii"), "sarcoma",
                                 "set/*/*.nii", size=8, split="published"),
        "sarcoma npy": of(lambda f: tiny_sets.sarcoma(f / "set", (6, 4), ".npy"), "sarcoma",
                          "set/*/*.npy", size=8, split="published"),
        "sarcoma csv": of(lambda f: tiny_sets.sarcoma(f / "set", (6, 4), ".npy"), "sarcoma",
                          "set/survival.csv", TABLE, size=8, split="published"),
        "mnist idx": of(idx, "mnist", "set/*", split="published"),
        "cifar10": of(lambda f: tiny_sets.cifar10(f / "set"), "cifar10", "set/*",
                      split="published"),
        "stl10": of(lambda f: tiny_sets.stl10(f / "set", 20, 10), "stl10", "set/*",
                    split="published"),
        "sd198 list": of(lambda f: tiny_sets.sd198(f / "set", 3, 4, 2), "sd198",
                         "set/8_2_split/*.txt", TABLE, size=8, split="published",
                         train_list="8_2_split/train_0.txt", test_list="8_2_split/val_0.txt"),
        "pneumonia csv": of(lambda f: tiny_sets.pneumonia(f / "set", 12), "pneumonia",
                            "set/*.csv", TABLE, size=8, split="stratified"),
        "cub200 lists": of(lambda f: tiny_sets.cub200(f / "set", 3, 12), "cub200", "set/*.txt",
                           TABLE, size=8, split="published"),
        "tiny_imagenet lists": of(lambda f: tiny_sets.tiny_imagenet(f / "set", 3, 3),
                                  "tiny_imagenet", "set/*.txt", TABLE, size=8, split="published"),
        "weights zip": Kind(torch_file("zip"), "weights.pth", damaged, weights("weights.pth")),
        "weights stream": Kind(torch_file("stream"), "weights.pth", damaged,
                               weights("weights.pth")),
        "weights safetensors": Kind(safetensors, "weights.safetensors", damaged,
                                    weights("weights.safetensors")),
        "run config": Kind(copy_run, "run/config.json", JSON, read_run),
        "run inputs": Kind(copy_run, "run/inputs.npz", damaged, read_run),
        "run checkpoint": Kind(copy_run, "run/checkpoints/*/**/*", damaged, read_run),
    }  # fmt: skip
    png, _, _ = IMAGES["png RGB"]
    npy, _, floats = IMAGES["npy float"]
    liars = {
        "lies: images": of(images(png, ".png"), "class_folders", "set/a/*", lies.lie(lies.IMAGES),
                           size=8, split="stratified"),
        "lies: npy": of(images(npy, ".npy"), "class_folders", "set/a/*", lies.lie(lies.NPY), size=8,
                        split="stratified", **floats),
        "lies: npz": of(npz_of("features"), "npz", "set.npz", lies.lie(lies.NPZ), folder="set.npz",
                        split="stratified"),
        "lies: volumes": of(lambda f: tiny_sets.sarcoma(f / "set", (6, 4)), "sarcoma",
                            "set/*/*.nii.gz", lies.lie(lies.VOLUMES), size=8, split="published"),
        "lies: volumes npy": of(lambda f: tiny_sets.sarcoma(f / "set", (6, 4), ".npy"), "sarcoma",
                                "set/*/*.npy", lies.lie(lies.NPY), size=8, split="published"),
        "lies: idx": of(idx, "mnist", "set/*.gz", lies.lie(lies.IDX), split="published"),
        "lies: weights": Kind(torch_file("zip"), "weights.pth", lies.lie(lies.WEIGHTS),
                              weights("weights.pth")),
        "lies: safetensors": Kind(safetensors, "weights.safetensors", lies.lie(lies.SAFETENSORS),
                                  weights("weights.safetensors")),
        "lies: run inputs": Kind(copy_run, "run/inputs.npz", lies.lie(lies.NPZ | lies.NPY),
                                 read_run),
    }  # fmt: skip
    return found | sets | liars


def draw_case(kind: Kind, folder: Path, draw: random.Random) -> str:
    """Makes a folder of that kind and damages one file of it; in words."""
    kind.make(folder)
    files = sorted(path for path in folder.glob(kind.files) if path.is_file())
    victim = draw.choice(files)
    what, data = kind.damage(victim.read_bytes(), draw)
    victim.write_bytes(data)
    return f"{victim.relative_to(folder)}: {what}"


def json_of(path: Path) -> Any:
    return json.loads(path.read_text())
