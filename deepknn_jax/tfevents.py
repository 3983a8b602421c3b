"""The few records that TensorBoard wants: protocol buffers of tensorflow/core/util/event.proto.

Written by hand: tensorboardX brings PyTorch where that is installed, which takes longer than many a
training, and on a full disk its writer's thread dies, for which the training then waits for ever.
"""

import struct
import time

_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types of a field
_START = 1  # SessionLog.START


def version() -> bytes:
    """The record that begins a file."""
    return _record(_event(_field(3, b"brain.Event:2")))


def start(step: int) -> bytes:
    """The record that hides what earlier files hold from `step` on."""
    return _record(_event(_field(2, step), _field(7, _field(1, _START))))


def scalar(name: str, value: float, step: int) -> bytes:
    """The record of one scalar, shown as float32."""
    shown = _field(1, name.encode()) + _field(2, value)
    return _record(_event(_field(2, step), _field(5, _field(1, shown))))


def _event(*fields: bytes) -> bytes:
    seconds = struct.pack("<d", time.time())
    return _varint(1 << 3 | _DOUBLE) + seconds + b"".join(fields)


def _field(number: int, value: bytes | float) -> bytes:
    """A field of a message: bytes or a message, an int, or a float32; an int of 0 is left out."""
    if isinstance(value, bytes):
        return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    if isinstance(value, float):
        return _varint(number << 3 | _FLOAT) + _float32(value)
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:  # above what float32 holds
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _varint(value: int) -> bytes:
    """A number that is not negative, seven bits a byte, the low ones first."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _record(data: bytes) -> bytes:
    """A record of TensorFlow's files: length and data, each with its checksum."""
    parts = (struct.pack("<Q", len(data)), data)
    return b"".join(part + struct.pack("<I", _masked(part)) for part in parts)


def _masked(data: bytes) -> int:
    """CRC-32C (Castagnoli) as TensorFlow masks it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _of_byte(crc: int) -> int:
    for _ in range(8):
        crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc


_TABLE = tuple(map(_of_byte, range(256)))
