"""What the search, the vote and their arguments' door take, and what they refuse in one line."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import reference

from deepknn_jax import UserError, knn_classify, nearest_neighbors, pairwise_distances, vote
from deepknn_jax.knn import intake

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 3)).astype(np.float32) * [1, 2, 0.5]
Q = RNG.normal(size=(4, 3)).astype(np.float32)
LABELS = np.array([0, 2, 1, 1, 0, 2, 0, 1, 0])


def search(queries=Q, gallery=X, k=3, **options):
    return nearest_neighbors(queries, gallery, k=k, **options)


def classify(queries=Q, gallery=X, labels=LABELS, k=3, num_classes=3, **options):
    return knn_classify(queries, gallery, labels, k=k, num_classes=num_classes, **options)


@pytest.mark.parametrize(
    "form",
    [np.ndarray.tolist, pandas.DataFrame, jnp.asarray, lambda x: list(jnp.asarray(x)), np.float16],
)
def test_every_form_of_an_array_is_taken(form):
    exact = np.asarray(np.asarray(form(X), np.float32), np.float64)
    expected, rows = reference.neighbors(np.float64(Q), exact, 3)
    distances, indices = search(gallery=form(X))
    np.testing.assert_array_equal(indices, rows)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    found = classify(gallery=form(X), labels=pandas.Series(LABELS, dtype="Int64"))
    assert found.labels.tolist() == [reference.vote(d, LABELS[r], 3)[0] for d, r in
                                     zip(expected, rows, strict=True)]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": Q[0]}, r"queries \[N, D\], got shape \(3,\); one row is queries\[None, :\]"),
        ({"gallery": X[:, :2]}, r"queries and gallery must have one width D, got \(4, 3\) and"),
        ({"gallery": X[:0]}, "the gallery is empty"),
        ({"gallery": X[:, :0], "queries": Q[:, :0]}, "must have a column"),
        ({"gallery": X.astype(str)}, "gallery must hold real numbers, got text"),
        ({"gallery": X + 1j}, "gallery must hold real numbers, got dtype complex"),
        ({"gallery": [[1.0, 2.0], [3.0]]}, "gallery must have rows of one length"),
        ({"gallery": np.where(X[4] == X, np.nan, X)}, "gallery has NaN or infinity in row 4"),
        ({"queries": jnp.asarray(Q).at[2, 1].set(-jnp.inf)}, "queries has NaN or infinity in row"),
        ({"gallery": X.astype(np.float64) * 1e40}, "gallery has NaN or infinity in row"),
        ({"k": 3.0}, "k must be an integer, got 3.0"),
        ({"k": True}, "k must be an integer, got True"),
        ({"k": 0}, r"k = 0 is outside 1\.\.9"),
        ({"k": 10}, r"k = 10 is outside 1\.\.9"),
        ({"p": "cosine"}, r"got 'cosine': .* normalise the rows \(x / \|x\|\) and use p=2"),
        ({"p": 0.5}, "p must be a number of at least 1"),
        ({"p": None}, "p must be a number of at least 1"),
    ],
)
@pytest.mark.parametrize("function", [search, classify])
def test_what_cannot_be_searched_is_refused(function, options, message):
    if function is classify and "gallery" in options:
        options = options | {"labels": LABELS[: len(options["gallery"])]}
    with pytest.raises(UserError, match=message):
        function(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"query_ids": 5, "gallery_ids": np.arange(9)}, r"query_ids \[4\], got shape \(\)"),
        ({"query_ids": [5], "gallery_ids": np.arange(9)}, r"query_ids \[4\], got shape \(1,\)"),
        ({"query_ids": np.arange(4), "gallery_ids": np.arange(9)[:, None]}, r"reshape\(-1\)"),
        ({"query_ids": np.arange(4)}, "query_ids and gallery_ids both, or neither"),
        ({"query_ids": list("abcd"), "gallery_ids": list("abcdefghi")}, r"np.unique\(query_ids"),
        ({"query_ids": np.arange(4.0), "gallery_ids": np.arange(9)}, r"query_ids.astype\(int\)"),
    ],
)
def test_wrong_ids_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        search(**options)


@pytest.mark.parametrize("scale", [1, 2**32, -(2**40)])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_ids_and_labels_of_64_bits_stay_apart(scale, dtype):
    ids = (np.arange(9) % 5).astype(np.int64)
    wide = (ids * abs(scale)).astype(dtype) if dtype == np.uint64 else ids * scale
    expected = search(X, query_ids=ids, gallery_ids=ids)
    found = search(X, query_ids=wide, gallery_ids=wide)
    classes = search(X, query_labels=wide, gallery_labels=wide, same_class=False)
    for a, b, c in zip(expected, found, classes, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_ids_of_64_bits_beside_traced_ones_are_refused():
    def traced(ids):
        return search(query_ids=ids, gallery_ids=np.arange(9) << 32)

    with pytest.raises(UserError, match="beyond int32 and are traced in part: number them anew"):
        jax.eval_shape(traced, np.arange(4))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS + 1, r"gallery_labels must be 0\.\.2, got 1\.\.3"),
        (LABELS - 1, r"gallery_labels must be 0\.\.2, got -1\.\.1"),
        (LABELS[:8], r"gallery_labels \[9\], got shape \(8,\)"),
        (LABELS[:, None], r"gallery_labels \[9\], got shape \(9, 1\); say .*reshape\(-1\)"),
        (LABELS == 0, r"gallery_labels must be integers, got dtype bool: say .*astype\(int\)"),
        (LABELS.astype(np.float16), "gallery_labels must be integers, got dtype float16"),
        (LABELS.astype(str), r"must be integers, got text: say np.unique\(gallery_labels"),
        (pandas.Series(["a"] * 9), "must be integers, got text"),
    ],
)
def test_wrong_labels_of_the_gallery_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        classify(labels=labels)


def test_no_queries_have_no_neighbours():
    distances, indices = search(Q[:0])
    assert (distances.shape, indices.shape, indices.dtype) == ((0, 3), (0, 3), jnp.int32)
    found = classify(Q[:0])
    assert [x.shape for x in found] == [(0,), (0, 3), (0, 3), (0, 3)]
    assert pairwise_distances(Q[:0], X).shape == (0, 9)
    assert pairwise_distances(Q, X[:0], p=1).shape == (4, 0)


@pytest.mark.parametrize("p", [2.0, 1.0, np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_64_bits_lose_nothing_by_their_offset(p, dtype):
    """In float32 at 1e12 all rows would be one, in int32 they would not even be there."""
    x = (RNG.normal(size=(13, 3)) * 1000).round().astype(dtype) + dtype(1e12)
    y = x[:9] * 1.0
    y[4] = y[2]  # ties stay ties
    expected, rows = reference.neighbors(np.float64(x), y, 4, p)
    distances, indices = search(x, y.astype(dtype), 4, p=p)
    np.testing.assert_array_equal(indices, rows)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)
    np.testing.assert_allclose(np.sort(pairwise_distances(x, y, p=p))[:, :4], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [[0, 3]]}, r"labels must be -1\.\.2, got 0\.\.3"),
        ({"labels": [[0, -2]]}, r"labels must be -1\.\.2, got -2\.\.0"),
        ({"labels": [0, 1]}, r"labels \[1, 2\], got shape \(2,\)"),
        ({"distances": [[np.nan, 1.0]]}, "distances has NaN in row 0"),
        ({"distances": np.zeros((1, 0)), "labels": np.zeros((1, 0))}, "nobody votes"),
        ({"num_classes": 3.0}, "num_classes must be an integer"),
    ],
)
def test_a_vote_of_wrong_arguments_is_refused(options, message):
    ballot = {"distances": [[0.0, np.inf]], "labels": [[1, -1]], "num_classes": 3} | options
    with pytest.raises(UserError, match=message):
        vote(ballot.pop("distances"), ballot.pop("labels"), **ballot)


def test_values_are_not_looked_at_where_they_are_traced():
    """What is refused by its values is computed on under jit, vmap and grad; shapes are not."""
    spoilt = jnp.asarray(X).at[4].set(jnp.nan)

    def found(gallery, labels):
        return classify(gallery=gallery, labels=labels).labels

    assert jax.eval_shape(found, spoilt, LABELS + 1).shape == (4,)
    assert jax.eval_shape(jax.vmap(found), spoilt[None], LABELS[None]).shape == (1, 4)
    with pytest.raises(UserError, match="got shape"):
        jax.eval_shape(found, spoilt, LABELS[:5])
    with pytest.raises(UserError, match="k shapes the program: make it static"):
        jax.eval_shape(lambda k: search(k=k), 3)
    with pytest.raises(UserError, match="p shapes the program: make it static"):
        jax.eval_shape(lambda p: search(p=p), 2.0)
    # What a jitted function closes over is known.
    with pytest.raises(UserError, match="gallery has NaN or infinity in row 4"):
        jax.eval_shape(lambda queries: search(queries, spoilt), Q)


@pytest.mark.parametrize("value", [1, 2.5, np.float32(3), jnp.float32(4)])
def test_one_number_is_a_number_in_any_form(value):
    intake.check_number("margin", value)
    with pytest.raises(UserError, match="margin must be below 0, got"):
        intake.check_number("margin", value, holds=lambda x: x < 0, words="be below 0")


@pytest.mark.parametrize("value", [np.nan, [1.0], "1", None, 1j, np.ones((1, 1))])
def test_what_is_not_one_number_is_refused(value):
    with pytest.raises(UserError, match=r"margin must be"):
        intake.check_number("margin", value, holds=lambda x: np.isreal(x) and np.isfinite(x))
