"""metrics.jsonl and TensorBoard's events, the latter read by a reader of our own."""

import io
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from deepknn_jax.errors import UserError
from deepknn_jax.logs import duration, quiet, read_records, record_log, say


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", r"\xfc\udce9"), ("utf-8", "ü\\udce9")])
def test_a_line_is_shown_whatever_the_terminal_can_show(monkeypatch, encoding, shown):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr("sys.stdout", terminal)
    say("ü\udce9")
    assert terminal.buffer.getvalue().decode(encoding) == f"{shown}\n"


def crc32c(data):
    """Castagnoli's checksum, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(path):
    """The events of one file: records of length, checksum, data, checksum."""
    content, events = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        data = content[12 : 12 + length]
        assert struct.unpack("<I", content[8:12])[0] == masked(content[:8])
        assert struct.unpack("<I", content[12 + length : 16 + length])[0] == masked(data)
        events.append(Event.FromString(data))
        content = content[16 + length :]
    return events


def board(workdir):
    """What TensorBoard shows, (step, name) -> value: a START hides its step and later ones."""
    shown = {}
    for path in sorted((workdir / "tensorboard").iterdir()):
        version, start, *events = read_events(path)
        assert version.file_version == "brain.Event:2"
        assert start.session_log.status == SessionLog.START
        shown = {key: value for key, value in shown.items() if key[0] < start.step}
        for event in events:
            (value,) = event.summary.value
            shown[event.step, value.tag] = value.simple_value
    return shown


def test_the_checksum_is_castagnoli_s():
    assert crc32c(b"123456789") == 0xE3069283


def test_records_come_back_and_reach_tensorboard(tmp_path):
    record = record_log(tmp_path, 0)
    first = {"step": 2, "epoch": 0.5, "loss": 0.25, "active": 1.0}
    second = {"step": 4, "epoch": 1.0, "train_acc": 0.75}
    record(first)
    assert read_records(tmp_path / "metrics.jsonl") == [first]  # at once, a kill loses nothing
    assert board(tmp_path) == {(2, "loss"): 0.25, (2, "active"): 1.0}
    (events,) = (tmp_path / "tensorboard").iterdir()
    before = events.stat().st_size
    record(second)
    assert read_records(tmp_path / "metrics.jsonl") == [first, second]
    assert events.stat().st_size > before
    assert board(tmp_path)[4, "train_acc"] == 0.75


@pytest.mark.parametrize("restored", [0, 2, 3, 4, 9])
def test_a_resumed_run_cuts_back_to_its_checkpoint(tmp_path, restored):
    record = record_log(tmp_path, 0)
    for step in (2, 4, 6):
        record({"step": step, "loss": 0.5})
    resumed = record_log(tmp_path, restored)
    kept = [step for step in (2, 4, 6) if step <= restored]
    assert [entry["step"] for entry in read_records(tmp_path / "metrics.jsonl")] == kept
    resumed({"step": 10, "loss": 0.125})
    assert [r["step"] for r in read_records(tmp_path / "metrics.jsonl")] == [*kept, 10]
    assert board(tmp_path) == {(step, "loss"): 0.5 for step in kept} | {(10, "loss"): 0.125}


@pytest.mark.parametrize("rest", ['{"step": 6, "lo', "{", "\n", ""])
def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path, rest):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n' + rest)
    assert read_records(path) == [{"step": 2}, {"step": 4}]
    record_log(tmp_path, 4)({"step": 6})
    assert read_records(path) == [{"step": 2}, {"step": 4}, {"step": 6}]


def test_a_full_disk_is_an_error_here_and_not_a_thread_s_end(tmp_path):
    record = record_log(tmp_path, 0)
    (events,) = (tmp_path / "tensorboard").iterdir()
    events.unlink()
    events.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as error:
        record({"step": 1, "loss": 0.5})
    assert error.value.filename == str(events)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723.4, "1:02:03")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    "line", [b'{"step": 3, "lo', b"[1]", b'{"loss": 1}', b'{"step": "3"}', b"\xff"]
)
def test_a_line_in_the_middle_that_is_no_record_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 2}\n' + line + b'\n{"step": 4}\n')
    for read in (lambda: read_records(path), lambda: record_log(tmp_path, 4)):
        with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is no record .*mend it"):
            read()
    assert path.read_bytes().count(b"\n") == 3


def test_quiet_is_for_the_block_alone(capsys):
    with quiet():
        say("in it")
    say("after it")
    assert capsys.readouterr().out == "after it\n"
