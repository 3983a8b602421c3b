"""Tables 1 and S1 against counting by hand."""

import csv
from collections import Counter

import pytest
from PIL import Image
from support import tiny_sets
from support.reproduced import tiny_skin7

from deepknn_jax.reproduce import counts


def by_hand(path, column):
    with path.open(newline="", encoding="utf-8") as file:
        return Counter(row[column] for row in csv.DictReader(file))


def lines_of(text, title):
    """{paper or here: cells} of a set's lines."""
    found = [line.strip("| ").split(" | ") for line in text.splitlines() if title in line]
    return {cells[1].strip(): [cell.strip() for cell in cells[2:]] for cells in found}


def test_table_1_of_tiny_sets(tmp_path):
    tiny_skin7(tmp_path / "skin7")
    tiny_sets.sd198(tmp_path / "sd198", classes=10, train=10, test=2)
    tiny_sets.pneumonia(tmp_path / "pneumonia", n=150)
    text = counts.document("1", tmp_path, tmp_path / "out")
    skin7 = lines_of(text, "Skin-7")
    assert skin7["here"] == ["7", "132", "33", "8 × 6", "10", "60", "6.0"]
    assert skin7["paper"][:6] == ["7", "8005", "2005", "600 × 450", "115", "6705"]
    # The image that is on neither list is not counted.
    assert lines_of(text, "SD-198")["here"] == ["10", "100", "20", "14 × 12", "12", "12", "1.0"]
    pneumonia = lines_of(text, "Pneumonia |")["here"]
    assert pneumonia == ["3", "120", "30", "16 × 16", "50", "50", "1.0"]
    assert "- absent: chest X-rays (Kermany)" in text


def test_image_sizes_of_different_sides(tmp_path):
    tiny_skin7(tmp_path / "skin7")
    for number, size in enumerate([(30, 20), (9, 40)]):
        Image.new("RGB", size).save(tmp_path / f"skin7/HAM10000_images/ISIC_{number:07d}.jpg")
    text = counts.document("1", tmp_path, tmp_path / "out")
    assert lines_of(text, "Skin-7")["here"][3] == "[6, 40]"


def test_table_s1_counts_classes_in_the_training_part(tmp_path):
    tiny_sets.cub200(tmp_path / "cub200", classes=10, each=12)
    tiny_sets.stl10(tmp_path / "stl10", train=100, test=20)
    tiny_sets.tiny_imagenet(tmp_path / "tiny_imagenet", classes=10, each=10)
    text = counts.document("s1", tmp_path, tmp_path / "out")
    assert lines_of(text, "CUB200")["here"] == ["10", "100", "20", "14 × 12", "10", "10", "1.0"]
    assert lines_of(text, "STL10")["here"] == ["10", "100", "20", "96 × 96", "10", "10", "1.0"]
    assert lines_of(text, "Tiny-")["here"] == ["10", "100", "10", "14 × 12", "10", "10", "1.0"]


@pytest.mark.data
def test_table_1_of_the_real_skin7(data_root, tmp_path):
    """Counted from the csv files alone."""
    folder = data_root / "skin7"
    sizes = by_hand(folder / "HAM10000_metadata.csv", "dx")
    parts = [
        str(by_hand(folder / f"folds/split_data_1_fold_{part}.csv", f"label_{part}").total())
        for part in ("train", "test")
    ]
    (tmp_path / "skin7").symlink_to(folder)
    here = lines_of(counts.document("1", tmp_path, tmp_path / "out"), "Skin-7")["here"]
    assert here[:3] == ["7", *parts]
    assert here[4:6] == [str(min(sizes.values())), str(max(sizes.values()))] == ["115", "6705"]
