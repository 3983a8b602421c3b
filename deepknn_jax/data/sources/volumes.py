"""Sarcoma: MRI volumes, cropped to the tumour and brought to one size, with the patients' survival.

Source: Neighborhood Watch, "Datasets"; the set is not public, so the layout below is our own.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.cache import cached_files
from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.fingerprint import fingerprint
from deepknn_jax.data.levels import scale_to_bytes, warn_of_few_levels
from deepknn_jax.data.listing import checked, existing_folder, read_csv, told
from deepknn_jax.data.npy import read_npy
from deepknn_jax.data.survival import SURVIVAL_DAYS, alive_beyond, censored_lines
from deepknn_jax.errors import UserError

VOLUME_VERSION = 1  # count it up whenever the voxels below change: caches are then made anew
SUFFIXES = (".nii.gz", ".nii", ".npy")


def sarcoma(
    folder: str | Path,
    *,
    size: int,
    leave_out_censored: bool = False,
    value_range: Sequence[float] = (),
    cache_dir: str | Path = "",
) -> Listing:
    """Volumes uint8 [N, size, size, size, 1]; class "survived": alive after 1,096 days, or "died".

    `folder` holds survival.csv (patient, cohort, time in days, event: 1 died, 0 censored) and, for
    each patient, <patient>/image and <patient>/roi, as .nii.gz, .nii or .npy (then [D, H, W] with
    voxels of 1 mm). Cohort 1 trains, cohort 2 tests. Who was censored before 1,096 days counts as a
    survivor, as in the paper, unless `leave_out_censored`. The volumes go through the decode cache,
    scaled by `value_range` (low, high) or each by its own percentiles (see `read_volume`).

    Raises:
        UserError: any of these is missing or out of range, or a volume that cannot be used.
    """
    layout = (
        "survival.csv (patient, cohort, time, event) and <patient>/image.nii.gz and "
        "<patient>/roi.nii.gz (or .nii, .npy)"
    )
    root = existing_folder(folder, layout, ("survival.csv",))
    if size < 1:
        raise UserError(f"`size` is {size}: volumes need a size (the paper: 64)")
    table = root / "survival.csv"
    rows, censored = [], 0
    for patient, cohort, time, event in zip(
        *read_csv(table, ("patient", "cohort", "time", "event")), strict=True
    ):
        days, died = _number(table, patient, "time", time), event == "1"
        if cohort not in ("1", "2") or event not in ("0", "1"):
            raise UserError(f"{table}: {patient} has cohort {cohort}, event {event}; "
                            "cohorts are 1 and 2, events 1 (died) and 0 (censored)")  # fmt: skip
        if died or days > SURVIVAL_DAYS or not leave_out_censored:
            rows.append((patient, TRAIN if cohort == "1" else TEST, days, died))
        else:
            censored += 1
    names, splits, times, events = zip(*rows, strict=True) if rows else ((), (), (), ())
    pairs = [(_volume_file(root / name, "image", layout), _volume_file(root / name, "roi", layout))
             for name in names]  # fmt: skip
    listing = Listing(
        names,
        alive_beyond(np.asarray(times), np.asarray(events)),
        ("died", "survived"),
        splits=np.asarray(splits),
    )
    listing = told(checked(listing, table), censored_lines(censored))
    volumes, _, _ = cached_files(
        fingerprint([file for pair in pairs for file in pair]),
        {"size": size, "v": VOLUME_VERSION, "value_range": list(value_range)},
        [str(image) for image, _ in pairs],
        lambda i: read_volume(*pairs[i], size=size, value_range=value_range),
        shape=(size, size, size, 1),
        cache_dir=cache_dir,
    )
    warn_of_few_levels(volumes)
    return listing._replace(inputs=volumes)


def _number(table: Path, patient: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value < np.inf:
        raise UserError(f"{table}: {patient} has {column} {text!r}; give days of at least 0")
    return value


def _volume_file(folder: Path, stem: str, layout: str) -> Path:
    for suffix in SUFFIXES:
        if (folder / (stem + suffix)).is_file():
            return folder / (stem + suffix)
    raise UserError(f"{folder}: holds no {stem}{SUFFIXES[0]}; wanted: {layout}")


def read_volume(
    image: Path, roi: Path, *, size: int, value_range: Sequence[float] = ()
) -> np.ndarray:
    """One tumour as uint8 [size, size, size, 1]: depth (feet to head), height, width.

    The image is cut to the bounding box of the mask `roi` (what is above 0), resampled to voxels of
    1 mm and then to `size` along each axis, squashed. 0 and 255 are `value_range` (low, high), or
    without it the 1st and 99th percentile of the values inside the mask: MRI has no unit. NIfTI
    volumes are turned to the same orientation first; axes of length 1 beyond three are left out.

    Raises:
        ValueError: shapes that differ, several volumes in one file, an empty mask, or values that
            are not finite. And whatever the reader raises on a damaged file.
    """
    (values, affine), (mask, roi_affine) = _load(image), _load(roi)
    if values.ndim != 3 or values.shape != mask.shape:
        raise ValueError(f"shape {list(values.shape)}, but the ROI's is {list(mask.shape)}")
    if not np.allclose(affine, roi_affine, atol=0.01):
        raise ValueError("the ROI's affine is another than the image's")
    mask = mask > 0
    if not mask.any():
        raise ValueError("the ROI is empty")
    box = tuple(slice(indices.min(), indices.max() + 1) for indices in np.nonzero(mask))
    tumour = values[box].astype(np.float64)
    if not np.isfinite(tumour).all():
        raise ValueError("NaN or infinite values")
    low, high = value_range or np.percentile(values[mask], (1, 99))
    sides_mm = np.linalg.norm(affine[:3, :3], axis=0)[::-1]  # of a voxel, in the order D, H, W
    in_mm = [max(1, round(n * mm)) for n, mm in zip(tumour.shape, sides_mm, strict=True)]
    cube = _resample(_resample(tumour, in_mm), [size] * 3)
    return scale_to_bytes(cube, low, high)[..., None]


def _load(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """A volume [D, H, W] and its affine [4, 4], from indices (W, H, D) to mm."""
    if file.suffix == ".npy":
        return _three_axes(read_npy(file)), np.eye(4)
    import nibabel

    nifti = nibabel.as_closest_canonical(nibabel.load(file))
    return _three_axes(np.asarray(nifti.dataobj).T), nifti.affine


def _three_axes(volumes: np.ndarray) -> np.ndarray:
    """[T, D, H, W] of one time step, or [D, H, W, 1], as [D, H, W]."""
    shape = volumes.shape
    if volumes.ndim > 3:
        ones = [axis for axis in (*range(volumes.ndim - 3), volumes.ndim - 1) if shape[axis] == 1]
        volumes = volumes.squeeze(tuple(ones[: volumes.ndim - 3]))
    if volumes.ndim > 3:
        raise ValueError(
            f"is {volumes.ndim}-D, {' x '.join(map(str, shape))}: several volumes (time steps, "
            "channels) in one file; save the one that is meant as a 3-D file"
        )
    return volumes


def _resample(volume: np.ndarray, shape: list[int]) -> np.ndarray:
    """Linear interpolation to `shape`; where it shrinks, a Gaussian first against aliasing."""
    from scipy import ndimage

    factors = np.asarray(volume.shape) / np.asarray(shape)
    smooth = ndimage.gaussian_filter(volume, np.maximum(0, (factors - 1) / 2), mode="nearest")
    zoomed: np.ndarray = ndimage.zoom(smooth, 1 / factors, order=1, mode="nearest", grid_mode=True)
    return zoomed
