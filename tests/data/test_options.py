"""An option that nothing reads is refused, with who would read it."""

import numpy as np
import pytest
from support.tiny_sets import save_image

from deepknn_jax.data.dataset import Listing
from deepknn_jax.data.load import survey
from deepknn_jax.data.options import check_all_read, check_source_reads
from deepknn_jax.errors import UserError


def test_an_option_of_another_source_is_refused_before_anything_is_read():
    check_source_reads("csv_images", {"csv", "split_column", "size", "test_share", "on_error"})
    with pytest.raises(
        UserError,
        match=r"^`split_column` is set, but `source` class_folders does not read it \(csv_images",
    ):
        check_source_reads("class_folders", {"split_column", "size"})
    with pytest.raises(UserError, match=r"^`folder` is set, but `source` digits does not .*npz"):
        check_source_reads("digits", {"folder"})


def listing(kind, splits=None):
    """Ten examples as files, or as arrays of that shape."""
    labels = np.arange(10, dtype=np.int32) % 2
    splits = None if splits is None else np.asarray(splits)
    given = {"files": ()} if kind == "files" else {"inputs": np.zeros((10, *kind), np.uint8)}
    return Listing(tuple("abcdefghij"), labels, ("a", "b"), splits=splits, **given)


FILES, IMAGES, FEATURES = "files", (8, 8, 1), (3,)
OF_FILES = {"on_error", "value_range"}
OF_IMAGES = {"size", "channels", "resize_rule"}


@pytest.mark.parametrize(
    ("kind", "read", "refused"),
    [
        (FILES, OF_FILES | OF_IMAGES, set()),
        (IMAGES, OF_IMAGES, OF_FILES),
        (FEATURES, set(), OF_FILES | OF_IMAGES),
    ],
)
def test_what_the_loading_reads_depends_on_what_it_loads(kind, read, refused):
    found = listing(kind)
    check_all_read("digits", read | {"cache_dir"}, found, split="stratified", validation=0)
    for name in refused:
        with pytest.raises(UserError, match=rf"^`{name}` is set, but .*gives (arrays|feature)"):
            check_all_read("digits", read | {name}, found, split="stratified", validation=0)


@pytest.mark.parametrize(
    ("split", "validation", "has_validation", "refused"),
    [
        ("stratified", 0.0, False, set()),
        ("grouped", 0.2, True, set()),
        ("published", 0.0, False, {"test_share", "split_seed"}),
        ("published", 0.2, False, {"test_share"}),
        ("published", 0.2, True, {"test_share", "split_seed"}),
    ],
)
def test_what_a_split_draws_by(split, validation, has_validation, refused):
    parts = ["train"] * 4 + ["validation" if has_validation else "train"] * 2 + ["test"] * 4
    found = listing(FEATURES, parts)
    for name in ("test_share", "split_seed"):
        if name in refused:
            with pytest.raises(UserError, match=f"^`{name}` is set, but `split` is published"):
                check_all_read("npz", {name}, found, split=split, validation=validation)
        else:
            check_all_read("npz", {name}, found, split=split, validation=validation)


def test_the_survey_refuses_both(tmp_path):
    for i in range(20):
        save_image(tmp_path / ("train", "test")[i % 2] / "ab"[i // 10] / f"{i}.png", i)
    options = {"folder": tmp_path, "split": "", "test_share": 0.3, "validation": 0.0,
               "split_seed": 0, "value_range": ()}  # fmt: skip
    survey("class_folders", **options, given={"folder"})
    with pytest.raises(UserError, match=r"^`test_share` is set, but `split` is published"):
        survey("class_folders", **options, given={"test_share"})
    with pytest.raises(UserError, match=r"^`csv` is set, but `source` class_folders"):
        survey("class_folders", **options | {"folder": tmp_path / "gone"}, given={"csv"})
