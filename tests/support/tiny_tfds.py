"""Tiny TFDS sets, written as array_record without TensorFlow."""

import io

import numpy as np
import tensorflow_datasets
from PIL import Image

FEATURES = tensorflow_datasets.features


def pixels(i):
    """An image of its own size and colour."""
    return np.full((8, 9 + i % 2, 3), (20 * i, 7, 255 - 20 * i), np.uint8)


def png(array):
    """Encoded here, as TFDS encodes arrays through TensorFlow."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    buffer.seek(0)
    return buffer


class TinyBuilder(tensorflow_datasets.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds from what its subclass says of features and examples."""

    VERSION = tensorflow_datasets.core.Version("1.0.0")
    SPLITS = {"train": range(6), "validation": range(6, 8), "test": range(8, 10), "extra": range(1)}  # noqa: RUF012

    def _info(self):
        return tensorflow_datasets.core.DatasetInfo(
            builder=self, features=FEATURES.FeaturesDict(self.FEATURES), supervised_keys=self.KEYS
        )

    def _split_generators(self, _):
        return {part: self._generate_examples(rows) for part, rows in self.SPLITS.items()}

    def _generate_examples(self, rows):
        for i in rows:
            yield i, self._example(i)


class TinyImages(TinyBuilder):
    """Ten images of two sizes, two named classes."""

    FEATURES = {  # noqa: RUF012
        "image": FEATURES.Image(shape=(None, None, 3)),
        "label": FEATURES.ClassLabel(names=["even", "odd"]),
    }
    KEYS = ("image", "label")

    def _example(self, i):
        return {"image": png(pixels(i)), "label": i % 2}
