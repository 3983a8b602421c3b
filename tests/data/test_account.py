"""What is told of a set, line by line."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from support.tiny_sets import save_dicom

from deepknn_jax.data.account import (
    SAMPLE,
    classes_line,
    files_line,
    inputs_line,
    left_out_lines,
    mask_lines,
)


def test_classes_with_their_counts():
    labels = np.repeat([0, 1, 2], [1200, 3, 0])
    assert classes_line(labels, ("a", "b", "c")) == "classes: 3: a 1,200, b 3, c 0"


def test_of_many_classes_the_smallest_and_the_largest():
    labels = np.repeat(np.arange(20), np.arange(20) + 1)
    assert classes_line(labels, tuple(f"c{c}" for c in range(20))) == (
        "classes: 20, of 210 examples: the smallest c0 1, c1 2, c2 3; "
        "the largest c19 20, c18 19, c17 18"
    )


def test_what_was_left_out_is_one_line():
    line = "left out: 25 files (.heic 5, without suffix 20)"
    found = left_out_lines(Counter({"without suffix": 20, ".heic": 5, ".txt": 0}))
    assert found[0] == line
    assert "pillow-heif" in found[1]
    assert left_out_lines({".txt": 1}) == ["left out: 1 file (.txt 1)"]
    assert left_out_lines({".txt": 0}) == []


def test_sizes_and_formats_of_a_sample(tmp_path):
    Image.new("L", (10, 20)).save(tmp_path / "a.png")
    Image.new("RGB", (30, 5)).save(tmp_path / "b.jpg")
    np.save(tmp_path / "c.npy", np.zeros((7, 9), np.float32))
    save_dicom(tmp_path / "d", np.zeros((4, 6), np.uint16), bits=12)
    (tmp_path / "e.png").write_text("no image")
    files = sorted(tmp_path.iterdir())
    assert files_line(files) == (
        "files: .jpg 1, .npy 1, .png 2, DICOM under other names 1; of 5 opened: "
        "DICOM, 12 bits 1, JPEG, colour 1, PNG, grey 1, npy, float32 1, unreadable 1; "
        "6 x 4 to 10 x 20 pixels"
    )
    many = files_line(files[:1] * 100)
    assert many == f"files: .png 100; of {SAMPLE} opened: PNG, grey {SAMPLE}; 10 x 20 pixels"


def test_an_array_that_is_no_image_has_no_size(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(7, np.uint8))
    assert files_line([tmp_path / "a.npy"]) == "files: .npy 1; of 1 opened: npy, uint8 1"


def test_arrays():
    assert inputs_line(np.zeros((1500, 4, 5, 3), np.uint8)) == (
        "arrays: 1,500 images of 4 x 5 x 3, uint8"
    )
    assert inputs_line(np.zeros((2, 7), np.float32)) == "arrays: 2 feature vectors of 7, float32"


def test_masks_beside_their_images_are_a_hint():
    files = [Path(name) for name in ("a/1.png", "a/1_mask.png", "a/2.jpg", "a/2_mask.png",
                                     "b/1_mask.png", "a/unmask.png", "a/_mask.png")]  # fmt: skip
    (line,) = mask_lines(files)
    assert line == (
        "hint: 2 images are named like masks of others, 1_mask.png beside 1.png; "
        "to leave them out: `ignore`=('*_mask.*',)"
    )
    busi = [Path("benign (1).png"), Path("benign (1)_mask.png"), Path("benign (1)_mask_1.png")]
    assert "`ignore`=('*_mask*', '*_mask.*')" in mask_lines(busi)[0]
    assert mask_lines([Path("a/1.png"), Path("a/2.png"), Path("a/x_mask.png")]) == []
