"""Sets of image files as their authors publish them: SD-198, RSNA pneumonia, CUB, Tiny ImageNet."""

from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.listing import (
    checked,
    existing_folder,
    index_labels,
    read_csv,
    read_fields,
    with_files,
)
from deepknn_jax.data.sources.files import class_folders
from deepknn_jax.errors import UserError


def sd198(
    folder: str | Path, *, train_list: str = "", test_list: str = "", on_error: str = "stop"
) -> Listing:
    """SD-198 (Sun et al., ECCV 2016): photographs of 198 skin diseases.

    `folder` holds images/<class>/*.jpg and the two lists, named relative to it, of the published
    split: a line an image, its path below images/ and perhaps a blank and its class's number. An
    image on neither list is left out, and counted; a line without its image with `on_error` = skip.
    Without lists: every image, no published split.

    Raises:
        UserError: any of these is missing, or the lists contradict themselves.
    """
    lists = [name for name in (train_list, test_list) if name]
    layout = "images/<class>/*.jpg and the lists that `train_list` and `test_list` name"
    root = existing_folder(folder, layout, ("images", *lists))
    if not lists:
        return class_folders(root / "images")
    if len(lists) == 1:
        raise UserError("`train_list` and `test_list`: give both, or neither")
    names: list[str] = []
    splits: list[str] = []
    numbers: dict[str, str] = {}  # of each class
    for split, name in ((TRAIN, train_list), (TEST, test_list)):
        rows = read_fields(root / name, 1)
        for image, *number in rows:
            class_name = image.split("/")[0]
            if number and numbers.setdefault(class_name, number[0]) != number[0]:
                raise UserError(
                    f"{root / name}: {image} has label {number[0]}, but others of its class "
                    f"{numbers[class_name]}; get the lists anew"
                )
            names.append(image)
            splits.append(split)
    labels, class_names = index_labels([name.split("/")[0] for name in names])
    files = tuple(root / "images" / name for name in names)
    listing = Listing(tuple(names), labels, class_names, files=files, splits=np.asarray(splits))
    return with_files(checked(listing, root), root, " and ".join(lists), on_error)


def pneumonia(folder: str | Path, *, on_error: str = "stop") -> Listing:
    """RSNA's pneumonia challenge, stage 2: 26,684 chest X-rays of as many patients, three classes.

    `folder` holds stage_2_train_images/<patientId>.dcm and stage_2_detailed_class_info.csv
    (patientId, class), which repeats a patient for each box drawn in the image. Images without a
    row are counted, rows without an image left out with `on_error` = skip.

    Raises:
        UserError: any of these is missing, or a patient has two classes.
    """
    table, images = "stage_2_detailed_class_info.csv", "stage_2_train_images"
    layout = f"{images}/<patientId>.dcm and {table} (patientId, class)"
    root = existing_folder(folder, layout, (table, images))
    class_of: dict[str, str] = {}
    for patient, class_name in zip(*read_csv(root / table, ("patientId", "class")), strict=True):
        if class_of.setdefault(patient, class_name) != class_name:
            raise UserError(
                f"{root / table}: {patient} is both {class_of[patient]!r} and {class_name!r}; keep "
                "one"
            )
    names = tuple(class_of)
    labels, class_names = index_labels(list(class_of.values()))
    files = tuple(root / images / f"{name}.dcm" for name in names)
    listing = checked(Listing(names, labels, class_names, files=files), root / table)
    return with_files(listing, root, table, on_error)


def cub200(folder: str | Path, *, on_error: str = "stop") -> Listing:
    """Caltech-UCSD Birds 200-2011: 11,788 images of 200 species, 5,994 / 5,794.

    `folder` (CUB_200_2011) holds images/ and four lists by the images' or the classes' numbers:
    images.txt, image_class_labels.txt, train_test_split.txt (1: training) and classes.txt.
    Images on no list are counted, those that are not there left out with `on_error` = skip.

    Raises:
        UserError: any of these is missing or they contradict each other.
    """
    tables = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    root = existing_folder(folder, f"images/ and {', '.join(tables)}", ("images", *tables))
    paths, classes, in_train, class_names = (
        dict(row[:2] for row in read_fields(root / table, 2)) for table in tables
    )
    for table, found in zip(tables[1:3], (classes, in_train), strict=True):
        if found.keys() != paths.keys():
            number = min(found.keys() ^ paths.keys())
            raise UserError(
                f"{root / table}: image {number} is in it or in images.txt, not in both; get "
                "them anew"
            )
    order = list(class_names)
    if unknown := set(classes.values()) - set(order):
        raise UserError(f"{root / tables[1]}: class {min(unknown)} is not in classes.txt; get them "
                        "anew")  # fmt: skip
    names = tuple(paths.values())
    files = tuple(root / "images" / name for name in names)
    labels = np.asarray([order.index(classes[number]) for number in paths], np.int32)
    splits = np.asarray([TRAIN if in_train[number] == "1" else TEST for number in paths])
    listing = Listing(names, labels, tuple(class_names.values()), files=files, splits=splits)
    return with_files(checked(listing, root), root, tables[0], on_error)


def tiny_imagenet(folder: str | Path, *, on_error: str = "stop") -> Listing:
    """Tiny ImageNet (Stanford CS231n): 200 classes of 64 x 64, 100,000 / 10,000.

    `folder` (tiny-imagenet-200) holds wnids.txt, words.txt, train/<wnid>/images/*.JPEG, val/images/
    and val/val_annotations.txt. The labelled val part is the test part; its own test/ has no
    labels. A class is named by its wnid and first word. Images of val/ that are not annotated are
    counted, annotated ones that are not there left out with `on_error` = skip.

    Raises:
        UserError: any of these is missing or they contradict each other.
    """
    annotations = "val/val_annotations.txt"
    needed = ("wnids.txt", "words.txt", "train", "val/images", annotations)
    layout = "wnids.txt, words.txt, train/<wnid>/images/*.JPEG, val/images/ and " + annotations
    root = existing_folder(folder, layout, needed)
    wnids = [row[0] for row in read_fields(root / "wnids.txt", 1)]
    words = dict(row[:2] for row in read_fields(root / "words.txt", 2, "\t"))
    found = [
        (TRAIN, wnid, file)
        for wnid in wnids
        for file in sorted((root / "train" / wnid / "images").glob("*.JPEG"))
    ]
    for name, wnid, *_ in read_fields(root / annotations, 2, "\t"):
        if wnid not in wnids:
            raise UserError(f"{root / annotations}: {name} has class {wnid}, not in wnids.txt; get "
                            "them anew")  # fmt: skip
        found.append((TEST, wnid, root / "val" / "images" / name))
    listing = Listing(
        tuple(file.relative_to(root).as_posix() for _, _, file in found),
        np.asarray([wnids.index(wnid) for _, wnid, _ in found], np.int32),
        tuple(f"{wnid} {words.get(wnid, '').split(',')[0]}".strip() for wnid in wnids),
        files=tuple(file for _, _, file in found),
        splits=np.asarray([split for split, _, _ in found]),
    )
    return with_files(checked(listing, root), root, annotations, on_error)
