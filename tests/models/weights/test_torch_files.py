"""Published files read without torch: equal to what torch reads, or an error of one line."""

import json
import struct
import subprocess
import sys
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.optional import require
from support.pickles import (
    MAKE,
    NUMBERS,
    VIEW,
    called,
    error_of,
    number,
    state,
    storage,
    stream,
    tensor,
    text,
    tuple_of,
    written,
    zipped,
)
from support.runs import ROOT

from deepknn_jax.errors import UserError
from deepknn_jax.models.weights.torch_files import read_tensors

FORMS = list(MAKE)


def saved(path, thing, form="zip", **options):
    """torch.save in one of its two forms."""
    torch = require("torch")
    torch.save(thing, path, _use_new_zipfile_serialization=form == "zip", **options)
    return path


@pytest.mark.interop
@pytest.mark.parametrize("form", FORMS)
def test_the_hand_made_file_is_what_torch_reads_too(tmp_path, form):
    of = storage("0", "torch.FloatStorage", 6, *VIEW[form])
    path = written(tmp_path / "w.pth", MAKE[form](state({"a": tensor(of=of)})))
    expected = require("torch").load(path, weights_only=True)["a"].numpy()
    np.testing.assert_array_equal(read_tensors(path)["a"], expected)
    np.testing.assert_array_equal(expected, NUMBERS.reshape(2, 3))


# What torch writes.


def things():
    """Tensors of all kinds and shapes, some of them views of one storage."""
    torch = require("torch")
    base = torch.arange(24.0).reshape(2, 3, 4)
    return {
        "plain": torch.randn(3, 2),
        "base": base,
        "transposed": base.transpose(0, 2),
        "part": base[1, 1:, ::2],
        "parameter": torch.nn.Parameter(torch.randn(4)),
        "half": torch.randn(5).half(),
        "bfloat16": torch.randn(2, 5).bfloat16(),
        "double": torch.randn(2, dtype=torch.float64),
        "num_batches_tracked": torch.tensor(7),
        "int": torch.arange(3, dtype=torch.int32),
        "short": torch.arange(3, dtype=torch.int16),
        "char": torch.tensor([-3, 3], dtype=torch.int8),
        "byte": torch.tensor([200], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "strange stride": torch.as_strided(torch.randn(4), (1, 4), (2**40, 1)),
    }


def check(tensors, expected):
    """Same names in the same order, same bits, arrays of our own."""
    torch = require("torch")
    assert list(tensors) == list(expected)
    for key, value in expected.items():
        array, value = tensors[key], value.detach()
        assert array.shape == tuple(value.shape)
        if value.dtype == torch.bfloat16:
            assert array.dtype == ml_dtypes.bfloat16
            array, value = array.view(np.int16), value.contiguous().view(torch.int16)
        assert array.dtype == value.numpy().dtype
        np.testing.assert_array_equal(array, value.numpy())
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not any(np.shares_memory(array, other) for k, other in tensors.items() if k != key)


@pytest.mark.interop
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", FORMS)
def test_tensors_are_torchs_to_the_bit(tmp_path, form, protocol):
    expected = things()
    path = saved(tmp_path / "w.pth", expected, form, pickle_protocol=protocol)
    check(read_tensors(path), expected)


@pytest.mark.interop
def test_safetensors_too(tmp_path):
    require("torch")
    from safetensors.torch import load_file, save_file

    expected = {key: value.detach().clone().contiguous() for key, value in things().items()}
    save_file(expected, tmp_path / "w.safetensors")
    tensors, again = read_tensors(tmp_path / "w.safetensors"), load_file(tmp_path / "w.safetensors")
    check(
        {key: tensors[key] for key in sorted(tensors)}, {key: again[key] for key in sorted(again)}
    )


@pytest.mark.interop
@pytest.mark.parametrize("form", FORMS)
def test_a_models_state_dict_its_wrappers_and_data_parallel(tmp_path, form):
    torch = require("torch")
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    parallel = torch.nn.DataParallel(layers).state_dict()
    assert all(key.startswith("module.") for key in parallel)
    wrapped = {"epoch": 3, "best": 0.5, "state_dict": parallel, "arch": "resnet50"}
    for thing in (layers.state_dict(), parallel, wrapped, {"model": parallel, "optimizer": {}}):
        check(read_tensors(saved(tmp_path / "w.pth", thing, form)), layers.state_dict())


@pytest.mark.interop
@pytest.mark.parametrize("form", FORMS)
def test_a_pickle_as_python_2_and_torch_0_3_wrote_it(tmp_path, form):
    """Strings of bytes, an OrderedDict of a list of pairs, _rebuild_tensor."""
    shape = [tuple_of(*map(number, part)) for part in ((2, 3), (3, 1))]
    of = storage("0", "torch.FloatStorage", 6, *VIEW[form])
    old = called("torch._utils._rebuild_tensor", of, number(0), *shape)
    pair = b"](U\x01a" + old + b"e"
    body = called("collections.OrderedDict", b"](" + pair + b"e")
    path = written(tmp_path / "w.pth", MAKE[form](body))
    check(read_tensors(path), require("torch").load(path, weights_only=True))


@pytest.mark.interop
def test_views_of_storages_in_the_old_form(tmp_path):
    view = storage("0", "torch.FloatStorage", 6, tuple_of(text("9"), number(2), number(4)))
    path = written(
        tmp_path / "w.pth", stream(state({"a": tensor(of=view, offset=1, size=(3,), stride=(1,))}))
    )
    np.testing.assert_array_equal(read_tensors(path)["a"], [3, 4, 5])
    check(read_tensors(path), require("torch").load(path, weights_only=True))


@pytest.mark.interop
def test_a_big_endian_file(tmp_path):
    records = {"byteorder": b"big", "data/0": NUMBERS.astype(">f4").tobytes()}
    path = written(tmp_path / "w.pth", zipped(state({"a": tensor()}), records))
    check(read_tensors(path), require("torch").load(path, weights_only=True))
    np.testing.assert_array_equal(read_tensors(path)["a"].ravel(), NUMBERS)


def test_torch_is_not_imported(tmp_path):
    path = written(tmp_path / "w.pth", zipped(state({"a": tensor()})))
    code = (
        "import sys, pathlib, deepknn_jax.models.weights.torch_files as f;"
        f"f.read_tensors(pathlib.Path({str(path)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# Damaged files.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_an_error(tmp_path, form, share):
    content = MAKE[form](state({"a": tensor()}))
    path = written(tmp_path / "w.pth", content[: int(share * len(content))])
    assert "truncated or damaged" in error_of(path)


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "safetensors"])
def test_absent_empty_and_other_files(tmp_path, suffix):
    path = tmp_path / f"w.{suffix}"
    assert error_of(path) == "no such file"
    assert error_of(written(path, b"")) == "is empty: fetch it again"
    page = error_of(written(path, b"<!DOCTYPE html><html>not found</html>"))
    assert "truncated or damaged" in page or "it begins with b'<!DOCTYP'" in page


def test_pickles_of_other_programs(tmp_path):
    path = written(tmp_path / "w.pth", b"\x80\x02}.")
    assert error_of(path) == "is a pickle, but not of torch.save"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "x")
    assert error_of(path) == "is a zip without data.pkl: not of torch.save"


def test_a_zip_cannot_unpack_to_more_than_its_size(tmp_path):
    body = state({"a": tensor(of=storage(length=2**20), size=(2**20,), stride=(1,))})
    records = {"data/0": bytes(2**22)}
    content = zipped(body, records, compression=zipfile.ZIP_DEFLATED)
    assert len(content) < 2**14
    assert error_of(written(tmp_path / "w.pth", content)).startswith("is a compressed zip")
    # One record that the directory lists twice, and one with a claimed size.
    twice = bytearray(zipped(body, records))
    directory = twice.index(b"PK\x01\x02")
    end = twice.index(b"PK\x05\x06")
    entries, tail = bytes(twice[directory:end]), bytearray(twice[end:])
    count, size = struct.unpack_from("<HI", tail, 10)
    struct.pack_into("<HHI", tail, 8, 2 * count, 2 * count, 2 * size)
    path = written(tmp_path / "w.pth", bytes(twice[:directory]) + entries * 2 + tail)
    assert "its parts are larger than the file" in error_of(path)
    claimed = zipped(body).replace(struct.pack("<II", 24, 24), struct.pack("<II", 2**31, 2**31))
    assert "its parts are larger" in error_of(written(path, claimed))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F99"])
def test_a_safetensors_type_that_no_backbone_has(tmp_path, dtype):
    header = json.dumps({"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}).encode()
    path = written(tmp_path / "w.safetensors", struct.pack("<Q", len(header)) + header + bytes(4))
    message = error_of(path)
    assert dtype in message


def whole(form):
    """A small file of each form with several tensors."""
    if form == "safetensors":
        header = {"__metadata__": {"format": "pt"}}
        header["a"] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
        header["b"] = {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]}
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + NUMBERS.tobytes() + bytes(4)
    part = tensor(offset=1, size=(2,), stride=(2,))
    return MAKE[form](state({"module.a": tensor(), "module.b": part}))


WHOLE = {form: whole(form) for form in ("zip", "stream", "safetensors")}


@pytest.mark.parametrize("form", WHOLE)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_arrays_or_an_error(tmp_path, form, data):
    """Whatever bytes change, go or come: no other exception, and no more memory than allowed."""
    content = bytearray(WHOLE[form])
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    how = data.draw(st.sampled_from(["leave", "cut", "drop", "repeat"]))
    if how == "cut":
        content = content[:last]
    elif how == "drop":
        content = content[:first] + content[last:]
    elif how == "repeat":
        content = content[:last] + content[first:]
    path = tmp_path / f"w.{'safetensors' if form == 'safetensors' else 'pth'}"
    path.write_bytes(content)
    tensors, message = {}, ""
    try:
        tensors = read_tensors(path)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert sum(array.nbytes for array in tensors.values()) <= 4 * len(content)
