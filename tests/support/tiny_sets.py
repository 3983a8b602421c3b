"""Tiny data sets in exactly the layouts of the sets that cannot be had here.

Each function fills a folder. Pixels tell the class, so that a network can learn it.
"""

import csv

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

RNG = np.random.default_rng(0)


def pixels(label, *shape):
    """Noise uint8 around a level that tells the label."""
    return np.clip(RNG.normal(20 + 50 * (label % 4), 10, shape), 0, 255).astype(np.uint8)


def write_rows(path, rows, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows(rows)


def save_image(path, label, side=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(label, side, side + 2, 3)).save(path)


def sd198(folder, classes=10, train=10, test=2):
    """Lists as published: "<class>/<file>.jpg <number>"; one image is on neither."""
    for part, count in (("train", train), ("val", test)):
        rows = []
        for label in range(classes):
            for i in range(count):
                name = f"Disease_{label}/{part}{i}.jpg"
                save_image(folder / "images" / name, label)
                rows.append((name, label))
        write_rows(folder / "8_2_split" / f"{part}_0.txt", rows, " ")
    save_image(folder / "images" / "Disease_0" / "unlisted.jpg", 0)


def save_dicom(path, stored, *, syntax=ExplicitVRLittleEndian, bits=8, data=None, **elements):
    """A grey frame uint8 or uint16 [H, W]; `data` are its bytes where they are compressed."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.BitsAllocated = 8 * stored.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = stored.tobytes() if data is None else encapsulate([data])
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)


RSNA = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")


def pneumonia(folder, n=150):
    """Patients of one, and of class Lung Opacity two rows, as RSNA repeats them for each box."""
    rows = [("patientId", "class")]
    for i in range(n):
        patient, label = f"{i:04x}-3aa4", i % 3
        rows += [(patient, RSNA[label])] * (1 + (label == 2))
        save_dicom(folder / "stage_2_train_images" / f"{patient}.dcm", pixels(label, 16, 16))
    write_rows(folder / "stage_2_detailed_class_info.csv", rows)


def stl10(folder, train=100, test=20):
    """Returns the images as uint8 [N, 96, 96, 3], training part first."""
    folder.mkdir(parents=True, exist_ok=True)
    names = "airplane bird car cat deer dog horse monkey ship truck"
    (folder / "class_names.txt").write_text(names.replace(" ", "\n") + "\n")
    images = []
    for part, count in (("train", train), ("test", test)):
        labels = np.arange(count) % 10
        images.append(np.stack([pixels(label, 96, 96, 3) for label in labels]))
        # Channel, then column, then row, as MATLAB writes arrays.
        images[-1].transpose(0, 3, 2, 1).tofile(folder / f"{part}_X.bin")
        (labels + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    return np.concatenate(images)


def cub200(folder, classes=10, each=12):
    """The first ten of each class train; image numbers run through the classes."""
    species = [f"{c + 1:03d}.Bird_{c}" for c in range(classes)]
    names = [f"{s}/{s[4:]}_{i:04d}.jpg" for s in species for i in range(each)]
    for number, name in enumerate(names):
        save_image(folder / "images" / name, number // each)
    tables = {
        "images": names,
        "image_class_labels": [1 + i // each for i in range(len(names))],
        "train_test_split": [int(i % each < 10) for i in range(len(names))],
        "classes": species,
    }
    for table, values in tables.items():
        write_rows(folder / f"{table}.txt", enumerate(values, 1), " ")


def tiny_imagenet(folder, classes=10, each=10):
    """Its test/ has images without labels, its words.txt more words than classes."""
    wnids = [f"n{9000 - c:08d}" for c in range(classes)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "wnids.txt").write_text("\n".join(wnids))
    words = [(wnid, f"thing {c}, it") for c, wnid in enumerate(wnids)]
    (folder / "words.txt").write_text(
        "".join(f"{wnid}\t{word}\n" for wnid, word in [("n00000001", "entity"), *words])
    )
    notes = []
    for c, wnid in enumerate(wnids):
        for i in range(each):
            save_image(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", c)
        write_rows(folder / "train" / wnid / f"{wnid}_boxes.txt", [(f"{wnid}_0.JPEG", 0, 0, 9, 9)])
        save_image(folder / "val" / "images" / f"val_{c}.JPEG", c)
        notes.append((f"val_{c}.JPEG", wnid, 0, 0, 9, 9))
        save_image(folder / "test" / "images" / f"test_{c}.JPEG", c)
    write_rows(folder / "val" / "val_annotations.txt", notes, "\t")


def cifar10(folder, batch=40, test=20):
    """Returns the images as uint8 [N, 32, 32, 3], training part first."""
    folder.mkdir(parents=True, exist_ok=True)
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "batches.meta.txt").write_text(names.replace(" ", "\n") + "\n\n")
    images = []
    for name, count in [(f"data_batch_{i}", batch) for i in range(1, 6)] + [("test_batch", test)]:
        labels = np.arange(count, dtype=np.uint8) % 10
        images.append(np.stack([pixels(label, 32, 32, 3) for label in labels]))
        planes = images[-1].transpose(0, 3, 1, 2).reshape(count, -1)
        np.concatenate([labels[:, None], planes], axis=1).tofile(folder / f"{name}.bin")
    return np.concatenate(images)


def epid(folder, beams=26, suffix=".npy"):
    """Three images of each beam, gamma around 0.4, 0.8 and 1.2; every other beam tests."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("image", "label", "beam", "split")]
    for beam in range(beams):
        for label, name in enumerate(("no-error", "random", "systematic")):
            image = f"{beam:03d}-{name}{suffix}"
            gamma = RNG.normal(0.4 * (label + 1), 0.05, (24, 24)).astype(np.float32)
            if suffix == ".npy":
                np.save(folder / image, gamma)
            else:
                Image.fromarray((100 * gamma).astype(np.uint8)).save(folder / image)
            rows.append((image, name, beam, "test" if beam % 2 else "train"))
    write_rows(folder / "epid.csv", rows)


def sarcoma(folder, patients=(40, 8), suffix=".nii.gz"):
    """A bright ellipsoid; who died has the brighter core. One of four is censored early."""
    rows = [("patient", "cohort", "time", "event")]
    for cohort, count in enumerate(patients, 1):
        for i in range(count):
            patient, died, early = f"STS_{cohort}{i:03d}", i % 2, i % 4 == 2
            rows.append((patient, cohort, 500 if died or early else 1500, died))
            grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (20, 18, 10)],
                                        indexing="ij"))  # fmt: skip
            radius = np.sqrt(((grid * 1.4) ** 2).sum(0))
            values = 100 + 100 * (radius < 1) + 200 * died * (radius < 0.5)
            values = (values + RNG.normal(0, 5, radius.shape)).astype(np.float32)
            for stem, array in (("image", values), ("roi", (radius < 1).astype(np.uint8))):
                path = folder / patient / f"{stem}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if suffix == ".npy":
                    np.save(path, array)
                else:
                    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.5, 1.0])), path)
    write_rows(folder / "survival.csv", rows)


SURVIVAL_COLUMNS = {"name_column": "id", "time_column": "days", "event_column": "died"}
SURVIVAL_HEADER = ("id", "days", "died", "sex", "ct_a", "ct_b")


def survival_rows(n=20):
    """Every second one died late, every fourth was censored early; the others died early."""
    late = [i % 2 for i in range(n)]
    censored = [i % 4 == 0 for i in range(n)]
    return [
        (f"p{i}", 2000 + i if late[i] else 100 + i, int(not censored[i]), "f", i, -i / 2)
        for i in range(n)
    ]


def survival_csv(folder, rows, header=SURVIVAL_HEADER):
    """Writes set.csv; returns its path."""
    write_rows(folder / "set.csv", [header, *rows])
    return folder / "set.csv"
