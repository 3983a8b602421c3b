"""python example.py FILE...: answers image files; needs jax, flatbuffers, numpy and pillow alone.

A line of JSON each: the class, the shares of the votes, and the neighbours with their distances.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from PIL import Image, ImageOps

BATCH = 32  # the program is compiled once for each size: a short batch is filled up
DTYPES = {"F32": np.float32, "I32": np.int32}


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file by name: a header of JSON, and their bytes."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8:start]), memoryview(data)[start:]
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(body[slice(*x["data_offsets"])], DTYPES[x["dtype"]]).reshape(x["shape"])
        for name, x in header.items()
    }


def read_image(file: str, form: dict[str, Any]) -> np.ndarray:
    """The pixels uint8 [H, W, C] of an image file, decoded and resized as the training did."""
    with Path(file).open("rb") as stream, Image.open(stream) as opened:
        image: Any = opened
        if image.mode[0] in "IF" or getattr(image, "tag_v2", {}).get(339) == (2,):
            raise ValueError("its pixels are no unsigned numbers of 8 bits")
        if image.format == "TIFF" and image.n_frames > 1:
            raise ValueError("it has several pages")
        ImageOps.exif_transpose(image, in_place=True)
        if image.has_transparency_data:
            black = Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = Image.alpha_composite(black, image.convert("RGBA"))
        image = image.convert("L" if form["channels"] == 1 else "RGB")
    size, sides = form["size"], image.size
    if size:  # else the images are as they are, and not square
        square = form["resize_rule"] == "square"
        sides = (size, size) if square else tuple(size * x // min(sides) for x in sides)
        image = image.resize(sides, Image.Resampling.BILINEAR) if image.size != sides else image
        left, top = (round((side - size) / 2) for side in sides)
        image = image.crop((left, top, left + size, top + size))
    pixels = np.asarray(image)
    if pixels.shape[:2] != tuple(form["shape"][:2]):
        raise ValueError(f"it is {sides[1]} x {sides[0]} pixels, not {form['shape'][:2]}")
    return pixels.reshape(form["shape"])


def read_array(file: str, form: dict[str, Any]) -> np.ndarray:
    """Inputs [n, ...] of an .npy file: uint8 volumes, or feature vectors, then standardised."""
    inputs = np.load(file)
    vectors = form["kind"] == "feature vectors"
    if list(inputs.shape[1:]) != form["shape"] or not (vectors or inputs.dtype == np.uint8):
        raise ValueError(f"{inputs.dtype} {list(inputs.shape)}, not {form['kind']} {form['shape']}")
    if vectors:  # in float64, as the training did
        inputs = (inputs - np.array(form["mean"])) / np.array(form["std"])
    return inputs.astype(form["dtype"])


def read_inputs(files: list[str], form: dict[str, Any]) -> np.ndarray:
    """What the program takes [n, ...] of image files; of .npy files where it takes no images."""
    parts = []
    for file in files:
        try:
            images = form["kind"] == "images"
            parts.append(read_image(file, form)[None] if images else read_array(file, form))
        except Exception as error:  # whatever a decoder raises
            sys.exit(f"{file}: is not read by this example: {error}")
    return np.concatenate(parts)


def answers(inputs: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """What the program says of inputs [n, ...]: arrays [n, ...] by name."""
    program = jax.jit(export.deserialize(bytearray((folder / "program.jax").read_bytes())).call)
    arrays = jax.device_put(read_arrays(folder / "arrays.safetensors"))
    parts = []
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        filled = np.concatenate([batch, np.repeat(batch[-1:], BATCH - len(batch), axis=0)])
        parts.append({name: x[: len(batch)] for name, x in program(arrays, filled).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def main(files: list[str]) -> None:
    """Prints the answers for the files."""
    folder = Path(__file__).parent
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    found = answers(read_inputs(files, meta["inputs"]), folder)
    if not np.isfinite(found["embeddings"]).all():
        sys.exit("the embeddings are not finite: are the inputs like the run's own?")
    names = meta["gallery_names"] or range(meta["gallery_size"])
    for i, label in enumerate(found["labels"]):
        rows, distances = found["indices"][i].tolist(), found["distances"][i].tolist()
        answer = {
            "input": files[i] if meta["inputs"]["kind"] == "images" else i,
            "class": meta["classes"][label],
            "shares": dict(zip(meta["classes"], found["shares"][i].tolist(), strict=True)),
            "neighbours": [[names[row], d] for row, d in zip(rows, distances, strict=True)],
        }
        print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit(__doc__))
