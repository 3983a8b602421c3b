"""A tiny Skin-7 in its published layout with features of it, and records that were never run."""

import numpy as np
import pytest
from PIL import Image
from support.tiny_sets import write_rows

from deepknn_jax.data.sources.files import SKIN7_CLASSES
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.catalog import SETS
from deepknn_jax.reproduce.cells import Cell, Options
from deepknn_jax.trainer import loop

SIZES = (20, 60, 20, 20, 20, 10, 15)  # images of each class; two of each lesion


def tiny_skin7(folder):
    """165 images of 8 x 6 with metadata and five folds; returns names and labels."""
    labels = np.repeat(np.arange(7), SIZES)
    names = [f"ISIC_{i:07d}" for i in range(len(labels))]
    (folder / "HAM10000_images").mkdir(parents=True)
    for name in names:
        Image.new("RGB", (8, 6)).save(folder / "HAM10000_images" / f"{name}.jpg")
    rows = [
        (name, SKIN7_CLASSES[label], f"HAM_{i // 2}")
        for i, (name, label) in enumerate(zip(names, labels, strict=True))
    ]
    write_rows(folder / "HAM10000_metadata.csv", [("image_id", "dx", "lesion_id"), *rows])
    for fold in range(5):
        for part in ("train", "test"):
            chosen = [
                (f"{name}.jpg", label)
                for i, (name, label) in enumerate(zip(names, labels, strict=True))
                if (i % 5 == fold) == (part == "test")
            ]
            head = (f"image_{part}", f"label_{part}")
            write_rows(folder / "folds" / f"split_data_{fold + 1}_fold_{part}.csv", [head, *chosen])
    return [f"{name}.jpg" for name in names], labels


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """A data_root with skin7 alone."""
    root = tmp_path_factory.mktemp("data_root")
    tiny_skin7(root / "skin7")
    return root


@pytest.fixture
def options(tiny_root, tmp_path):
    """Two seeds on the tiny Skin-7, whose features are there."""
    write_features(tmp_path / "out")
    return Options(tiny_root, tmp_path / "out", seeds=2)


@pytest.fixture
def counted(monkeypatch):
    """Trainings are counted, not made: the list of (config, workdir) of each."""
    calls = []

    def run(config, workdir):
        calls.append((config, workdir))
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "results.json").write_text("{}")
        # Decided by the config, as a training is: the larger rate is better.
        figures = entry(min(1.0, 0.5 + config.optimizer.learning_rate))
        return {"test": dict.fromkeys(("1", "3", "5", "7", "9", "head"), figures)}

    monkeypatch.setattr(loop, "run", run)
    return calls


def empty_root(root):
    """A data_root where every set is, by its path alone; returns it."""
    for found in SETS.values():
        path = root / found.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir(exist_ok=True)
    return root


def write_features(out):
    """OUT/features/skin7/features.npz, in another order than the metadata's; returns its path."""
    labels = np.repeat(np.arange(7), SIZES)
    order = np.random.default_rng(1).permutation(len(labels))
    means = np.random.default_rng(2).normal(size=(7, 12))
    features = means[labels] + np.random.default_rng(3).normal(size=(len(labels), 12))
    path = out / "features" / "skin7" / "features.npz"
    path.parent.mkdir(parents=True)
    np.savez(
        path,
        features=features[order].astype(np.float32),
        labels=labels[order].astype(np.int32),
        names=np.asarray([f"ISIC_{i:07d}.jpg" for i in order]),
        splits=np.full(len(labels), "train"),
        classes=np.asarray(SKIN7_CLASSES),
    )
    return path


def entry(acc, mcr=0.5, rs=0.25, vasc=0.125):
    """The figures of one vote, as classification_metrics has them."""
    return {
        "acc": acc, "mcr": mcr, "rs": rs, "rs_class": "df",
        "per_class_recall": {"df": rs, "vasc": vasc}, "n": 8,
    }  # fmt: skip


def point(power, acc, mcr, rs=0.25):
    """A point of a curve over tau, as results.json has it."""
    return {"class_size_power": power, "acc": acc, "mcr": mcr, "rs": rs}


def recorded(out, name, entries, **more):
    """A finished cell of these figures."""
    cell = Cell(name, "skin7_features", "deep_knn", {}, 60.0)
    store.write(out, cell, {}, more.pop("seconds", 2.0), {"results": {"test": entries}} | more)
    return cell
