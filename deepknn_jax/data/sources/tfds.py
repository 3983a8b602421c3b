"""Any TFDS data set prepared as array_record, read without TensorFlow."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax.data.dataset import TRAIN, Listing
from deepknn_jax.data.decode import decode_each
from deepknn_jax.data.fingerprint import fingerprint
from deepknn_jax.data.listing import SPLIT_WORDS, checked, index_labels, told
from deepknn_jax.data.sources.arrays import as_features
from deepknn_jax.errors import UserError


def tfds(
    folder: str | Path = "",
    *,
    tfds_name: str,
    size: int = 0,
    resize_rule: str = "square",
    channels: int = 0,
    value_range: Sequence[float] = (),
    cache_dir: str | Path = "",
) -> Listing:
    """A TFDS data set by name ("beans", "name/config:1.0.0"), through `tfds.data_source`.

    It must lie under `folder` (empty: TFDS's default) in a format of random access
    (array_record); nothing is downloaded. Its train, validation and test parts are the published
    split; other parts are left out. Images are decoded through the cache as files are (`size`,
    `resize_rule`, `channels`, `value_range` and `cache_dir` as in decode.decode, the range of wide
    integers that of its train part; size and channels 0: the set's own, where it tells them);
    vectors become float32 or float64 [N, F].

    Raises:
        UserError: a set that is unknown or not prepared, or without an image or a vector and one
            label an example; a damaged image.
    """
    import tensorflow_datasets

    if not tfds_name:
        raise UserError("no TFDS name given: set `tfds_name`, and `folder` to its data_dir")
    builder = _prepared_builder(tfds_name, folder)
    info = builder.info
    input_key, label_key = _keys(tfds_name, info)
    is_image = isinstance(info.features[input_key], tensorflow_datasets.features.Image)
    # Image files stay encoded: TFDS's own decoder knows neither EXIF, palettes nor 16 bits.
    skip = {input_key: tensorflow_datasets.decode.SkipDecoding()} if is_image else None
    parts = [part for part in info.splits if part in SPLIT_WORDS]
    sources = [builder.as_data_source(split=part, decoders=skip) for part in parts]
    where = [(source, i) for source in sources for i in range(len(source))]
    names = tuple(
        f"{part}/{i:06d}"
        for part, source in zip(parts, sources, strict=True)
        for i in range(len(source))
    )
    labels, class_names = _labels(info.features[label_key], where, label_key)
    if is_image:
        inputs = _images(
            builder, where, names, input_key, size=size, channels=channels,
            resize_rule=resize_rule, value_range=value_range, cache_dir=cache_dir,
        )  # fmt: skip
    else:
        inputs = as_features(np.asarray([source[i][input_key] for source, i in where]))
    splits = np.asarray([SPLIT_WORDS[name.split("/")[0]] for name in names])
    listing = Listing(names, labels, class_names, inputs=inputs, splits=splits)
    others = [f"{part} ({info.splits[part].num_examples:,})" for part in info.splits
              if part not in SPLIT_WORDS]  # fmt: skip
    unused = [f"not used: the parts {', '.join(others)} of {tfds_name}"] if others else []
    return told(checked(listing, tfds_name), unused)


def _prepared_builder(name: str, folder: str | Path) -> Any:
    import tensorflow_datasets

    where = str(Path(folder).expanduser()) if str(folder) else None
    try:
        builder = tensorflow_datasets.builder(name, data_dir=where)
    except Exception as error:  # DatasetNotFoundError, or whatever a builder's module raises
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(
            f"TFDS {name}: {reason} (looked in {where or 'the default'}, which `folder` sets)"
        ) from error
    if not builder.info.splits:
        raise UserError(
            f"TFDS {name}: not prepared in {builder.data_dir}; run tensorflow_datasets' builder"
            f"({name!r}, data_dir=..., file_format='array_record').download_and_prepare()"
        )
    formats = {str(getattr(f, "value", f)) for f in builder.info.available_file_formats()}
    if not formats & {"array_record", "parquet"}:
        raise UserError(
            f"TFDS {name}: prepared as {', '.join(sorted(formats))}, which has no random access; "
            "prepare it again with file_format='array_record'"
        )
    if not set(builder.info.splits) & set(SPLIT_WORDS):
        splits = list(builder.info.splits)
        raise UserError(f"TFDS {name}: has no train, validation or test, but {splits}; "
                        "choose another `tfds_name`")  # fmt: skip
    return builder


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The feature keys of the input and of the label."""
    import tensorflow_datasets

    pair = info.supervised_keys
    pair = pair if pair and len(pair) == 2 else ("image", "label")
    features = info.features
    kinds = ", ".join(f"{key} {type(feature).__name__}" for key, feature in features.items())
    if not all(isinstance(key, str) and key in features for key in pair):
        raise UserError(f"TFDS {name}: cannot tell the input and the label among: {kinds}; choose "
                        "another `tfds_name`")  # fmt: skip
    input_key, label_key = pair
    image = isinstance(features[input_key], tensorflow_datasets.features.Image)
    if not image and len(features[input_key].shape or ()) != 1:
        raise UserError(
            f"TFDS {name}: {input_key} is neither an image nor a vector; it has: {kinds}; choose "
            "another `tfds_name`"
        )
    if features[label_key].shape != ():
        raise UserError(f"TFDS {name}: {label_key} is not one label an example; it has: {kinds}; "
                        "choose another `tfds_name`")  # fmt: skip
    return input_key, label_key


def _labels(
    feature: Any, where: Sequence[tuple[Any, int]], key: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    values = [source[i][key] for source, i in where]
    class_names = getattr(feature, "names", None)
    if class_names:
        return np.asarray(values, np.int32), tuple(class_names)
    return index_labels([v.decode() if isinstance(v, bytes) else str(v) for v in values])


def _images(
    builder: Any,
    where: Sequence[tuple[Any, int]],
    names: Sequence[str],
    key: str,
    *,
    size: int,
    channels: int,
    **fit: Any,
) -> np.ndarray:
    files = sorted(path for path in Path(builder.data_dir).iterdir() if path.is_file())
    parts = [SPLIT_WORDS[name.split("/")[0]] for name in names]
    train = np.flatnonzero(np.asarray(parts) == TRAIN)

    def opener(i: int) -> io.BytesIO:
        source, row = where[i]
        return io.BytesIO(source[row][key])

    images, *_ = decode_each(
        opener,
        [f"TFDS {builder.info.full_name} {name}" for name in names],
        fingerprint(files),
        {"tfds": builder.info.full_name},
        size=size or builder.info.features[key].shape[0] or 0,
        channels=channels or builder.info.features[key].shape[-1] or 3,
        training=train if len(train) else None,
        **fit,
    )
    return images
