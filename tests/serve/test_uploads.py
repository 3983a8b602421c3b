"""Names of files that came: without folders, told apart, and no more than what readers need."""

import pytest
from support.optional import require

pytestmark = pytest.mark.serve


@pytest.fixture(scope="module")
def uploads():
    for name in ("python_multipart", "starlette"):
        require(name)
    from deepknn_jax.serve import uploads

    return uploads


@pytest.mark.parametrize(
    ("given", "name"),
    [("../../etc/passwd", "passwd"), ("C:\\scans\\a.png", "a.png"), ("a\nb\x00 .png", "a b .png"),
     ("", "no name"), ("/", "no name"), ("\udcff.png", "\\udcff.png"), ("ü <b>.png", "ü <b>.png"),
     ("x" * 300 + ".png", "x" * 196 + ".png")],
)  # fmt: skip
def test_a_name_has_no_folder_and_one_line(uploads, given, name):
    assert uploads.plain_name(given) == name


def test_names_are_told_apart(uploads):
    given = ["a", "a (2)", "a", "b", "a"]
    assert uploads.told_apart(given) == ["a", "a (2)", "a (3)", "b", "a (4)"]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.PNG", ".png"), ("a.dcm", ".dcm"), ("a.npz", ".npz"), ("a.csv", ""), ("IM-1", ""),
     ("a.nii.gz", ""), ("a.zip", "")],
)  # fmt: skip
def test_a_suffix_is_one_that_a_reader_of_images_knows(uploads, name, suffix):
    assert uploads.ending(name) == suffix
