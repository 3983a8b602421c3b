"""What a browser sends: read in bounded memory, counted as it comes, and looked at before decoding.

Nothing here trusts what a request says of itself: bytes are counted, files are known by what is in
them.
"""

import asyncio
import contextlib
import functools
import warnings
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from deepknn_jax.data.dicom import is_dicom
from deepknn_jax.data.walk import IMAGE_SUFFIXES, heic_is_read, open_heic, suffix_of
from deepknn_jax.files import sound

MOST_BYTES = 64 << 20  # in a request
MOST_FILES = 64
MOST_PIXELS = 50_000_000  # of an image; decoding takes up to some 20 bytes for each
_DROPPED = 1 << 30  # bytes above MOST_BYTES that are read and dropped, so that the answer is heard
_SECONDS = 120  # for all of a request to come
_FIELDS, _LONGEST = 8, 200  # fields of a form that are no files; characters of a name
_PAGES = 1000  # of a TIFF
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # DICOM PS3.5 A.5: unpacked whole, however large


class Upload(NamedTuple):
    """A file that came: its `name` without folders, and its bytes."""

    name: str
    data: bytes


class Sent(NamedTuple):
    """A form that came: its `fields` by name, and its files in their order."""

    fields: dict[str, str]
    uploads: tuple[Upload, ...]


async def read_form(request: Request, most: int) -> Sent:
    """The form in a request of at most `most` bytes, and MOST_FILES files.

    Raises:
        HTTPException: it is larger, takes too long, or is no multipart form; in one line.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(415, "send the files as multipart/form-data, each as images")
    parser = MultiPartParser(
        request.headers, _counted(request, most), max_files=MOST_FILES, max_fields=_FIELDS,
        max_part_size=most,
    )  # fmt: skip
    parser.spool_max_size = most  # in memory: nothing of it goes to a disk here
    try:
        async with asyncio.timeout(_SECONDS):
            form = await parser.parse()
    except TimeoutError as error:
        raise HTTPException(408, f"the files did not come within {_SECONDS} s") from error
    except (MultiPartException, ClientDisconnect) as error:
        reason = getattr(error, "message", "") or "it broke off"
        raise HTTPException(400, f"the files cannot be read: {reason}") from error
    fields, uploads = {}, []
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            data = await value.read()
            if value.filename or data:  # a form without a choice sends an empty one
                uploads.append(Upload(plain_name(value.filename or ""), data))
        else:
            fields[key] = value
    await form.close()
    return Sent(fields, tuple(uploads))


async def _counted(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """The body's parts, as long as they are `most` bytes in all."""
    count = 0
    async for part in request.stream():
        count += len(part)
        if count > most + _DROPPED:
            break
        if count <= most:
            yield part
    if count > most:
        raise HTTPException(413, f"more than {most >> 20} MiB at once: send fewer files")


def plain_name(name: str) -> str:
    """A file's name without folders, line breaks and what UTF-8 cannot hold."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(each if each.isprintable() else " " for each in sound(last))
    return " ".join(shown.split())[-_LONGEST:] or "no name"


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, a second one of a kind with a number."""
    found: list[str] = []
    for name in names:
        n, each = 1, name
        while each in found:
            n += 1
            each = f"{name} ({n})"
        found.append(each)
    return found


def ending(name: str) -> str:
    """The suffix by which readers know some kinds; empty for all others, .csv among them."""
    suffix = suffix_of(name)
    return suffix if suffix in (*IMAGE_SUFFIXES, ".npz") else ""


def refusal(file: Path) -> str:
    """Why an image file is not to be decoded, or "": by what is in it, before it takes memory.

    Of a file that cannot be understood nothing is said here: its decoder will.
    """
    try:
        if is_dicom(file):
            return _of_dicom(file)
        if heic_is_read():
            open_heic([file])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our bound is lower
            return _of_image(file)
    except Image.DecompressionBombError:
        return f"has more than {MOST_PIXELS:,} pixels"
    except Exception:
        return ""


def _of_image(file: Path) -> str:
    with Image.open(file) as opened:
        if opened.format not in _formats():
            return f"{opened.format} files are not taken"
        sizes = {opened.size}
        if isinstance(opened, TiffImageFile):
            with contextlib.suppress(EOFError):  # at its end
                for page in range(_PAGES + 1):
                    opened.seek(page)
                    sizes.add(opened.size)
                return f"has more than {_PAGES:,} pages"
    return next(filter(None, (_of_size(*size) for size in sizes)), "")


@functools.cache
def _formats() -> set[str]:
    """Pillow's names of what a training reads; it knows others, of which some run programs."""
    known = Image.registered_extensions()
    return {known[suffix] for suffix in IMAGE_SUFFIXES if suffix in known} | {"MPO"}


def _of_size(width: int, height: int) -> str:
    if width * height <= MOST_PIXELS:
        return ""
    return f"is {width:,} x {height:,} pixels; at most {MOST_PIXELS:,} are taken"


def _of_dicom(file: Path) -> str:
    import pydicom

    if _DEFLATED in file.read_bytes():
        return "is a deflated DICOM file: save it without deflation"
    tags = ["Rows", "Columns"]
    found = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=tags)
    return _of_size(int(found.get("Columns") or 0), int(found.get("Rows") or 0))
