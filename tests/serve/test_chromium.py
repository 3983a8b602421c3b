"""The page in a browser: files dropped from outside, neighbours read, a label corrected."""

import shutil

import numpy as np
import pytest
from PIL import Image
from support.answering import IMAGES, examples, model_of
from support.chromium import running_chromium
from support.serving import ask, predicted, serving

from deepknn_jax.answers import gallery
from deepknn_jax.answers.model import write

pytestmark = [pytest.mark.serve, pytest.mark.chromium]
NAMES = "[...document.querySelectorAll('.neighbor .name')].map(each => each.textContent)"
PROPERTY = "getComputedStyle(document.querySelector('.neighbor .p')).backgroundImage.slice(0, 21)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with running_chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def own(tmp_path, compiled_once):
    write(tmp_path / "model", model_of(IMAGES), "")
    with serving(tmp_path / "model", writable=True) as port:
        yield tmp_path / "model", port
    shutil.rmtree(tmp_path / "model")


@pytest.fixture
def files(tmp_path):
    """Three images, and a text that is called one."""
    inputs = examples(IMAGES, np.arange(3), np.random.default_rng(5))
    for i, each in enumerate(inputs):
        Image.fromarray(each[..., 0]).save(tmp_path / f"{i} <b>.png")
    (tmp_path / "text.png").write_text("no image")
    return sorted(tmp_path.glob("*.png"))


def test_files_are_dropped_and_a_label_is_corrected(browser, own, files):
    folder, port = own
    home = f"http://127.0.0.1:{port}/"
    browser.loads("Page.navigate", url=home)
    browser.drop("input[type=file]", files)
    assert browser.value("document.querySelector('input[type=file]').files.length") == 4
    browser.loads("Runtime.evaluate", expression="document.querySelector('.ask button').click()")
    told = predicted(port, [(file.name, file.read_bytes()) for file in files])
    near = [one["name"] for each in told.values() for one in each.get("neighbours", ())]
    assert sorted(browser.value(f"{NAMES}.join('|')").split("|")) == sorted(near)
    assert "neither DICOM nor an image" in browser.value("document.body.innerText")
    assert browser.value(PROPERTY) == 'url("data:image/webp;'
    assert {url for url in browser.requests if not url.startswith("data:")} == {home}

    first = "document.querySelector('details form')"
    name = browser.value(f"{first}.elements.name.value")
    browser.value(f"{first}.closest('details').open = true")
    browser.value(f"{first}.elements.label.value = 'bcc'")
    with browser.opened("/correct") as other:
        browser.value(f"{first}.querySelector('button').click()")
        assert f"{name} is bcc from now on: line 1" in other()
    (line,) = gallery.history(folder)
    assert (list(line.names), list(line.labels)) == ([name], ["bcc"])


def test_a_page_from_elsewhere_changes_nothing(browser, own, tmp_path):
    folder, port = own
    foreign = tmp_path / "foreign.html"
    foreign.write_text(
        f'<form method="post" action="http://127.0.0.1:{port}/correct" '
        'enctype="multipart/form-data"><input name="name" value="case &lt;0&gt;.png">'
        '<input name="label" value="bcc"></form>'
    )
    browser.loads("Page.navigate", url=foreign.as_uri())
    browser.loads("Runtime.evaluate", expression="document.forms[0].submit()")
    assert "from another page: refused" in browser.value("document.body.innerText")
    assert gallery.history(folder) == ()
    assert ask(port)[0] == 200


def test_too_much_is_told_to_a_browser_that_sends_it(browser, own, tmp_path):
    _, port = own
    large = tmp_path / "large.png"
    with large.open("wb") as file:
        file.truncate(70 << 20)
    browser.loads("Page.navigate", url=f"http://127.0.0.1:{port}/")
    browser.drop("input[type=file]", [large])
    browser.loads("Runtime.evaluate", expression="document.querySelector('.ask button').click()")
    assert "more than 64 MiB at once" in browser.value("document.body.innerText")
