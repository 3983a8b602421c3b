"""The page and its JSON: the same answers as the run's, to nobody else, and nothing left behind."""

import io
import json
import os
import re
import shutil
import struct
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.answering import CLASSES, FEATURES, IMAGES, examples, model_of
from support.serving import ask, multipart, predicted, serving

from deepknn_jax.answers import gallery
from deepknn_jax.answers.journal import count
from deepknn_jax.answers.model import write
from deepknn_jax.answers.run import open_run

pytestmark = pytest.mark.serve


def png(image):
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def images():
    """{name: PNG} of new images, one a class."""
    inputs = examples(IMAGES, np.arange(3), np.random.default_rng(5))
    return {f"new <{i}>.png": png(each) for i, each in enumerate(inputs)}


@pytest.fixture(scope="module")
def made(tmp_path_factory, compiled_once):
    folder = tmp_path_factory.mktemp("made") / "model"
    write(folder, model_of(IMAGES), "")
    return folder


@pytest.fixture(scope="module")
def port(made):
    with serving(made) as port:
        yield port


@pytest.fixture
def own(made, tmp_path):
    """A run of the test's own, and its port, where labels can be corrected."""
    folder = shutil.copytree(made, tmp_path / "model")
    with serving(folder, writable=True) as port:
        yield folder, port


@pytest.fixture(autouse=True)
def nothing_left(tmp_path, monkeypatch):
    """Files that came lie in a temporary folder meanwhile, which is empty after each test."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield
    assert list((tmp_path / "temporary").iterdir()) == []


def test_json_says_what_the_run_says(made, port, images, tmp_path):
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    run = open_run(made)
    found = run.predict([tmp_path / name for name in images])
    told = predicted(port, images.items())
    assert list(told) == list(images)
    for i, each in enumerate(told.values()):
        assert each["label"] == CLASSES[found.labels[i]]
        assert list(each["shares"]) == list(each["p_values"]) == list(CLASSES)
        np.testing.assert_allclose(list(each["shares"].values()), found.shares[i], rtol=1e-5)
        np.testing.assert_allclose(list(each["p_values"].values()), found.p_values[i], rtol=1e-5)
        assert each["credibility"] == pytest.approx(found.credibility[i], rel=1e-5)
        assert each["set"] == [CLASSES[c] for c in np.flatnonzero(found.sets[i])]
        assert each["abstain"] == (found.abstain[i] or None)
        near = each["neighbours"]
        rows = found.indices[i]
        assert [one["name"] for one in near] == [f"case <{row}>.png" for row in rows]
        assert [one["label"] for one in near] == [
            CLASSES[run.model.gallery.labels[r]] for r in rows
        ]
        far = [one["distance"] for one in near]
        np.testing.assert_allclose(far, found.distances[i], rtol=1e-5)


def test_the_page_shows_the_evidence_and_fetches_nothing(port, images):
    status, headers, html = ask(port)
    assert status == 200
    assert '<input type="file" name="images" multiple required>' in html
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] is None
    near = predicted(port, images.items())
    status, _, html = ask(port, "/", images.items())
    assert status == 200
    for each in near.values():
        for one in each["neighbours"]:
            assert one["name"].replace("<", "&lt;").replace(">", "&gt;") in html
    assert "<title>Answers for 3 files</title>" in html
    assert "correct" not in html
    assert "<script" not in html
    assert not re.findall(r"(?:href|src)=\"(?!#)[^\"]*|url\((?!data:)", html)


def test_a_file_twice_has_two_answers(port, images):
    (name, data), *_ = images.items()
    first, second = predicted(port, [(f"folder/{name}", data), (name, data)]).values()
    assert (first["name"], second["name"]) == (name, f"{name} (2)")
    assert first["neighbours"] == second["neighbours"]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
    """A small PNG that claims to be large, and is."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    rows = zlib.compress(bytes((width // 8 + 1) * 8000), 9)
    return b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def dicom(syntax, rest=b""):
    value = syntax + b"\0" * (len(syntax) % 2)
    element = struct.pack("<HH2sH", 2, 16, b"UI", len(value)) + value
    group = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(element))
    return bytes(128) + b"DICM" + group + element + rest


def size(rows, columns):
    return b"".join(struct.pack("<HH2sHH", 0x28, tag, b"US", 2, value)
                    for tag, value in ((0x10, rows), (0x11, columns)))  # fmt: skip


def tiff(pages):
    file = io.BytesIO()
    first, *rest = [Image.new("1", (8, 8))] * pages
    first.save(file, "TIFF", save_all=True, append_images=rest)
    return file.getvalue()


def hostile(images):
    good = next(iter(images.values()))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    return {
        "cut.png": (good[:-30], "truncated|Truncated"),
        "text.png": (b"no image\n", "neither DICOM nor an image"),
        "empty.png": (b"", "neither DICOM nor an image"),
        "bomb.png": (bomb(8000, 8000), "8,000 x 8,000 pixels; at most 50,000,000"),
        "huge.png": (bomb(60000, 60000), "more than 50,000,000 pixels"),
        "deflated.dcm": (dicom(b"1.2.840.10008.1.2.1.99", zlib.compress(bytes(99))), "deflated"),
        "large.dcm": (dicom(b"1.2.840.10008.1.2.1", size(9000, 9000)), "9,000 x 9,000 pixels"),
        "junk.dcm": (dicom(b"1.2.840.10008.1.2.1", bytes(range(256)) * 9), "."),
        "runs.png": (eps, "EPS files are not taken"),
        "pages.tif": (tiff(1002), "more than 1,000 pages"),
        "list.csv": (b"image\n/etc/passwd\n", "neither DICOM nor an image"),
        "a.npz": (b"PK junk", "is not a sound .npz file"),
        "a.npy": (b"\x93NUMPY junk", "."),
    }


def test_a_hostile_file_is_a_line_and_the_rest_is_answered(port, images, tmp_path):
    found = hostile(images)
    files = [(name, data) for name, (data, _) in found.items()]
    told = predicted(port, [*files, *images.items()])
    assert {name for name, each in told.items() if "error" not in each} == set(images)
    for name, (_, words) in found.items():
        reason = told[name]["error"]
        assert re.search(words, reason), (name, reason)
        assert "\n" not in reason
        assert str(tmp_path) not in reason
    status, _, html = ask(port, "/", files)
    assert status == 200
    assert html.count("</span>: ") == len(files)


def test_what_is_too_much_is_refused_by_its_bytes(port, images, monkeypatch):
    from deepknn_jax.serve import app, uploads

    monkeypatch.setattr(app, "MOST_BYTES", 1 << 20)
    large = [("a.png", bytes(2 << 20))]
    status, _, text = ask(port, "/api/predict", large)
    assert (status, json.loads(text)) == (
        413,
        {"error": "more than 1 MiB at once: send fewer files"},
    )
    status, _, html = ask(port, "/", large)
    assert status == 413
    assert "more than 1 MiB at once" in html
    kind, body = multipart(large)
    parts = (body[i : i + 65536] for i in range(0, len(body), 65536))
    headers = {"Content-Type": kind, "Transfer-Encoding": "chunked"}
    status, _, text = ask(port, "/api/predict", body=parts, encode_chunked=True, headers=headers)
    assert status == 413
    monkeypatch.setattr(uploads, "_DROPPED", 0)
    status, _, text = ask(port, "/api/predict", [("a.png", bytes((1 << 20) + 9000))])
    assert status == 413


@pytest.mark.parametrize(
    ("files", "more", "status", "words"),
    [([("a.png", b"x")] * 65, {}, 400, "Too many files. Maximum number of files is 64"),
     ([("", b"")], {}, 400, "no file was chosen"),
     ([("a.png", b"x")], {"body": b"--nothing\r\n"}, 400, "the files cannot be read: "),
     ([], {"body": b"x", "headers": {"Content-Type": "image/png"}}, 415, "multipart/form-data")],
)  # fmt: skip
def test_what_is_no_form_of_files_is_a_line(port, files, more, status, words):
    found, _, text = ask(port, "/api/predict", files, **more)
    assert found == status
    assert words in json.loads(text)["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "evil.example"}, 400), ({"Host": "evil.example:{port}"}, 400),
     ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
     ({"Origin": "http://127.0.0.1:1"}, 403), ({"Origin": "https://127.0.0.1:{port}"}, 403),
     ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
     ({"Origin": "http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}, 200),
     ({"Host": "localhost:{port}", "Origin": "http://localhost:{port}"}, 200), ({}, 200)],
)  # fmt: skip
def test_only_its_own_page_and_programs_may_ask(port, images, headers, status):
    headers = {key: value.format(port=port) for key, value in headers.items()}
    found, got, text = ask(port, "/", list(images.items())[:1], headers=headers)
    assert found == status, text
    assert got["Content-Security-Policy"]


def test_a_page_that_does_not_write_takes_no_correction(made, port, images):
    fields = {"name": "case <0>.png", "label": "bcc"}.items()
    status, _, html = ask(port, "/correct", fields=fields)
    assert status == 403
    assert "start it with --writable" in html
    assert count(made) == 0


def test_a_corrected_image_joins_and_answers(own, images):
    folder, port = own
    (name, data), *_ = images.items()
    _, _, html = ask(port, "/", [(name, data)])
    (sent,) = re.findall(r'name="file" value="([^"]+)"', html)
    fields = {"name": name, "file": sent, "label": "bcc", "note": "seen in the clinic"}
    status, _, html = ask(port, "/correct", fields=fields.items())
    assert status == 200, html
    assert "is bcc from now on: line 1 of the gallery&#39;s journal" in html
    (line,) = gallery.history(folder)
    assert (line.names, line.labels, line.note) == ([name], ["bcc"], "seen in the clinic")
    near = predicted(port, [(name, data)])[name]["neighbours"][0]
    assert near == {"name": name, "label": "bcc", "distance": 0.0}
    _, _, html = ask(port, "/correct", fields=fields.items())
    assert f"{name} over again".replace("<", "&lt;").replace(">", "&gt;") in html
    assert count(folder) == 1


def test_a_neighbour_gets_another_label_also_by_the_other_command(own, images):
    folder, port = own
    near = predicted(port, images.items())["new <0>.png"]["neighbours"][0]
    assert near["label"] != "bcc"
    status, _, html = ask(port, "/correct", fields={"name": near["name"], "label": "bcc"}.items())
    assert status == 200, html
    after = predicted(port, images.items())["new <0>.png"]["neighbours"][0]
    assert after == near | {"label": "bcc"}
    gallery.relabel(folder, {near["name"]: "akiec"})
    assert predicted(port, images.items())["new <0>.png"]["neighbours"][0]["label"] == "akiec"


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"name": "case <0>.png", "label": "mel"}, "&#39;mel&#39; is no class of this run"),
     ({"name": "nobody.png", "label": "bcc"}, "nobody.png"),
     ({"name": "a.png", "label": "bcc", "file": "no base 64"}, "not in base 64"),
     ({"name": "a.png", "label": "bcc", "file": "bm8gaW1hZ2U="}, "a.png: it is neither DICOM"),
     ({"label": "bcc"}, "a correction has a name and a label")],
)  # fmt: skip
def test_a_wrong_correction_is_a_line_and_changes_nothing(made, fields, words):
    with serving(made, writable=True) as port:
        status, _, html = ask(port, "/correct", fields=fields.items())
    assert status == 400
    assert words in html
    assert count(made) == 0


def resident():
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_two_hundred_at_once_each_have_their_answer(port, images):
    names = list(images)
    alone = [predicted(port, [(name, images[name])])[name] for name in names]
    gate, before = threading.Barrier(200), resident()

    def one(i):
        gate.wait()
        return predicted(port, [(names[i % 3], images[names[i % 3]])])[names[i % 3]]

    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(one, range(200)))
    assert found == [alone[i % 3] for i in range(200)]
    assert resident() - before < 100e6


def test_a_run_on_features_takes_npz_and_says_so(tmp_path, images, compiled_once):
    folder = tmp_path / "model"
    write(folder, model_of(FEATURES), "")
    inputs = examples(FEATURES, np.arange(4) % 3, np.random.default_rng(2))
    files = {}
    for name, rows in (("a.npz", inputs), ("many.npz", inputs[np.zeros(65, int)])):
        file = io.BytesIO()
        np.savez(file, features=rows, labels=np.array(CLASSES)[np.arange(len(rows)) % 3])
        files[name] = file.getvalue()
    with serving(folder) as port:
        told = predicted(port, [*files.items(), *list(images.items())[:1]])
        _, _, html = ask(port, "/", [("a.npz", files["a.npz"])])
    found = open_run(folder).predict(inputs)
    assert [told[f"a.npz: {i:05d}"]["label"] for i in range(4)] == [
        CLASSES[c] for c in found.labels
    ]
    assert "more than 64 images" in told["many.npz: 00000"]["error"]
    assert told["new <0>.png"]["error"].startswith("this run takes feature vectors: give an .npz")
    assert "labelled" in html or "as labelled" in html
