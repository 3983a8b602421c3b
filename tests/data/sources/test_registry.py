"""The registry: a source's parameters tell which options it reads, and it gets those."""

import inspect

import numpy as np
import pytest

from deepknn_jax import config
from deepknn_jax.data import sources
from deepknn_jax.data.dataset import Listing
from deepknn_jax.data.load import load_dataset
from deepknn_jax.data.sources import SOURCES, list_source, options_of
from deepknn_jax.errors import UserError


def test_each_source_tells_what_it_reads():
    assert options_of("digits") == options_of("breast_cancer") == ()
    assert options_of("cub200") == ("folder", "on_error")
    assert options_of("npz") == ("folder", "fold", "value_range")
    assert options_of("tfds") == (
        "folder", "tfds_name", "size", "resize_rule", "channels", "value_range", "cache_dir"
    )  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_source_reads_is_an_option_of_the_config_under_its_own_name(source):
    options = {"folder", *config.default().data} - {"dir", "source"}
    assert set(options_of(source)) <= options
    kinds = {p.kind for p in inspect.signature(SOURCES[source]).parameters.values()}
    assert kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


@pytest.fixture
def probe(monkeypatch):
    """A source that is one function and one entry; it keeps what it was given."""
    given = {}

    def function(*, csv, folder="", fold=0):
        given.update(csv=csv, folder=folder, fold=fold)
        labels = np.arange(20, dtype=np.int32) % 2
        names = tuple(map(str, range(20)))
        return Listing(names, labels, ("a", "b"), inputs=np.eye(20, dtype=np.float32))

    monkeypatch.setitem(sources.SOURCES, "probe", function)
    return given


def test_a_source_gets_the_options_that_it_reads_and_no_others(probe):
    list_source("probe", {"csv": "t.csv", "size": 8, "suffix": ".png"})
    assert probe == {"csv": "t.csv", "folder": "", "fold": 0}
    data = load_dataset(
        "probe", folder="here", split="stratified", csv="u.csv", fold=3, suffix=".png"
    )
    assert probe == {"csv": "u.csv", "folder": "here", "fold": 3}
    assert data.inputs.shape == (20, 20)


def test_an_option_that_a_source_cannot_do_without_is_named(probe):
    with pytest.raises(UserError, match=r"^data source probe needs `csv`, which is not given$"):
        list_source("probe", {"folder": "here"})
    assert not probe


def test_an_option_that_no_source_reads_is_a_mistake():
    with pytest.raises(TypeError, match="no source reads flod"):
        load_dataset("digits", split="stratified", flod=1)


@pytest.mark.parametrize("ask", [options_of, lambda source: list_source(source, {})])
def test_an_unknown_source_names_the_near_ones_or_all(ask):
    with pytest.raises(UserError, match=r"^`source` is 'skin_7': did you mean skin7\? choose "):
        ask("skin_7")
    with pytest.raises(
        UserError, match=r"'qqq': choose from breast_cancer, cifar10, .*tiny_imagenet$"
    ):
        ask("qqq")
