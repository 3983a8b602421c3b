"""docs/site/hooks.py: links that are right on GitHub and in the site, equations, nothing remote."""

import importlib.util
from types import SimpleNamespace

import pytest
from support.optional import require
from support.runs import ROOT

pytestmark = pytest.mark.docs


@pytest.fixture(scope="module")
def hooks():
    for name in ("mkdocs", "jupytext", "latex2mathml"):
        require(name)
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs/site/hooks.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def shown(hooks, source, text):
    page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
    return hooks.on_page_markdown(text, page, None, None)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("index.md", "[a](docs/data.md#copies)", "[a](data.md#copies)"),
        ("index.md", "![a](docs/digits_neighbors.png)", "![a](digits_neighbors.png)"),
        ("index.md", "[how](CONTRIBUTING.md)", "[how](contributing.md)"),
        ("launch.md", "[b](Dockerfile)", "b (`launch/Dockerfile`)"),
        ("losses/nca.md", "[b](../../README.md)", "[b](../index.md)"),
        ("losses/nca.md", "[a](../vote.md)", "[a](../vote.md)"),
        ("tutorials/index.md", "[x](own_loop.py)", "[x](own_loop.md)"),
        ("data.md", "[x](tutorials/own_loop.py)", "[x](tutorials/own_loop.md)"),
        ("cluster.md", "[c](../deepknn_jax/config.py)", "c (`deepknn_jax/config.py`)"),
        ("data.md", "[none](none.md)", "[none](none.md)"),
        ("data.md", "```\n[a](../README.md)\n```", "```\n[a](../README.md)\n```"),
        ("data.md", "<!-- ::: a.b -->", "::: a.b"),
    ],
)
def test_links(hooks, page, link, expected):
    assert shown(hooks, page, link) == expected


def test_an_equation_is_mathml(hooks):
    config = hooks.on_config(SimpleNamespace(mdx_configs={}))
    (fence,) = config.mdx_configs["pymdownx.superfences"]["custom_fences"]
    html = fence["format"](r"\frac{1}{K}", "math", fence["class"], {}, None)
    assert "<mfrac>" in html
    assert "frac{" not in html


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://example.org/a.js"></script>',
        "<img alt='' src='//example.org/a.png'>",
        '<link rel="stylesheet" href="https://example.org/a.css">',
    ],
)
def test_what_is_remote_fails(hooks, tmp_path, text):
    page = tmp_path / "a" / "index.html"
    page.parent.mkdir()
    page.write_text('<a href="https://example.org">a link is none</a>')
    hooks.on_post_build(SimpleNamespace(site_dir=tmp_path))
    page.write_text(text)
    with pytest.raises(Exception, match=r"index\.html: loads from another host"):
        hooks.on_post_build(SimpleNamespace(site_dir=tmp_path))
