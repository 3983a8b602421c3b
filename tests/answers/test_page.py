"""The report: whole, safe to open anywhere, and saying what it shows."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from support.answering import IMAGES, examples, model_of

from deepknn_jax.answers import figures, page
from deepknn_jax.answers.card import WITHOUT
from deepknn_jax.answers.judge import judge
from deepknn_jax.answers.network import embedder
from deepknn_jax.answers.page import cases_of, lines_of, percentile, write
from deepknn_jax.answers.thumbnails import encode_array


class Reader(HTMLParser):
    """The tags that were opened, their attributes, and the text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.open = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def model(compiled_once):
    return model_of(IMAGES)


def reported(model, path, n=9, **options):
    inputs = examples(IMAGES, np.arange(n) % 3, np.random.default_rng(8))
    names = ("<script>alert(1)</script>.png", *(f"{i}.png" for i in range(1, n)))
    found = judge(embedder(model)(inputs), names, model, k=3, level=0.9, abstain_error=0.1)
    truths = ["akiec", None, *["bcc"] * (n - 2)]
    cases = cases_of(found, [encode_array(x) for x in inputs], truths)
    write(path, model, cases, asked="Answers & more", k=3, level=0.9, **options)
    return found, read(path)


def test_it_shows_each_image_beside_its_neighbours(model, tmp_path):
    found, reader = reported(model, tmp_path / "r.html", errors={"x.png": "no <image>"},
                             left_out=1234)  # fmt: skip
    classes = [attrs.get("class", "").split() for _, attrs in reader.tags]
    assert sum(each[:1] == ["case"] for each in classes) == 9
    assert sum(each[:1] == ["neighbor"] for each in classes) == 27
    others = (model.gallery.labels[found.indices] != found.labels[:, None]).sum()
    assert sum("other" in each for each in classes) == others
    labels = [a["aria-label"] for tag, a in reader.tags if tag == "div" and "aria-label" in a]
    wanted = {model.gallery.name(row) for row in found.indices.ravel()} | set(found.names)
    assert set(labels) == wanted
    assert "1,234 more were answered" in reader.text
    assert "no <image>" in reader.text
    assert "labelled bcc" in reader.text
    assert f"credibility {found.credibility[4]:.2f}" in reader.text


def test_each_picture_is_there_once_and_each_class_of_css_is_known(model, tmp_path):
    found, reader = reported(model, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    rules = re.findall(r"^\.(t\d+) \{", text, re.MULTILINE)
    assert len(rules) == len(set(rules)) == 9 + len(np.unique(found.indices))
    used = {name for _, attrs in reader.tags for name in attrs.get("class", "").split()}
    assert {name for name in used if re.fullmatch(r"t\d+", name)} == set(rules)


def test_nothing_runs_and_nothing_is_fetched(model, tmp_path):
    _, reader = reported(model, tmp_path / "r.html")
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "link", "img", "iframe", "form"})
    (policy,) = [a["content"] for _, a in reader.tags if "http-equiv" in a]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert all(not key.startswith("on") for _, attrs in reader.tags for key in attrs)
    text = (tmp_path / "r.html").read_text()
    assert "http:" not in text
    assert "https:" not in text
    assert set(re.findall(r"url\((\w+:)", text)) == {"data:"}


def test_links_lead_somewhere_and_what_abstains_comes_first(model, tmp_path):
    credible = model.calibrated.curve.thresholds
    half = model.calibrated._replace(
        curve=model.calibrated.curve._replace(error=np.where(credible < 0.4, 0.5, 0.0))
    )
    found, reader = reported(model._replace(calibrated=half), tmp_path / "r.html")
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    links = [attrs["href"][1:] for tag, attrs in reader.tags if tag == "a"]
    assert len(ids) == len(set(ids))
    assert set(links) == set(ids)
    doubtful = [int(link[1:]) for link in links if re.fullmatch(r"c\d+", link)]
    abstains = [bool(found.abstain[i]) for i in doubtful]
    assert 0 < sum(abstains) < 9
    assert abstains == sorted(abstains, reverse=True)
    classes = [attrs.get("class") for _, attrs in reader.tags]
    assert classes.count("case abstains") == sum(abstains)


def test_without_calibration_it_says_so(tmp_path):
    bare = model_of(IMAGES, validates=False, shown=False)
    _, reader = reported(bare, tmp_path / "r.html")
    assert WITHOUT in reader.text
    assert "percentile" not in reader.text
    assert "Contents by doubt" not in reader.text
    assert "training image " in reader.text
    assert "no picture" in reader.text


def test_the_curve_of_errors_ends_where_all_is_answered(model, tmp_path):
    _, reader = reported(model, tmp_path / "r.html")
    (points,) = [attrs["points"] for tag, attrs in reader.tags if tag == "polyline"]
    curve = model.calibrated.curve
    first, last = (pair.split(",") for pair in (points.split()[0], points.split()[-1]))
    assert float(first[0]) == 240.0
    assert float(last[0]) == pytest.approx(240 * curve.coverage[-1], abs=0.06)
    drop = 120 * (1 - curve.error[0] / max(0.02, curve.error.max()))
    assert float(first[1]) == pytest.approx(drop, abs=0.06)


def test_pictures_are_as_large_as_there_is_room_for(model, tmp_path, monkeypatch):
    large = np.random.default_rng(0).integers(0, 256, (250, 250, 3), dtype=np.uint8)
    found = judge(model.gallery.embeddings[:1], ("a",), model, k=1, level=0.9, abstain_error=0.1)
    cases = cases_of(found, [encode_array(large)], [None])
    sides = []
    for room in (10**6, 60_000, 20_000, 10):
        monkeypatch.setattr(page, "_ROOM", room)
        write(tmp_path / "r.html", model, cases, asked="a", k=1, level=0.9)
        text = (tmp_path / "r.html").read_text()
        webps = re.findall(r"base64,([^)]*)\)", text)
        sides.append(max(max(Image.open(io.BytesIO(base64.b64decode(x))).size) for x in webps))
    assert sides[0] == 250
    assert sides[-1] == 64
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) > 2


def grouped(model, groups):
    counts = np.full(47, 2, np.int32)
    return model._replace(gallery=model.gallery._replace(groups=groups, occurrence=counts))


def test_one_patient_is_one_voter_and_one_alone_behind_an_answer_is_marked(model, tmp_path):
    alone, reader = reported(grouped(model, np.zeros(47, int)), tmp_path / "r.html")
    classes = [attrs.get("class", "").split() for _, attrs in reader.tags]
    assert sum(each[:2] == ["voter", "joined"] for each in classes) == 9
    assert sum(each[:1] == ["neighbor"] for each in classes) == 27
    assert reader.text.count("one voter, 3 images") == 9
    assert reader.text.count("3 neighbours, 1 of 1 independent voter for the answer") == 9
    assert reader.text.count("one image alone") == 9
    _, apart = reported(grouped(model, np.arange(47)), tmp_path / "r.html")
    assert "one image alone" not in apart.text
    assert "one voter, " not in apart.text
    agree = (model.gallery.labels[alone.indices] == alone.labels[:, None]).sum(axis=1)
    for count in np.unique(agree):
        words = f"{count} of 3 independent voters for the answer"
        assert apart.text.count(words) == (agree == count).sum()


def test_hubs_are_marked_with_their_count(model, tmp_path):
    found, plain = reported(grouped(model, None), tmp_path / "r.html")
    assert "hub" not in [attrs.get("class") for _, attrs in plain.tags]
    hub, counts = found.indices[0, 1], np.full(47, 2, np.int32)
    counts[hub] = 31
    marked = model._replace(gallery=model.gallery._replace(occurrence=counts))
    _, reader = reported(marked, tmp_path / "r.html")
    assert reader.text.count("near 31 of 46") == (found.indices == hub).sum()
    assert "among the nearest of unusually many" in reader.text


def test_one_case_alone_stands_first_and_large(model, tmp_path):
    found, reader = reported(model, tmp_path / "r.html", n=2, large=True)
    assert "Contents" not in reader.text
    assert reader.text.index(found.names[1]) < reader.text.index("What answered")
    assert not [attrs for tag, attrs in reader.tags if tag == "a"]


def test_a_case_in_words(model):
    inputs = examples(IMAGES, np.arange(2), np.random.default_rng(8))
    found = judge(embedder(model)(inputs), ("a", "b"), model, k=3, level=0.9, abstain_error=0.1)
    lines = lines_of(cases_of(found, [b"", b""], ["bcc", None])[0], model)
    classes = model.classes
    assert lines[0] == f"a: {classes[found.labels[0]]}, labelled bcc"
    for row, distance in zip(found.indices[0], found.distances[0], strict=True):
        (line,) = [each for each in lines if each.endswith(f": {model.gallery.name(row)}")]
        assert f"{classes[model.gallery.labels[row]]}, distance {distance:.3g}, " in line


def test_figures_with_intervals_stand_in_the_tables(model, tmp_path):
    rng = np.random.default_rng(4)
    labels = rng.integers(3, size=30)
    groups = [f"p{i}" for i in rng.integers(9, size=30)]
    queries = embedder(model)(examples(IMAGES, labels, rng))
    found = judge(queries, ("",) * 30, model, k=3, level=0.9, abstain_error=0.1)
    results = figures.results(
        figures.answers(found, labels.tolist(), groups), model, k=3, level=0.9
    )
    _, reader = reported(model, tmp_path / "r.html", results=results)
    own = results["intervals"]["3"]["per_class"]["akiec"]["sensitivity"]
    assert f"{100 * own['value']:.1f} % ({100 * own['low']:.1f} to " in reader.text
    assert "9 patients or other groups" in reader.text
    assert "fewer than 20: all intervals are rough" in reader.text
    by_group = results["by_group"]["3"]
    assert f"{by_group['n']} groups" in reader.text
    about = dict(model.about) | {"intervals": results["intervals"]["3"]}
    _, own_part = reported(model._replace(about=about), tmp_path / "r.html", results=results)
    assert own_part.text.count("by 1,000 bootstrap draws") == 1  # a run's own test part: once


def test_a_distance_is_told_among_those_of_right_answers(model):
    known = model._replace(
        calibrated=model.calibrated._replace(distances=np.array([1.0, 2.0, 3.0, 4.0]))
    )
    assert [percentile(known, x) for x in (0.5, 2.5, 4.0, 9.0)] == [0, 50, 75, 100]
    assert percentile(model._replace(calibrated=None), 1.0) is None
