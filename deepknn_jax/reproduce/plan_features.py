"""Tables 3, S3 and S4: what is trained on feature vectors of Skin-7."""

from collections.abc import Sequence

from deepknn_jax.reproduce import paper
from deepknn_jax.reproduce.cells import (
    Options,
    Row,
    Section,
    Table,
    knn_on_features,
    on_features,
)
from deepknn_jax.reproduce.methods import TITLES, VOTE, Changes
from deepknn_jax.reproduce.prepare import FOLDS, GROUPED
from deepknn_jax.reproduce.sets import all_absent

FEATURES = "features of EfficientNet-Lite0 (ImageNet), 224 px"


def table3(options: Options) -> Table:
    """All methods on feature vectors of Skin-7: the five folds, beside them splits by lesion."""
    if missing := all_absent(options.data_root, "skin7_features"):
        return Table(_TITLE3, [], missing)
    folds, grouped = range(1, FOLDS + 1), range(FOLDS + 1, FOLDS + GROUPED + 1)
    runs = [(fold, seed) for fold in folds for seed in range(options.seeds)]
    # A draw of the lesions for each seed: the spread is of both.
    drawn = [(fold, seed) for seed, fold in enumerate(grouped[: options.seeds])]
    sections = [
        Section(f"The paper's five folds, {FEATURES}", _rows3(options, runs), "vasc"),
        Section(
            f"No lesion in both parts, {len(drawn)} draws, {FEATURES}",
            [row._replace(paper={}) for row in _rows3(options, drawn)],
            "vasc",
        ),
    ]
    return Table(_TITLE3, sections)


_TITLE3 = "Table 3. Methods on feature vectors of Skin-7, K = M = 5, K_p = 5"


def _rows3(options: Options, runs: Sequence[tuple[int, int]]) -> list[Row]:
    rows = [
        Row(
            TITLES["knn"],
            [knn_on_features(options, fold) for fold in dict(runs)],
            "5",
            paper.TABLE3["knn"],
        )
    ]
    for method in ("nca", "lmnn", "triplet", "ce", "deep_knn", "weighted_ce", "soft"):
        cells = [on_features(options, method, fold=fold, seed=seed) for fold, seed in runs]
        vote = VOTE.get(method, "5")
        label = TITLES[method] + (", its head" if vote == "head" else "")
        rows.append(Row(label, cells, vote, paper.TABLE3.get(method, {})))
        if method == "ce":
            rows.append(Row(f"{TITLES[method]}, its head", cells, "head"))
    return rows


def table_s3(options: Options) -> Table:
    """K and M, K_p = K; the paper's are of SD-198."""
    if missing := all_absent(options.data_root, "skin7_features"):
        return Table(_TITLES3, [], missing)
    rows = [
        Row(
            f"K = {k}, M = {m}",
            [
                on_features(options, "deep_knn", fold=1, seed=seed,
                            extra={"loss.k": k, "loss.m": m})
                for seed in range(options.seeds)
            ],
            str(k),
            paper.TABLES3[k, m],
        )
        for m in (1, 5, 9)
        for k in (3, 5, 7)
    ]  # fmt: skip
    title = f"Skin-7 fold 1, {FEATURES} (the paper's: SD-198, ResNet50)"
    missing = all_absent(options.data_root, "sd198")
    return Table(_TITLES3, [Section(title, rows, "vasc")], missing)


_TITLES3 = "Table S3. K and M of deep kNN, K_p = K"


def table_s4(options: Options) -> Table:
    """K_p; and what the paper leaves open, one change at a time."""
    if missing := all_absent(options.data_root, "skin7_features"):
        return Table(_TITLES4, [], missing)
    runs = [(fold, seed) for fold in range(1, FOLDS + 1) for seed in range(options.seeds)]
    cells = [on_features(options, "deep_knn", fold=fold, seed=seed) for fold, seed in runs]
    rows = [
        Row(f"K_p = {k}", cells, str(k), figures) for k, figures in paper.TABLES4["skin7"].items()
    ]
    title = f"Skin-7, five folds, {FEATURES} (the paper's: Skin-7, ResNet50)"
    sections = [Section(title, rows, "vasc")]
    for title, variants in _VARIANTS.items():
        rows = [_variant(options, *variant) for variant in variants]
        sections.append(Section(f"Ours: {title}; fold 1, K_p = 5", rows, "vasc"))
    return Table(_TITLES4, sections, all_absent(options.data_root, "sd198", "pneumonia"))


_TITLES4 = "Table S4. K_p of deep kNN, K = M = 5; and the margin, norm, batch and search"
# label, changes, minutes, most seeds
_Variant = tuple[str, Changes, float, int]


def _batch(kind: str, classes: int, per_class: int) -> Changes:
    return {
        "batch.kind": kind,
        "batch.size": classes * per_class,
        "batch.classes": classes,
        "batch.per_class": per_class,
    }


_VARIANTS: dict[str, list[_Variant]] = {
    "the margin alpha": [
        (f"alpha = {alpha:g}", {"loss.margin": alpha}, 0.3, 99)
        for alpha in (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    ],
    "the norm": [(f"p = {p:g}", {"loss.p": p}, 1.0, 99) for p in (1.0, 2.0, 3.0)],
    "the batch": [
        ("shuffled, 96", _batch("shuffled", 6, 16), 0.3, 99),
        ("proportional, 96", _batch("proportional", 6, 16), 0.3, 99),
        ("6 classes x 16", _batch("balanced", 6, 16), 0.3, 99),
        ("3 classes x 32", _batch("balanced", 3, 32), 0.3, 99),
        ("shuffled, 480", _batch("shuffled", 6, 80), 0.3, 99),
        ("6 classes x 80", _batch("balanced", 6, 80), 0.3, 99),
    ],
    "the embeddings' length": [
        ("as they are", {"model.normalize": False}, 0.3, 99),
        ("1", {"model.normalize": True}, 0.3, 99),
    ],
    "where neighbours are searched (section 2.2)": [
        ("in the batch", {}, 0.3, 99),
        ("in the training set, refreshed each epoch", {"neighbors": "dataset"}, 1.5, 99),
        (
            "in the training set, each 10 steps",
            {"neighbors": "dataset", "refresh_steps": 10},
            4.0,
            99,
        ),
        (
            "in the training set, each step, one seed",
            {"neighbors": "dataset", "refresh_steps": 1},
            4.0,
            1,
        ),
    ],
}


def _variant(options: Options, label: str, extra: Changes, minutes: float, most: int) -> Row:
    cells = [
        on_features(options, "deep_knn", fold=1, seed=seed, extra=extra, minutes=minutes)
        for seed in range(min(options.seeds, most))
    ]
    return Row(label, cells, "5")
