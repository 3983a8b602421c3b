"""The examples in the pages are right: each page's, in its order, as a Python session."""

import doctest
import re

import pytest
from support.runs import ROOT

_FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def session_of(page):
    """The lines of a page's examples, the others empty, so that a failure names its line."""
    text, kept = page.read_text(encoding="utf-8"), []
    for fence in _FENCE.finditer(text):
        if ">>> " in fence[1]:
            kept += ["\n"] * (text[: fence.start(1)].count("\n") - len(kept))
            kept += fence[1].splitlines(keepends=True)
    return "".join(kept)


PAGES = {
    str(page.relative_to(ROOT)): session
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if (session := session_of(page))
}


def test_each_loss_has_an_example():
    losses = {f"docs/losses/{page.name}" for page in (ROOT / "docs/losses").glob("*.md")}
    assert losses - PAGES.keys() == {"docs/losses/index.md"}


@pytest.mark.parametrize("page", PAGES)
def test_examples(page):
    session = doctest.DocTestParser().get_doctest(PAGES[page], {}, page, page, 0)
    told = []
    failed, tried = doctest.DocTestRunner().run(session, out=told.append)
    assert tried
    assert not failed, "".join(told)
