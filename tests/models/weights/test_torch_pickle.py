"""Hostile pickles: none runs, wherever in a file it stands; each is an error of one line."""

import contextlib
import io
import os
import pickle
import struct

import pytest
from support.optional import require
from support.pickles import (
    MAKE,
    called,
    error_of,
    name,
    number,
    program,
    state,
    storage,
    stream,
    tensor,
    text,
    tuple_of,
    written,
    zipped,
)

from deepknn_jax.models.weights.torch_pickle import read_pickle

FORMS = list(MAKE)


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker):
    """Programs that make the file `marker` when a pickle is simply loaded."""
    command, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    reduce = pickle.dumps(Attack(os.system, command), 2)[2:-1]
    state_setter = (
        called("types.SimpleNamespace")
        + b"}" + text("__setstate__") + name("os.system") + b"sb" + text(command) + b"b"
    )  # fmt: skip
    return {
        "reduce": reduce,
        "global": called("builtins.eval", text(code)),
        "stack global": text("builtins") + text("eval") + b"\x93" + tuple_of(text(code)) + b"R",
        "protocol 4": pickle.dumps(Attack(os.system, command), 4)[2:-1],
        "getattr": called("builtins.getattr", called("builtins.__import__", text("os")),
                          text("system")) + tuple_of(text(command)) + b"R",
        "inst": b"(" + text(command) + b"ios\nsystem\n",
        "obj": b"(" + name("os.system") + text(command) + b"o",
        "newobj": b"(" + text(command) + b"l0" + name("subprocess.Popen")
                  + tuple_of(tuple_of(text("touch"), text(str(marker)))) + b"\x81" + b"0" + reduce,
        "setstate": state_setter,
        "in a state_dict": state({"a": reduce}),
        "as attributes": called("collections.OrderedDict") + state({"_metadata": reduce}) + b"b",
        "in a key": b"}" + reduce + b"Ns",
    }  # fmt: skip


ATTACKS = list(attacks("x"))
# Where in a file an attack may stand.
PLACES = {
    "zip": lambda attack: zipped(attack),
    "object": lambda attack: stream(attack),
    "magic": lambda attack: stream(state({"a": tensor()}), magic=attack),
    "protocol": lambda attack: stream(state({"a": tensor()}), protocol=attack),
    "system": lambda attack: stream(state({"a": tensor()}), system=attack),
    "keys": lambda attack: stream(state({"a": tensor()}), keys=attack),
    "persistent id": lambda attack: zipped(state({"a": tensor(of=attack + b"Q")})),
    "storage": lambda attack: zipped(state({"a": tensor(of=attack)})),
    "bare pickle": program,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_runs_anywhere_in_a_file(tmp_path, attack):
    marker = tmp_path / "marker"
    body = attacks(marker)[attack]
    for place, make in PLACES.items():
        message = error_of(written(tmp_path / f"{place}.pth", make(body)))
        assert "not read" in message, (place, message)
        assert not marker.exists()
    # The same bytes are no dud: a plain pickle.loads obeys them.
    with contextlib.suppress(TypeError, AttributeError):  # of what follows the call
        pickle.loads(program(body))
    assert marker.exists()


@pytest.mark.parametrize(
    "asked",
    [
        "torch.load", "torch.jit.load", "torch.storage._load_from_bytes", "torch.UntypedStorage",
        "torch.utils._config_module.load_config", "torch.FloatStorage.from_file",
        "torch._utils._rebuild_device_tensor_from_numpy", "torch.QInt8Storage", "builtins.dict",
        "torch.nn.modules.container.Sequential", "numpy.load", "collections.Counter",
        "deepknn_jax.models.weights.torch_files.read_tensors",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_a_name_outside_the_list_is_refused_by_name(tmp_path, form, asked):
    message = error_of(written(tmp_path / "w.pth", MAKE[form](called(asked, text("x")))))
    assert message.startswith(f"asks for {asked}, which is not part of a tensor")
    assert "state_dict" in message


@pytest.mark.interop
@pytest.mark.parametrize("form", FORMS)
def test_a_pickled_model_is_told_what_to_save(tmp_path, form):
    torch, path = require("torch"), tmp_path / "w.pth"
    torch.save(torch.nn.Sequential(), path, _use_new_zipfile_serialization=form == "zip")
    assert error_of(path).startswith("asks for torch.nn.modules.container.Sequential, ")


def test_a_name_with_line_breaks_stays_on_one_line(tmp_path):
    evil = text("os\nFIRST LINE\x1b[31m") + text("system") + b"\x93"
    assert "os\\nFIRST LINE\\x1b[31m.system" in error_of(written(tmp_path / "w.pth", zipped(evil)))


HOOKS = called("collections.OrderedDict")
NESTED = b"N" + b"\x85" * 200_000
MALFORMED = {
    "beyond by size": (tensor(size=(2, 4)), "beyond its storage"),
    "beyond by stride": (tensor(stride=(4, 1)), "beyond its storage"),
    "beyond by offset": (tensor(offset=1), "beyond its storage"),
    "huge by stride 0": (tensor(size=(2**40,), stride=(0,)), "beyond its storage"),
    "huge stride": (tensor(stride=(2**62, 1)), "beyond its storage"),
    "size overflows": (tensor(size=(2**62, 2**62)), "beyond its storage"),
    "empty but huge": (tensor(size=(0, 2**62, 2**62), stride=(1, 1, 1)), ""),
    "negative size": (tensor(size=(-2, -3)), "proper shape"),
    "negative stride": (tensor(offset=5, stride=(-3, -1)), "proper shape"),
    "negative offset": (tensor(offset=-1), "proper shape"),
    "number beyond int64": (tensor(offset=2**70), "proper shape"),
    "one stride too few": (tensor(stride=(1,)), "proper shape"),
    "a thousand axes": (tensor(size=(1,) * 1000, stride=(1,) * 1000), "proper shape"),
    "size of strings": (
        called("torch._utils._rebuild_tensor_v2", storage(), number(0), tuple_of(text("2")),
               tuple_of(text("1")), b"\x89", HOOKS),
        "proper shape",
    ),
    "no storage": (tensor(of=number(3)), "describes no tensor"),
    "dict as storage": (tensor(of=HOOKS), "describes no tensor"),
    "class as storage": (tensor(of=name("torch.FloatStorage")), "describes no tensor"),
    "storage called": (called("torch.FloatStorage", number(2**40)), "describes no tensor"),
    "parameter of no tensor": (
        called("torch._utils._rebuild_parameter", number(1), b"\x88", HOOKS), "describes no tensor"
    ),
    "persistent id a string": (text("storage") + b"Q", "no storage of a tensor"),
    "persistent id of a module": (
        tuple_of(text("module"), name("torch.FloatStorage"), text("f.py"), text("x")) + b"Q",
        "no storage of a tensor",
    ),
    "persistent id nested": (NESTED + b"Q", "no storage of a tensor"),
    "storage type a string": (
        tuple_of(text("storage"), text("torch.FloatStorage"), text("0"), b"N", number(6)) + b"Q",
        "no storage of a tensor",
    ),
    "storage length negative": (tensor(of=storage(length=-6)), "no storage of a tensor"),
    "storage length a lie": (
        state({"a": tensor(of=storage(length=2**40))}), "length it claims"
    ),
    "storage of two types": (
        tuple_of(storage(), storage(kind="torch.IntStorage")), "two types or lengths"
    ),
    "view beyond": (
        tensor(of=storage("0", "torch.FloatStorage", 6, tuple_of(text("9"), number(3), number(4)))),
        "view that reaches beyond",
    ),
    "key with a hash to overflow": (b"}" + NESTED + b"Ns", "keys other than"),
    "build of a storage": (storage() + b"}b", "pickle's BUILD"),
    "build of a name": (name("torch.FloatStorage") + state({"x": b"N"}) + b"b", "pickle's BUILD"),
    "memo of four billion": (b"}" + b"r\xff\xff\xff\xff", "no state_dict"),
    "string of four billion": (b"X\xff\xff\xff\xffabc", "cannot be read"),
    "bytes of 2^60": (b"\x8e" + struct.pack("<Q", 2**60), "cannot be read"),
    "an old string of odd escapes": (b"S'\\e'\n", ""),  # pickletools warns
    "an empty stack": (b"R", "cannot be read"),
    "nothing in the memo": (b"h\x05", "cannot be read"),
    "extension registry": (b"\x82\x01", "pickle's EXT1"),
    "a list": (b"](" + tensor() + b"e", "no state_dict"),
    "a lone tensor": (tensor(), "no state_dict"),
    "an empty dict": (b"}", "no state_dict"),
    "a number by name": (state({"a": tensor(), "b": number(3)}), "holds b, which is no tensor"),
    "a tensor by number": (b"}K\x03" + tensor() + b"s", "holds 3, which is no tensor"),
    "storage absent": (state({"a": tensor(of=storage("nowhere"))}), "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_is_an_error(tmp_path, form, case):
    body, expected = MALFORMED[case]
    message = error_of(written(tmp_path / "w.pth", MAKE[form](body)))
    assert expected in message


def test_one_storage_many_times_is_no_model(tmp_path):
    long = tensor(of=storage(length=1000), size=(1000,), stride=(1,)) + b"q\x01"
    body = state({"a": long} | {str(i): b"h\x01" for i in range(9)})
    path = written(tmp_path / "w.pth", zipped(body, {"data/0": bytes(4000)}))
    assert "tensors of more than 4 times its size" in error_of(path)


def test_one_list_of_pairs_makes_one_dict():
    """Else a small file of one long list and many uses of it would fill the memory."""
    pairs = b"](" + b"](" + text("a") + b"Nee" + b"q\x01"
    first = called("collections.OrderedDict", pairs)
    again = called("collections.OrderedDict", b"h\x01")
    read = read_pickle(io.BytesIO(program(tuple_of(first, again))))
    assert read == ({"a": None}, {})


@pytest.mark.parametrize("which", ["magic", "protocol", "system", "keys"])
def test_other_pickles_of_the_stream_may_not_refer_to_storages(tmp_path, which):
    path = written(tmp_path / "w.pth", stream(state({"a": tensor()}), **{which: storage()}))
    assert error_of(path).startswith("refers to something that is no storage")
