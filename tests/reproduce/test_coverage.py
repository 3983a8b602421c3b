"""The measure of sets against counting by hand, and the command's runs on a tiny Skin-7."""

import numpy as np
from support.answering import CLASSES, FEATURES, examples, model_of
from support.reproduced import options, tiny_root  # noqa: F401  (fixtures)

from deepknn_jax.answers.judge import judge, nearest_of
from deepknn_jax.answers.network import embedder
from deepknn_jax.evaluation import doubt
from deepknn_jax.reproduce import coverage, store


def test_it_counts_what_the_sets_hold(compiled_once):
    model = model_of()
    labels = np.array([0, 2, 0, 2, 2, 0, 2, 0, 0])
    embeddings = embedder(model)(examples(FEATURES, labels, np.random.default_rng(5)))
    found = coverage.measured(model, embeddings, labels)
    sets = judge(embeddings, ("",) * 9, model, k=3, level=0.9, abstain_error=0.1).sets
    assert found["classes"] == list(CLASSES)
    assert found["calibration"] == [12, 4, 14]
    assert found["test"] == [5, 0, 4]
    held = [bool(sets[i, label]) for i, label in enumerate(labels)]
    assert found["mondrian"] == [
        np.mean([h for h, label in zip(held, labels, strict=True) if label == 0]), None,
        np.mean([h for h, label in zip(held, labels, strict=True) if label == 2]),
    ]  # fmt: skip
    sizes = [sum(row) for row in sets.tolist()]
    assert found["sizes"]["mondrian"] == {
        "coverage": np.mean(held), "mean": np.mean(sizes),
        "single": sizes.count(1) / 9, "empty": sizes.count(0) / 9,
    }  # fmt: skip
    scores = doubt.ratios(nearest_of(embeddings, model.gallery, CLASSES, 2.0))
    own = model.calibrated.scores.scores
    rank = [(1 + sum(own >= scores[i, label])) / (1 + len(own)) for i, label in enumerate(labels)]
    assert found["sizes"]["marginal"]["coverage"] == np.mean(np.array(rank) > 0.1)
    assert doubt.too_few(model.calibrated.scores, level=coverage.LEVEL).tolist() == [0, 1, 0]


def test_the_table_has_means_over_the_seeds():
    sizes = {"coverage": 0.9, "mean": 2.0, "single": 0.25, "empty": 0.0}
    first = {
        "classes": ["a", "b"], "calibration": [9, 20], "test": [4, 0], "mondrian": [0.5, None],
        "marginal": [1.0, None], "sizes": {"mondrian": sizes, "marginal": sizes},
    }  # fmt: skip
    second = first | {"calibration": [11, 20], "mondrian": [1.0, None]}
    lines = coverage.table([first, second])
    assert "| a | 10 ± 1 | 4 | 75.0 ± 35.4 | 100.0 |" in lines
    assert "| b | 20 | 0 | none there | none there |" in lines
    assert "| classes in a set |  |  | 2.00 | 2.00 |" in lines


def test_the_command_runs_what_is_not_there(options, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(coverage, "CASES", {"frozen": coverage.CASES["frozen"]})
    for name in ("batch.size",):
        monkeypatch.setitem(coverage.CASES["frozen"].changes, name, 16)
    text = coverage.run(options)
    assert (options.out / "coverage.md").read_text() == text
    assert "leave-one-out by lesion (2 seeds)" in text
    cells = coverage.cells_of("frozen", options)
    records = [store.read(options.out, cell) for cell in cells]
    for record in records:
        found = record["coverage"]
        assert sum(found["calibration"]) + sum(found["test"]) == 165
        assert all(count % 2 == 0 for count in found["test"][:5])  # whole lesions, of two images
    assert records[0]["coverage"] != records[1]["coverage"]
    assert not any(store.workdir_of(options.out, cell).exists() for cell in cells)
    capsys.readouterr()
    assert coverage.run(options) == text
    assert capsys.readouterr().out == ""
