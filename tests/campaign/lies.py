"""Whole files made to deceive: bombs, sizes that are not there, and pickles that would run code."""

import functools
import gzip
import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
from campaign.mutations import Draw
from support.pickles import MAKE, called, state, text

MARK = "code_was_run"
_BLOCK = 2**24


class _Runs:
    """Unpickled, it makes the file MARK."""

    def __reduce__(self):
        return (open, (MARK, "w"))


EVIL = pickle.dumps(_Runs(), 2)


@functools.cache
def zeros(count: int) -> tuple[bytes, int]:
    """So many zeros (a multiple of _BLOCK) as raw deflate, and their crc32."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    next_ = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + next_ * (count // _BLOCK - 1) + packer.flush(), 0


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    head = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    return file.getvalue()


def npz(members: dict[str, bytes], **options: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz_bomb() -> bytes:
    """Features of 4 GB in 4 MB: the packed zeros are put in a zip by hand."""
    head = npy_header("|u1", (2**16, 2**16 - 16))
    packed, _ = zeros(2**32 - 2**24)
    stored = struct.pack("<BHH", 0, len(head), len(head) ^ 0xFFFF) + head
    data, name, size = stored + packed, b"features.npy", len(head) + 2**32 - 2**24
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, len(data), size, len(name), 0)
    central = struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, 0, len(data), size,
                          len(name), 0, 0, 0, 0, 0, 0)  # fmt: skip
    begin = len(local) + len(name) + len(data)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central) + len(name), begin, 0)
    return local + name + data + central + name + end


def png(width: int, height: int, kind: int, data: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def packed_png(width: int, height: int, kind: int, channels: int) -> bytes:
    size = -(-(width * channels + 1) * height // _BLOCK) * _BLOCK
    return png(width, height, kind, b"\x78\xda" + zeros(size)[0] + bytes(4))


def tiff(width: int, height: int, strips: int = 1) -> bytes:
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1),
               (262, 3, 1, 1), (273, 4, strips, 8), (277, 3, 1, 1), (278, 4, 1, height),
               (279, 4, 1, 2**31)]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + bytes(4)


def endless_tiff() -> bytes:
    """Its only directory is followed by itself."""
    return tiff(4, 4)[:-4] + struct.pack("<I", 8)


def bmp(width: int, height: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 1, 1, 0, 0)
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + head + bytes(30)


def gif(width: int, height: int) -> bytes:
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x4c\1\0;"


IMAGES: dict[str, Callable[[], bytes]] = {
    "png 30000 x 30000": lambda: packed_png(30_000, 30_000, 2, 3),
    "png RGBA 13000 x 13000": lambda: packed_png(13_000, 13_000, 6, 4),
    "png grey 13000 x 13000": lambda: packed_png(13_000, 13_000, 0, 1),
    "png 2**31-1 square": lambda: png(2**31 - 1, 2**31 - 1, 2, b"\x78\xda"),
    "png 1 x 170000000": lambda: packed_png(1, 170_000_000, 0, 1),
    "png 0 x 0": lambda: png(0, 0, 2, b""),
    "png text bomb": lambda: png(4, 4, 2, b"")[:33] + _ztxt() + png(4, 4, 2, b"")[33:],
    "tiff 2**31 square": lambda: tiff(2**31, 2**31),
    "tiff 13000 square": lambda: tiff(13_000, 13_000),
    "tiff many strips": lambda: tiff(4, 4, 2**30),
    "tiff endless": endless_tiff,
    "bmp 2**31-1 square": lambda: bmp(2**31 - 1, 2**31 - 1),
    "bmp 13000 square": lambda: bmp(13_000, 13_000),
    "bmp negative": lambda: bmp(-4, -(2**31)),
    "gif 65535 square": lambda: gif(65535, 65535),
    "gif 13000 square": lambda: gif(13_000, 13_000),
    "ppm huge": lambda: b"P6 99999999 99999999 255\n" + bytes(30),
    "ppm 13000 square": lambda: b"P5 13000 13000 255\n" + bytes(30),
    "ppm long header": lambda: b"P6 " + b"0" * 10**6 + b"9 9 255\n" + bytes(300),
    "pickle": lambda: EVIL,
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'></svg>",
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(" + MARK.encode()
    + b") (w) file closefile\n%%EOF\n",
}  # fmt: skip


def _ztxt() -> bytes:
    body = b"Comment\0\0\x78\xda" + zeros(2**28)[0] + bytes(4)
    return (
        struct.pack(">I", len(body))
        + b"zTXt"
        + body
        + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    )


NPY: dict[str, Callable[[], bytes]] = {
    "10**18 values": lambda: npy_header("<f8", (10**9, 10**9)),
    "overflow": lambda: npy_header("<f8", (2**62, 2**62, 2**62)),
    "values of no size": lambda: npy_header("|V0", (10**15,)),
    "negative": lambda: npy_header("|u1", (-4, -4)) + bytes(16),
    "objects": lambda: npy_header("|O", (1,)) + EVIL,
    "pickle": lambda: EVIL,
    "strings": lambda: npy(np.asarray([["a", "b"]])),
    "complex": lambda: npy(np.ones((4, 4), complex)),
    "ten axes": lambda: npy(np.ones((1,) * 10, np.uint8)),
    "no rows": lambda: npy(np.ones((0, 4, 3), np.uint8)),
    "scalar": lambda: npy(np.uint8(3)),
    "one pixel wide": lambda: npy(np.ones((100_000, 1, 3), np.uint8)),
    "all NaN": lambda: npy(np.full((4, 4), np.nan)),
    "infinite": lambda: npy(np.full((4, 4), np.inf)),
    "extremes": lambda: npy(np.asarray([[1e308, -1e308], [5e-324, 0]])),
    "int64": lambda: npy(np.asarray([[2**63 - 1, -(2**63)]])),
    "long double": lambda: npy(np.ones((4, 4), np.longdouble)),
}
_X, _Y = np.ones((20, 6)), np.arange(20) % 2
NPZ: dict[str, Callable[[], bytes]] = {
    "bomb": npz_bomb,
    "object labels": lambda: npz({"features": npy(_X), "labels": npy_header("|O", (1,)) + EVIL}),
    "object features": lambda: npz({"features": npy_header("|O", (1,)) + EVIL, "labels": npy(_Y)}),
    "pickle": lambda: EVIL,
    "pickle inside": lambda: npz({"features": EVIL, "labels": npy(_Y)}),
    "claims": lambda: npz({"features": npy_header("<f8", (10**9, 10**9)), "labels": npy(_Y)}),
    "claims, packed": lambda: npz({"features": npy_header("<f8", (10**9, 2)), "labels": npy(_Y)},
                                  compression=8),
    "names of no size": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                     "names": npy_header("|V0", (10**15,))}),
    "scalar labels": lambda: npz({"features": npy(_X), "labels": npy(np.int64(1))}),
    "scalar names": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                 "names": npy(np.int64(1))}),
    "scalar classes": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                   "classes": npy(np.int64(1))}),
    "huge labels": lambda: npz({"features": npy(_X), "labels": npy(_Y + 2**62)}),
    "labels beyond classes": lambda: npz({"features": npy(_X), "labels": npy(_Y + 2**40),
                                          "classes": npy(np.asarray(["a", "b"]))}),
    "labels below 2**32": lambda: npz({"features": npy(_X), "labels": npy(_Y + 2**32),
                                       "classes": npy(np.asarray(["a", "b"]))}),
    "NaN labels": lambda: npz({"features": npy(_X), "labels": npy(np.full(20, np.nan))}),
    "infinite labels": lambda: npz({"features": npy(_X), "labels": npy(np.full(20, np.inf))}),
    "large float labels": lambda: npz({"features": npy(_X), "labels": npy(_Y * 1e300)}),
    "dates": lambda: npz({"features": npy(_X), "labels": npy(_Y.astype("datetime64[D]"))}),
    "splits of three axes": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                         "splits": npy(np.full((20, 2, 2), "train"))}),
    "scalar splits": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                  "splits": npy(np.asarray("train"))}),
    "numbers for splits": lambda: npz({"features": npy(_X), "labels": npy(_Y), "splits": npy(_Y)}),
    "groups of two axes": lambda: npz({"features": npy(_X), "labels": npy(_Y), "groups": npy(_X)}),
    "scalar groups": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                  "groups": npy(np.asarray(3))}),
    "no features": lambda: npz({"features": npy(_X[:, :0]), "labels": npy(_Y)}),
    "no rows": lambda: npz({"features": npy(_X[:0]), "labels": npy(_Y[:0])}),
    "no pixels": lambda: npz({"x_train": npy(np.ones((20, 0, 8), np.uint8)), "y_train": npy(_Y),
                              "x_test": npy(np.ones((20, 0, 8), np.uint8)), "y_test": npy(_Y)}),
    "complex": lambda: npz({"features": npy(_X + 1j), "labels": npy(_Y)}),
    "extremes": lambda: npz({"features": npy(_X * 1e308), "labels": npy(_Y)}),
    "names of bytes": lambda: npz({"features": npy(_X), "labels": npy(_Y.astype("S2")),
                                   "names": npy(np.arange(20).astype("S2"))}),
    "no surrogates": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                  "names": npy_header("<U1", (20,)) + b"".join(
                                      struct.pack("<I", 0xD800 + i) for i in range(20))}),
    "no characters": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                  "names": npy_header("<U1", (20,)) + b"\xff" * 80}),
    "thumbnails of no sense": lambda: npz({"features": npy(_X), "labels": npy(_Y),
                                           "thumbnails": npy(np.ones((3, 2)))}),
    "a folder": lambda: npz({"../../features": npy(_X), "labels": npy(_Y)}),
    "keys twice": lambda: npz({"features": npy(_X), "labels": npy(_Y), "features ": npy(_X)}),
}  # fmt: skip


def _text_of_lengths(name: str) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode()


WEIGHTS: dict[str, Callable[[], bytes]] = {
    "pickle": lambda: EVIL,
    "zip of a pickle": lambda: MAKE["zip"](EVIL[2:-1]),
    "stream of a pickle": lambda: MAKE["stream"](EVIL[2:-1]),
    "a call": lambda: MAKE["zip"](state({"a": called("posix.system", text(f"touch {MARK}"))})),
    "a call in the stream": lambda: MAKE["stream"](
        state({"a": called("builtins.open", text(MARK), text("w"))})
    ),
    "packed": lambda: MAKE["zip"](state({}), compression=8),
    "deep": lambda: MAKE["zip"](b"(" * 100_000),
    "long": lambda: MAKE["zip"](b"N0" * 2_000_000 + b"N"),
    "doubling": lambda: MAKE["stream"](b"X\4\0\0\0aaaaq\0" + b"(h\0h\0tq\0" * 60),
    "npz": NPZ["object features"],
}
SAFETENSORS: dict[str, Callable[[], bytes]] = {
    "header of 2**62": lambda: struct.pack("<Q", 2**62) + b"{}",
    "deep": lambda: _text_of_lengths("[" * 100_000),
    "offsets": lambda: _text_of_lengths(
        '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
    "beyond": lambda: _text_of_lengths('{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    "pickle": lambda: EVIL,
    "negative": lambda: (
        _text_of_lengths('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + bytes(4)
    ),
}


def nifti(shape: tuple[int, ...], kind: int = 16, bits: int = 32, offset: float = 352.0) -> bytes:
    dim = struct.pack("<8h", len(shape), *shape, *[1] * (7 - len(shape)))
    head = struct.pack("<i36x", 348) + dim + struct.pack("<14xhhh", kind, bits, 0)
    head += struct.pack("<8f", *[1.0] * 8) + struct.pack("<fff", offset, 1.0, 0.0)
    return head.ljust(344, b"\0") + b"n+1\0" + bytes(4)


def gzipped(data: bytes, count: int = 0) -> bytes:
    """`data` and so many zeros, as gzip, in a few MB."""
    if not count:
        return gzip.compress(data)
    stored = struct.pack("<BHH", 0, len(data), len(data) ^ 0xFFFF) + data
    end = struct.pack("<II", 0, (len(data) + count) % 2**32)
    return gzip.compress(b"")[:10] + stored + zeros(count)[0] + end


VOLUMES: dict[str, Callable[[], bytes]] = {
    "no data": lambda: gzipped(nifti((32767, 32767, 32767))),
    "bomb": lambda: gzipped(nifti((1600, 1600, 1600)), 2**34),
    "bomb of 1.5 GB": lambda: gzipped(nifti((700, 700, 800)), 3 * 2**29),
    "negative": lambda: gzipped(nifti((-5, 5, 5))),
    "no axes": lambda: gzipped(nifti(())),
    "seven axes": lambda: gzipped(nifti((2,) * 7) + bytes(512)),
    "complex": lambda: gzipped(nifti((20, 18, 10), 32, 64) + bytes(30_000)),
    "colours": lambda: gzipped(nifti((20, 18, 10), 128, 24) + bytes(30_000)),
    "kind 0": lambda: gzipped(nifti((20, 18, 10), 0, 0) + bytes(30_000)),
    "offset NaN": lambda: gzipped(nifti((20, 18, 10), offset=float("nan")) + bytes(30_000)),
    "offset 1e30": lambda: gzipped(nifti((20, 18, 10), offset=1e30) + bytes(30_000)),
    "pickle": lambda: gzipped(EVIL),
}
IDX: dict[str, Callable[[], bytes]] = {
    "bomb": lambda: gzipped(b"\0\0\x08\x03" + struct.pack(">iii", 2**15, 2**10, 2**7), 2**32),
    "negative sides": lambda: gzipped(
        b"\0\0\x08\x03" + struct.pack(">iii", -40, -8, 8) + bytes(2560)
    ),
    "no sides": lambda: gzipped(b"\0\0\x08\x03" + struct.pack(">iii", 40, 0, 8)),
    "255 axes": lambda: gzipped(b"\0\0\x08\xff" + struct.pack(">255i", *[1] * 255) + b"\0"),
    "floats": lambda: gzipped(b"\0\0\x0d\x03" + struct.pack(">iii", 40, 8, 8) + bytes(10240)),
    "overflow": lambda: gzipped(b"\0\0\x08\x03" + struct.pack(">iii", 2**31 - 1, 2**31 - 1, 9)),
    "pickle": lambda: gzipped(EVIL),
}


def lie(files: dict[str, Callable[[], bytes]]) -> Callable[[bytes, Draw], tuple[str, bytes]]:
    """The damage that puts one of the `files` in the sound one's place."""

    def damage(data: bytes, draw: Draw) -> tuple[str, bytes]:
        name = draw.choice(list(files))
        return name, files[name]()

    return damage
