"""Files of torch.save put together by hand, opcode by opcode (protocol 2), in both forms."""

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest

from deepknn_jax.errors import UserError
from deepknn_jax.models.weights.torch_files import read_tensors

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}


def written(path, content):
    path.write_bytes(content)
    return path


def error_of(path):
    """The one line that reading the file gives."""
    with pytest.raises(UserError) as caught:
        read_tensors(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def number(value):
    return pickle.dumps(value, 2)[2:-1]


def name(dotted):
    module, _, attribute = dotted.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def tuple_of(*parts):
    return b"(" + b"".join(parts) + b"t"


def called(dotted, *arguments):
    return name(dotted) + tuple_of(*arguments) + b"R"


def storage(key="0", kind="torch.FloatStorage", length=6, *more):
    return (
        tuple_of(text("storage"), name(kind), text(key), text("cpu"), number(length), *more) + b"Q"
    )


def tensor(*, of=None, offset=0, size=(2, 3), stride=(3, 1)):
    hooks = called("collections.OrderedDict")
    shape = [tuple_of(*map(number, part)) for part in (size, stride)]
    arguments = (of or storage(), number(offset), *shape, b"\x89", hooks)
    return called("torch._utils._rebuild_tensor_v2", *arguments)


def state(entries):
    return b"}" + b"".join(text(key) + value + b"s" for key, value in entries.items())


def program(body):
    return b"\x80\x02" + body + b"."


NUMBERS = np.arange(6, dtype="<f4")


def zipped(body, records=None, **options):
    """A file of the zip form around the pickle `body`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data.pkl", program(body))
        for key, value in ({"data/0": NUMBERS.tobytes()} if records is None else records).items():
            archive.writestr(f"archive/{key}", value)
    return buffer.getvalue()


def stream(body, *, magic=None, protocol=None, system=None, keys=None, raw=None):
    """A file of the older form around the pickle `body`; any of its pickles may be replaced."""
    parts = (
        magic or number(MAGIC),
        protocol or number(PROTOCOL),
        system or number(SYSTEM),
        body,
        keys or number(["0"]),
    )
    raw = struct.pack("<q", 6) + NUMBERS.tobytes() if raw is None else raw
    return b"".join(map(program, parts)) + raw


VIEW = {"zip": (), "stream": (b"N",)}  # what torch wants at the end of a storage's id
MAKE = {"zip": zipped, "stream": stream}  # the two forms
