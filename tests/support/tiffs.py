"""TIFF files byte by byte, of kinds that Pillow reads and does not write."""

import struct

import numpy as np

FORMATS = {"u": 1, "i": 2, "f": 3}


def save_tiff(path, pixels, *, photometric=1, orientation=1, order="<"):
    """Grey [H, W] or colour [H, W, 3] of any type, uncompressed, in one strip."""
    pixels = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(order)))
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    data = pixels.tobytes()
    start = 8 + 2 + 12 * 11 + 4  # header, count, entries, no next directory
    extra = struct.pack(f"{order}3H", *[8 * pixels.itemsize] * 3)  # three numbers need a place
    short, long = 3, 4
    entries = [
        (256, long, 1, pixels.shape[1]), (257, long, 1, pixels.shape[0]),
        (258, short, channels, 8 * pixels.itemsize if channels == 1 else start + len(data)),
        (259, short, 1, 1), (262, short, 1, photometric if channels == 1 else 2),
        (273, long, 1, start), (274, short, 1, orientation), (277, short, 1, channels),
        (278, long, 1, pixels.shape[0]), (279, long, 1, len(data)),
        (339, short, 1, FORMATS[pixels.dtype.kind]),
    ]  # fmt: skip
    directory = b"".join(
        struct.pack(order + ("HHIHxx" if kind == short and count == 1 else "HHII"),
                    tag, kind, count, value)
        for tag, kind, count, value in entries
    )  # fmt: skip
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8)
    count = struct.pack(f"{order}H", len(entries))
    path.write_bytes(head + count + directory + bytes(4) + data + extra)
    return path
