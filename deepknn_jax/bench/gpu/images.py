"""Made-up pictures in class folders, in the size of Skin-7's: they stand for its files, no more."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_NOISE = 12.0  # grey levels: a file of 600 x 450 then takes about 150 KiB


def make_folders(
    folder: Path, *, count: int, classes: int, width: int = 600, height: int = 450
) -> None:
    """Writes `count` jpeg files in folders of `classes` classes, of which each has its colour."""

    def make(number: int) -> None:
        name = f"class_{number % classes}"
        picture(number, number % classes, width, height).save(
            folder / name / f"{number:05d}.jpg", quality=95
        )

    for label in range(classes):
        (folder / f"class_{label}").mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(count)))


def picture(number: int, label: int, width: int, height: int) -> Image.Image:
    """A skin-coloured ground with an ellipse in the class's colour, and noise."""
    rng = np.random.default_rng(number)
    image = Image.new("RGB", (width, height), (224, 180, 160))
    left, top = rng.uniform(0.1, 0.4, 2) * (width, height)
    right, bottom = rng.uniform(0.6, 0.9, 2) * (width, height)
    colour = (90 + 15 * label, 60, 150 - 15 * label)
    ImageDraw.Draw(image).ellipse((left, top, right, bottom), fill=colour)
    noise = rng.standard_normal((height, width, 3), np.float32) * _NOISE
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))
