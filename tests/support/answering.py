"""Model folders without a training: small networks of random weights, and galleries of noise."""

import functools

import jax
import numpy as np

from deepknn_jax import models
from deepknn_jax.answers.changes import contents_of
from deepknn_jax.answers.judge import calibrate, judge
from deepknn_jax.answers.model import Gallery, Model
from deepknn_jax.answers.network import Form, embedder
from deepknn_jax.answers.thumbnails import encode_array, joined

CLASSES = ("akiec", "bcc", "nevus; benign")


def counts(labels):
    return np.bincount(labels, minlength=len(CLASSES)).tolist()


def about_of(form, backbone, train, validation):
    return {
        "deepknn_jax": "0.1.0", "method": "deep kNN", "source": "class_folders",
        "backbone": backbone, "embedding_size": 0, "normalize": False, "dtype": "float32", "p": 2.0,
        "k_p": 3, "batch": 16, "classes": list(CLASSES), "inputs": form._asdict(),
        "counts": {"train": train, "validation": validation, "test": [4, 0, 6]}, "groups": False,
        "test": {"acc": 0.8, "mcr": 0.75, "per_class_recall": dict(
            zip(CLASSES, (0.75, None, 5 / 6), strict=True))},
        "reported": {"step": 7, "validation": 0.5},
    }  # fmt: skip


def examples(form, labels, rng):
    """Inputs of a form: noise about another level in each class."""
    shape = (len(labels), *form.shape)
    level = labels.reshape(-1, *(1,) * len(form.shape)) - 1
    noise = rng.normal(size=shape) + 1.5 * level
    if form.kind == "feature vectors":
        return (noise * np.asarray(form.std) + np.asarray(form.mean)).astype(np.float32)
    return np.clip(128 + 30 * noise, 0, 255).astype(np.uint8)


FEATURES = Form("feature vectors", (5,), mean=(1e3, 0.0, 2.0, -1.0, 0.5),
                std=(0.1, 1.0, 3.0, 2.0, 1.0))  # fmt: skip
IMAGES = Form("images", (12, 12, 1), size=12, channels=1, crop=10, mean=(0.4,), std=(0.2,))


@functools.cache  # nobody changes what it gives
def model_of(form=FEATURES, *, validates=True, shown=True, seed=0):
    """A model with 20 training images a class but the second, which has 7."""
    rng = np.random.default_rng(seed)
    backbone = "mlp" if form.kind == "feature vectors" else "cnn"
    labels = np.repeat(np.arange(3, dtype=np.int32), (20, 7, 20))
    own = np.repeat(np.arange(3, dtype=np.int32), (12, 4, 14))
    inputs = examples(form, labels, rng)
    x = np.zeros((1, *form.shape), np.float32)
    if form.crop:
        x = x[:, : form.crop, : form.crop]
    variables = jax.tree.map(
        np.asarray, jax.jit(models.build(backbone).init)(jax.random.key(seed), x)
    )
    nested = {name: {"backbone": tree} for name, tree in variables.items()}
    about = about_of(form, backbone, counts(labels), counts(own) if validates else [0, 0, 0])
    pictures = joined([encode_array(image) for image in inputs]) if inputs.ndim == 4 else None
    empty = np.zeros((1, 1), np.float32)
    embed = embedder(Model(about, nested, Gallery(empty, labels[:1])))
    gallery = Gallery(
        embed(inputs), labels, tuple(f"case <{i}>.png" for i in range(47)) if shown else (), None,
        pictures if shown else None, contents_of(inputs),
    )  # fmt: skip
    model = Model(about, nested, gallery)
    if not validates:
        return model
    kept = examples(form, own, rng)
    queries = embed(kept)
    names = tuple(f"kept {i}" for i in range(len(own))) if shown else ()
    found = judge(queries, ("",) * len(own), model, k=3, level=0.9, abstain_error=0.1)
    calibrated = calibrate(queries, own, found.labels, found.distances, gallery=gallery,
                           classes=CLASSES, p=2.0)  # fmt: skip
    calibration = Gallery(queries, own, names, contents=contents_of(kept))
    return model._replace(calibrated=calibrated, calibration=calibration)
