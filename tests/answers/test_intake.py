"""What is asked: folders, tables, arrays and single files, and what in them cannot be read."""

import numpy as np
import pytest
from PIL import Image
from support.answering import CLASSES, FEATURES, IMAGES

from deepknn_jax.answers import intake
from deepknn_jax.answers.intake import as_inputs, blocks, questions, read_file
from deepknn_jax.answers.network import Form
from deepknn_jax.data.images import read_image
from deepknn_jax.errors import UserError

RNG = np.random.default_rng(3)


def save(path, shape=(20, 14, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return path


def test_a_folder_at_any_depth_with_the_nearest_class_above_as_label(tmp_path):
    for name in ("bcc/a.png", "bcc/akiec/deep/b.png", "c.png", "other/d.png"):
        save(tmp_path / "bcc" / name)  # the folder itself counts for nothing
    asked = questions(tmp_path / "bcc", IMAGES, CLASSES)
    assert asked.names == ("bcc/a.png", "bcc/akiec/deep/b.png", "c.png", "other/d.png")
    assert asked.labels == ("bcc", "akiec", None, None)


def test_blocks_are_what_the_training_read_and_errors_have_reasons(tmp_path, monkeypatch):
    monkeypatch.setattr(intake, "BLOCK", 3)
    files = [save(tmp_path / f"{i}.png") for i in range(7)]
    files[1].write_bytes(b"no image")
    files[4].unlink()
    asked = questions([str(file) for file in files], IMAGES, CLASSES)
    found = list(blocks(asked, IMAGES))
    assert [block.rows.tolist() for block in found] == [[0, 2], [3, 5], [6]]
    assert "neither DICOM nor an image" in found[0].errors[1]
    assert found[1].errors == {4: "No such file or directory"}
    inputs = np.concatenate([block.inputs for block in found])
    wanted = [
        read_image(files[i], size=12, resize_rule="square", channels=1) for i in (0, 2, 3, 5, 6)
    ]
    np.testing.assert_array_equal(inputs, wanted)
    assert all(shown[8:12] == b"WEBP" for block in found for shown in block.thumbnails)


def test_a_block_of_which_nothing_can_be_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (block,) = blocks(questions(tmp_path / "a.png", IMAGES, CLASSES), IMAGES)
    assert block.inputs.shape == (0, 12, 12, 1)
    assert list(block.errors) == [0]


def test_a_csv_with_labels_and_without(tmp_path):
    save(tmp_path / "in" / "a.png")
    table = tmp_path / "t.csv"
    table.write_text("image;label\nin/a.png;bcc\nin/b.png;\n")
    asked = questions(table, IMAGES, CLASSES)
    assert asked.names == ("in/a.png", "in/b.png")
    assert asked.labels == ("bcc", None)
    assert asked.files[0] == tmp_path / "in" / "a.png"
    table.write_text("file,x\nin/a.png,1\n")
    assert questions(table, IMAGES, CLASSES, image_column="file").labels == (None,)
    with pytest.raises(UserError, match=r"no column 'image'.*`image_column`"):
        questions(table, IMAGES, CLASSES)


def test_an_npz_of_features_with_labels_by_name_or_number(tmp_path):
    path, x = tmp_path / "f.npz", RNG.normal(size=(3, 5))
    np.savez(path, features=x, labels=[2, 0, 0], names=["a", "b", "c"])
    asked = questions(path, FEATURES, CLASSES)
    assert asked.labels == (CLASSES[2], CLASSES[0], CLASSES[0])
    assert asked.names == ("a", "b", "c")
    np.savez(path, features=x, labels=[1, 0, 0], classes=["nv", "bcc"])
    assert questions(path, FEATURES, CLASSES).labels == ("bcc", "nv", "nv")
    np.savez(path, features=x)
    (block,) = blocks(questions(path, FEATURES, CLASSES), FEATURES)
    np.testing.assert_array_equal(block.inputs, x)
    np.savez(path, other=x)
    with pytest.raises(UserError, match="has keys other; wanted is one of features"):
        questions(path, FEATURES, CLASSES)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match="is not a sound"):
        questions(path, FEATURES, CLASSES)


def test_arrays_are_fitted_as_the_training_s_were():
    images = RNG.integers(0, 256, (2, 24, 30, 3), dtype=np.uint8)
    found = as_inputs(images, IMAGES, "x")
    assert found.shape == (2, 12, 12, 1)
    same = RNG.integers(0, 256, (2, 12, 12), dtype=np.uint8)
    np.testing.assert_array_equal(as_inputs(same, IMAGES, "x")[..., 0], same)
    wide = IMAGES._replace(set_range=(0.0, 1000.0))
    grey = np.full((1, 12, 12, 1), 500, np.uint16)
    assert np.unique(as_inputs(grey, wide, "x")).tolist() in ([127], [128])


@pytest.mark.parametrize(
    ("array", "form", "words"),
    [
        (np.zeros((2, 4)), FEATURES, r"trained on features \[n, 5\]"),
        (np.full((2, 5), np.nan), FEATURES, "NaN"),
        (np.zeros((2, 12, 12, 1)), IMAGES, "images of 8 bits: convert"),
        (np.zeros((2, 5)), IMAGES, "trained on images of 12 x 12 x 1"),
        (np.zeros((1, 9, 9, 1), np.uint8), Form("images", (9, 8, 1), channels=1), "9 x 8 x 1"),
    ],
)
def test_arrays_of_another_kind_are_refused(array, form, words):
    with pytest.raises(UserError, match=words):
        as_inputs(array, form, "x")


def test_files_for_a_run_on_features_and_empty_folders_are_refused(tmp_path):
    save(tmp_path / "a" / "b.png")
    with pytest.raises(UserError, match="trained on feature vectors"):
        questions(tmp_path / "a", FEATURES, CLASSES)
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        questions(tmp_path / "c", IMAGES, CLASSES)
    with pytest.raises(UserError, match="no such file or folder"):
        questions(tmp_path / "d", IMAGES, CLASSES)


def test_grey_levels_by_the_run_s_range_or_not_at_all(tmp_path):
    file = tmp_path / "deep.png"
    Image.fromarray(RNG.integers(0, 4096, (12, 12), dtype=np.uint16)).save(file)
    ranged = IMAGES._replace(set_range=(0.0, 4095.0))
    wanted = read_image(file, size=12, resize_rule="square", channels=1, set_range=(0.0, 4095.0))
    np.testing.assert_array_equal(read_file(file, ranged)[0], wanted)
    with pytest.raises(ValueError, match="more than 8 bits, and no range is known"):
        read_file(file, IMAGES)


def test_images_that_were_not_square_must_have_their_sides(tmp_path):
    form = Form("images", (20, 14, 3), channels=3)
    assert read_file(save(tmp_path / "a.png"), form)[0].shape == (20, 14, 3)
    with pytest.raises(ValueError, match="is 20 x 15 pixels"):
        read_file(save(tmp_path / "b.png", (20, 15, 3)), form)
