"""Every example counts once, in evaluation mode, and the figures are scikit-learn's."""

import jax
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score
from sklearn.neighbors import KNeighborsClassifier
from support.runs import same_bits, setup_of, small_config

from deepknn_jax.engine.feed import make_store
from deepknn_jax.engine.parallel import map_embed, replicate
from deepknn_jax.evaluation.evaluate import Embedded, classify, embed_rows, metrics_by_vote
from deepknn_jax.trainer.setup import first_state

pytestmark = pytest.mark.usefixtures("compiled_once")


def varied(state):
    """The state with running statistics that are not those at the start, nor a batch's."""
    rng = np.random.default_rng(0)
    stats = jax.tree.map(
        lambda x: np.asarray(x) + rng.uniform(0.1, 1, x.shape).astype(np.float32), state.batch_stats
    )
    return state.params, stats


@pytest.fixture(scope="module")
def embedder(compiled_once):
    """A setup with a head, variables, and the embeddings of all 569 examples at once."""
    setup = setup_of(small_config(loss__name="cross_entropy"))
    variables = varied(first_state(setup))
    rows = np.random.default_rng(1).permutation(569).astype(np.int32)
    whole = embed_rows(setup.embed, variables, setup.store, setup.devices, rows, 569)
    return setup, variables, rows, whole


@pytest.mark.parametrize("batch_size", [1, 7, 64, 284, 568, 570, 1000])
def test_every_example_counts_once_whatever_the_batch(embedder, batch_size):
    setup, variables, rows, whole = embedder
    if batch_size == 1:
        rows = rows[:5]
    found = embed_rows(setup.embed, variables, setup.store, setup.devices, rows, batch_size)
    np.testing.assert_array_equal(found.rows, rows)
    for part, wanted in ((found.embeddings, whole.embeddings), (found.logits, whole.logits)):
        assert part.shape == (len(rows), wanted.shape[1])
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, wanted[: len(rows)], rtol=1e-5, atol=1e-5)


def test_batch_norm_uses_what_it_learnt_and_learns_nothing(embedder):
    """Against the network's layers in numpy, by the running statistics."""
    setup, (params, stats), rows, whole = embedder
    before = jax.tree.map(np.array, stats)
    features = np.asarray(setup.recipe.prepare(setup.dataset.inputs[rows])).astype(np.float64)
    layers, running = params["backbone"], stats["backbone"]
    x = features
    for i in range(2):
        norm, statistics = layers[f"BatchNorm_{i}"], running[f"BatchNorm_{i}"]
        x = x @ np.asarray(layers[f"Dense_{i}"]["kernel"], np.float64)
        x = (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
        x = np.maximum(x * np.asarray(norm["scale"]) + np.asarray(norm["bias"]), 0)
    x = x @ np.asarray(layers["Dense_2"]["kernel"]) + np.asarray(layers["Dense_2"]["bias"])
    np.testing.assert_allclose(whole.embeddings, x, rtol=1e-3, atol=1e-3)
    same_bits(jax.tree.map(np.asarray, stats), before)


def test_streamed_inputs_and_four_devices_give_the_same(embedder):
    _, variables, rows, whole = embedder
    setup = setup_of(small_config(loss__name="cross_entropy", devices=4))
    store = make_store(setup.devices, setup.dataset.inputs, setup.dataset.labels, "stream")
    variables = replicate(setup.devices, jax.tree.map(np.asarray, variables))
    embed = map_embed(setup.devices, setup.recipe, pool_is_cut=True)
    found = embed_rows(embed, variables, store, setup.devices, rows, 101)
    np.testing.assert_allclose(found.embeddings, whole.embeddings, rtol=1e-5, atol=1e-5)


def clouds(n=90, queries=40, classes=4, logits=False):
    """Labels of all examples, then queries and a gallery, of overlapping classes."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, classes, n).astype(np.int32)
    embeddings = rng.normal(size=(n, 5)).astype(np.float32) + labels[:, None] * 0.7
    order = rng.permutation(n).astype(np.int32)
    parts = []
    for rows in (order[:queries], order[queries:]):
        head = rng.normal(size=(len(rows), classes)).astype(np.float32) if logits else None
        parts.append(Embedded(rows, embeddings[rows], head))
    return labels, embeddings, *parts


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_the_vote_is_scikit_learn_s(p):
    labels, _, queries, gallery = clouds()
    evidence = classify(queries, gallery, labels, k_ps=(1, 3, 5), num_classes=4, p=p)
    assert sorted(evidence.predictions) == [1, 3, 5]
    assert evidence.rows.shape == evidence.distances.shape == (40, 5)
    for k, predicted in evidence.predictions.items():
        peer = KNeighborsClassifier(k, p=p).fit(gallery.embeddings, labels[gallery.rows])
        distances, indices = peer.kneighbors(queries.embeddings)
        np.testing.assert_array_equal(evidence.rows[:, :k], gallery.rows[indices])
        np.testing.assert_allclose(evidence.distances[:, :k], distances, rtol=1e-5)
        shares = peer.predict_proba(queries.embeddings)
        clear = np.sort(shares, 1)[:, -1] > np.sort(shares, 1)[:, -2]  # ties have rules of ours
        assert clear.sum() > 20
        np.testing.assert_array_equal(predicted[clear], shares.argmax(1)[clear])


def test_leave_one_out_leaves_the_image_itself_out():
    labels, embeddings, _, gallery = clouds()
    evidence = classify(gallery, gallery, labels, k_ps=(1, 5), num_classes=4, p=2.0)
    assert not (evidence.rows == gallery.rows[:, None]).any()
    for i, row in enumerate(gallery.rows):
        others = np.delete(gallery.rows, i)
        distances = np.linalg.norm(
            (embeddings[others] - embeddings[row]).astype(np.float64), axis=1
        )
        nearest = others[np.argsort(distances, kind="stable")[:5]]
        np.testing.assert_array_equal(evidence.rows[i], nearest)
        assert evidence.predictions[1][i] == labels[nearest[0]]


def test_an_equal_image_elsewhere_does_vote():
    """Only the example itself is left out, not its twin at distance 0."""
    embeddings = np.float32([[0, 0], [0, 0], [1, 0], [5, 5]])
    part = Embedded(np.arange(4, dtype=np.int32), embeddings, None)
    evidence = classify(part, part, np.array([0, 1, 1, 0]), k_ps=(1,), num_classes=2, p=2.0)
    np.testing.assert_array_equal(evidence.rows[:2, 0], [1, 0])
    np.testing.assert_array_equal(evidence.predictions[1][:2], [1, 0])


def test_too_few_neighbours_are_minus_one_and_do_not_vote():
    embeddings = np.float32([[0.0], [1.0], [3.0]])
    part = Embedded(np.arange(3, dtype=np.int32), embeddings, None)
    evidence = classify(part, part, np.array([0, 1, 1]), k_ps=(3,), num_classes=2, p=2.0)
    np.testing.assert_array_equal(evidence.rows[:, 2], [-1, -1, -1])
    assert np.isinf(evidence.distances[:, 2]).all()
    np.testing.assert_array_equal(evidence.predictions[3], [1, 0, 1])


@pytest.mark.parametrize("logits", [False, True])
def test_the_figures_are_scikit_learn_s(logits):
    labels, _, queries, gallery = clouds(logits=logits)
    evidence = classify(queries, gallery, labels, k_ps=(1, 5), num_classes=4, p=2.0)
    counts = np.array([30, 10, 40, 20])
    found = metrics_by_vote(
        queries, evidence, labels, class_names=("a", "b", "c", "d"), train_counts=counts
    )
    assert list(found) == ["1", "5", *(["head"] if logits else [])]
    truth = labels[queries.rows]
    predictions = {"1": evidence.predictions[1], "5": evidence.predictions[5]}
    if logits:
        predictions["head"] = queries.logits.argmax(1)
    for name, entry in found.items():
        predicted = predictions[name]
        assert entry["acc"] == pytest.approx(accuracy_score(truth, predicted))
        assert entry["mcr"] == pytest.approx(balanced_accuracy_score(truth, predicted))
        recalls = recall_score(truth, predicted, average=None, labels=range(4))
        assert entry["per_class_recall"] == pytest.approx(dict(zip("abcd", recalls, strict=True)))
        assert (entry["rs_class"], entry["n"]) == ("b", 40)
        assert entry["rs"] == pytest.approx(recalls[1])
