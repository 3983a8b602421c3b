"""TFDS sets without TensorFlow: a tiny builder written as array_record here."""

import io
import sys

import numpy as np
import pytest
from support.tiny_tfds import FEATURES, TinyBuilder, TinyImages, pixels, png

from deepknn_jax.data.sources.tfds import tfds
from deepknn_jax.errors import UserError

OPTIONS = {"size": 6, "resize_rule": "square", "channels": 3}


class TinyVectors(TinyBuilder):
    """Ten vectors of 4, labels without names."""

    FEATURES = {  # noqa: RUF012
        "x": FEATURES.Tensor(shape=(4,), dtype=np.float64),
        "y": FEATURES.Scalar(np.int64),
    }
    KEYS = ("x", "y")

    def _example(self, i):
        return {"x": np.arange(4) + 10.0 * i, "y": 5 + 5 * (i % 2)}


class TinyText(TinyBuilder):
    """Nothing that this program could embed."""

    FEATURES = {  # noqa: RUF012
        "text": FEATURES.Text(),
        "label": FEATURES.Scalar(np.int64),
    }
    KEYS = ("text", "label")

    def _example(self, i):
        return {"text": "word", "label": i}


class TinyBroken(TinyImages):
    """One image is none."""

    def _example(self, i):
        return super()._example(i) | ({"image": io.BytesIO(b"no image")} if i == 8 else {})


class TinyWide(TinyImages):
    """Grey of 16 bits, brighter in the parts that do not train."""

    FEATURES = TinyImages.FEATURES | {"image": FEATURES.Image(shape=(None, None, 1))}

    def _example(self, i):
        return {
            "image": png(np.arange(64, dtype=np.uint16).reshape(8, 8) * (1 + i)),
            "label": i % 2,
        }


class TinyExtra(TinyVectors):
    """No part that could train or test."""

    SPLITS = {"extra": range(2)}  # noqa: RUF012


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data_dir with the six sets."""
    folder = tmp_path_factory.mktemp("tfds")
    for builder in (TinyImages, TinyVectors, TinyText, TinyBroken, TinyWide, TinyExtra):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_images_of_differing_sizes(prepared, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it is now an error
    listing = tfds(prepared, tfds_name="tiny_images", cache_dir=tmp_path, **OPTIONS)
    assert listing.inputs.shape == (10, 6, 6, 3)
    assert listing.class_names == ("even", "odd")
    assert sorted(listing.splits) == ["test"] * 2 + ["train"] * 6 + ["validation"] * 2
    index = listing.inputs[:, 0, 0, 0] // 20  # TFDS shuffles; the colour tells which it is
    assert sorted(index) == list(range(10))
    np.testing.assert_array_equal(listing.labels, index % 2)
    for row, split, i in zip(listing.inputs, listing.splits, index, strict=True):
        assert (row == pixels(i)[:6, :6]).all()
        assert i in TinyImages.SPLITS[split]
    assert len(list(tmp_path.iterdir())) == 1


def test_sixteen_bits_are_scaled_by_the_part_that_trains(prepared, tmp_path, capsys):
    options = {"cache_dir": tmp_path, "size": 8, "channels": 1}
    listing = tfds(prepared, tfds_name="tiny_wide", **options)
    assert "16-bit images scaled from 0..378 of the training part" in capsys.readouterr().out
    assert (listing.inputs[listing.splits == "test"].reshape(2, -1).max(axis=1) == 255).all()
    brightest = sorted(listing.inputs[listing.splits == "train"].reshape(6, -1).max(axis=1))
    assert np.abs(brightest - np.arange(1, 7) * 63 / 378 * 255).max() <= 0.5 + 1e-9
    dark = tfds(prepared, tfds_name="tiny_wide", value_range=(0, 65535), **options)
    assert dark.inputs.max() == round(630 / 257)


def test_vectors(prepared):
    listing = tfds(prepared, tfds_name="tiny_vectors")
    assert listing.inputs.shape == (10, 4)
    assert listing.inputs.dtype == np.float64
    index = (listing.inputs[:, 0] / 10).astype(int)
    np.testing.assert_allclose(listing.inputs, np.arange(4) + 10.0 * index[:, None])
    assert listing.class_names == ("5", "10")
    assert listing.account.lines == ("not used: the parts extra (1) of tiny_vectors",)
    np.testing.assert_array_equal(listing.labels, index % 2)


def test_what_is_refused(prepared, tmp_path):
    for name, folder, words in (
        ("", prepared, "no TFDS name given: set `tfds_name`"),
        ("tiny_nothing", prepared, "TFDS tiny_nothing: .*not found"),
        ("mnist", tmp_path, "TFDS mnist: not prepared in .*array_record"),
        ("tiny_extra", prepared, r"TFDS tiny_extra: has no train, .* but \['extra'\]"),
        ("tiny_broken", prepared, r"TFDS tiny_broken/1.0.0 test/00000\d: cannot .*remove it$"),
        ("tiny_text", prepared, "text is neither an image nor a vector; it has: .*label"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            tfds(folder, tfds_name=name, cache_dir=tmp_path / "cache", **OPTIONS)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="`size` is 0: it must be at least 1"):
        tfds(prepared, tfds_name="tiny_images", cache_dir=tmp_path, **(OPTIONS | {"size": 0}))
