"""What damage and malice do to files: bytes, tables and JSON, drawn by a generator."""

import json
import random
from collections.abc import Callable
from typing import Any

Draw = random.Random
ENDS = (0, 1, 0x7F, 0x80, 0xFF)


def damaged(data: bytes, draw: Draw) -> tuple[str, bytes]:
    """A name for what was done, and the bytes after it."""
    name = draw.choice(list(BYTES))
    return name, BYTES[name](data, draw)


def _flipped(data: bytes, draw: Draw, *, first: int = 2**40) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 2, 8, 64)) if data else 0):
        changed[draw.randrange(min(first, len(changed)))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _set_field(data: bytes, draw: Draw) -> bytes:
    """A number of the header becomes as large, or as small, as it can be."""
    size = draw.choice((1, 2, 4, 8))
    at = draw.randrange(max(1, min(len(data), 512) - size))
    value = draw.choice(
        (b"\xff" * size, b"\xff" * (size - 1) + b"\x7f", b"\0" * size,
         b"\x7f" + b"\xff" * (size - 1),
         draw.randbytes(size))
    )  # fmt: skip
    return data[:at] + value + data[at + size :]


def _digits(data: bytes, draw: Draw) -> bytes:
    """A run of digits, as a header of text has them, becomes another number."""
    import re

    places = [found.span() for found in re.finditer(rb"\d+", data[:4096])]
    if not places:
        return _set_field(data, draw)
    begin, end = draw.choice(places)
    value = draw.choice((b"0", b"-1", b"99999999999", b"4294967296", b"9" * 30, b"1e9", b"65536"))
    return data[:begin] + value + data[end:]


def _part(data: bytes, draw: Draw) -> tuple[int, int]:
    begin = draw.randrange(len(data) + 1)
    return begin, min(len(data), begin + draw.choice((1, 7, 64, 4096)))


def _removed(data: bytes, draw: Draw) -> bytes:
    begin, end = _part(data, draw)
    return data[:begin] + data[end:]


def _zeroed(data: bytes, draw: Draw) -> bytes:
    begin, end = _part(data, draw)
    return data[:begin] + bytes([draw.choice(ENDS)]) * (end - begin) + data[end:]


def _repeated(data: bytes, draw: Draw) -> bytes:
    begin, end = _part(data, draw)
    return data[:end] + data[begin:end] * draw.choice((1, 3)) + data[end:]


BYTES: dict[str, Callable[[bytes, Draw], bytes]] = {
    "bits flipped": _flipped,
    "bits of the header flipped": lambda data, draw: _flipped(data, draw, first=256),
    "a field set": _set_field,
    "a second field set": lambda data, draw: _set_field(_set_field(data, draw), draw),
    "a number changed": _digits,
    "cut": lambda data, draw: data[: draw.randrange(len(data) + 1)],
    "cut by little": lambda data, draw: data[: -draw.randrange(1, 20)],
    "extended": lambda data, draw: data + draw.randbytes(draw.choice((1, 100, 10_000))),
    "doubled": lambda data, draw: data + data,
    "a part removed": _removed,
    "a part overwritten": _zeroed,
    "a part repeated": _repeated,
    "empty": lambda data, draw: b"",
    "noise": lambda data, draw: draw.randbytes(draw.choice((1, 4, 200, 5000))),
    "noise behind its start": lambda data, draw: data[:16] + draw.randbytes(400),
}

CELLS = (
    "", " ", "nan", "NaN", "inf", "-inf", "1e400", "-1", "0", "0.0", "1e-320", "9" * 5000, "٣", "½",
    "=HYPERLINK(0)", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "/dev/stdin", "\0",
    "a\0b", "\ufeff", "\u202e", "x" * 300, "x" * 200_000, "é", "𝒳",
    "\ud7ff", "'", "a,b", "a;b", "\t", "\\",
    "C:\\x\\y.png", "~", ".", "..", "a/..", "%s", "{0}", "null", "None", "true", "train", "test",
    "1,5", "`size`", "[1]", "0x10", "1_000", "\x1b[31m",
)  # fmt: skip


def hostile_table(text: str, draw: Draw) -> tuple[str, bytes]:
    """A csv or list with one thing about it as no reader wants it."""
    lines = text.splitlines()
    separator = max(",; \t", key=lines[-1].count)
    what = draw.choice(
        ("a cell", "a cell of the header", "cells of a column", "a row twice", "a row more",
         "a field more", "a field less", "a quote", "the header alone", "no header", "encoding",
         "line ends", "a column twice", "many columns", "many rows", "bytes")
    )  # fmt: skip
    rows = [line.split(separator) for line in lines]
    at = draw.randrange(len(rows))
    cell = draw.choice(CELLS)
    place = draw.randrange(len(rows[at]))
    match what:
        case "a cell":
            rows[at][place] = cell
        case "a cell of the header":
            rows[0][draw.randrange(len(rows[0]))] = cell
        case "cells of a column":
            for row in rows[1:]:
                if place < len(row):
                    row[place] = cell
        case "a row twice":
            rows.insert(at, rows[at])
        case "a row more":
            rows.insert(at, [draw.choice(CELLS) for _ in rows[at]])
        case "a field more":
            rows[at].append(cell)
        case "a field less":
            rows[at].pop()
        case "a quote":
            rows[at][place] = (
                draw.choice(('"', '""', '"a', 'a"b', '"a"b', '"a\nb"')) + rows[at][place]
            )
        case "the header alone":
            rows = rows[:1]
        case "no header":
            rows = rows[1:]
        case "a column twice":
            rows = [[*row, row[min(place, len(row) - 1)]] for row in rows]
        case "many columns":
            rows = [row + row * 2000 for row in rows]
        case "many rows":
            rows += [[f"{cell}{i}" for cell in rows[-1]] for i in range(20_000)]
    ending = draw.choice(("\r\n", "\r", "\n\n", "\u2028")) if what == "line ends" else "\n"
    written = ending.join(separator.join(row) for row in rows) + ending
    if what == "encoding":
        encoding = draw.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7", "latin-1"))
        return f"{what} {encoding}", (written + "é").encode(encoding)
    data = written.encode("utf-8", "surrogatepass")
    if what == "bytes":
        return damaged(data, draw)
    return (f"{what}: {cell[:20]!r}" if "cell" in what else what), data


LEAVES: tuple[Any, ...] = (
    None, True, [], {}, "", "x", -1, 0, 1.5, 1e308, float("nan"), float("inf"), 10**30, "../../x",
    [1, [2]], {"a": 1}, "x" * 100_000, "\0", "\ud800", "a\nb", [None] * 3, {"": {"": {}}}, "`size`",
)  # fmt: skip


def hostile_json(text: str, draw: Draw) -> tuple[str, bytes]:
    """JSON with a value, a key or its form changed."""
    what = draw.choice(
        ("a value", "a value", "a value", "a key gone", "a key more", "form", "bytes")
    )
    if what == "bytes":
        return damaged(text.encode(), draw)
    if what == "form":
        number = draw.randrange(len(FORMS))
        return f"form {number}", FORMS[number]
    lines = text.splitlines()
    line = draw.randrange(len(lines)) if len(lines) > 1 and lines[0].endswith("}") else None
    tree = json.loads(text if line is None else lines[line])
    node, key = _draw_place(tree, draw)
    if node is None:
        tree, name = draw.choice(LEAVES), "all"
    elif what == "a value":
        node[key], name = draw.choice(LEAVES), str(key)
    elif what == "a key gone":
        del node[key]
        name = str(key)
    else:
        name = draw.choice(("", "epochs", "data.size", "__class__", "x" * 1000, "\0"))
        if isinstance(node, dict):
            node[name] = draw.choice(LEAVES)
        else:
            node.append(draw.choice(LEAVES))
    changed = json.dumps(tree)
    if line is not None:
        changed = "\n".join([*lines[:line], changed, *lines[line + 1 :]]) + "\n"
    return f"{what}: {name[:20]}", changed.encode("utf-8", "surrogatepass")


def _draw_place(tree: Any, draw: Draw) -> tuple[Any, Any]:
    node, key = None, None
    while isinstance(tree, dict | list) and tree:
        node, key = tree, draw.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
        tree = tree[key]
        if draw.random() < 0.2:
            break
    return node, key


FORMS = (
    b"[" * 100_000, b'{"a":' * 100_000, b"1" * 100_000, b"null", b"[]", b"{}", b'"x"', b"NaN", b"0",
    b"\xff\xfe{\0}\0", b"\xef\xbb\xbf{}", b"{}{}", b"{}\n{}\n", b'{"step": 1}', b"\x80\x04]\x94.",
    b'{"step": "1"}\n', b'{"step": NaN}\n{"step": 1e999}\n', b"{" + b'"a":1,' * 200_000 + b'"b":2}',
)  # fmt: skip
