"""Tables 2, 4 and S2 and figure S1: what is trained from images."""

from pathlib import Path
from typing import NamedTuple

from deepknn_jax.errors import UserError
from deepknn_jax.reproduce import paper
from deepknn_jax.reproduce.cells import (
    Cell,
    Options,
    Row,
    Section,
    Table,
    backbone,
    cell,
    knn_on_images,
    on_images,
)
from deepknn_jax.reproduce.methods import LOSSES, Changes, searched
from deepknn_jax.reproduce.sets import SETS, absent, all_absent
from deepknn_jax.reproduce.tune import save, search

# A size at which two CPU cores train four networks in three hours; one seed.
_SMALL: Changes = {
    "data.size": 72, "augment.crop": 64, "epochs": 5, "optimizer.halve_every_epochs": 2,
}  # fmt: skip
_LABELS = {
    "knn vgg19": "kNN (VGG19)",
    "knn": "kNN, pretrained",
    "triplet": "Triplet",
    "deep_knn": "deep kNN",
    "ce": "CE",
    "weighted_ce": "Weighted-CE",
    "deep_knn_star": "deep kNN*",
}
# Rows of tables 2 and S2: method and what its figures are read from.
_ROWS2 = (
    *((method, vote) for vote in ("1", "5") for method in ("knn", "triplet", "deep_knn")),
    ("weighted_ce", "head"),
    ("deep_knn_star", "5"),
)
# Of classes of one size Weighted-CE is CE.
_ROWS_EVEN = (
    ("ce", "5"), ("ce", "head"), ("triplet", "1"), ("deep_knn", "1"), ("triplet", "5"),
    ("deep_knn", "5"),
)  # fmt: skip
_RATES: tuple[Changes, ...] = tuple({"optimizer.learning_rate": rate} for rate in (0.01, 0.05, 0.2))
TUNED_IMAGES = "tuned_images.json"


class _Size(NamedTuple):
    """How a set's images are trained: `metric` are changes for metric losses alone."""

    words: str
    seeds: int
    extra: Changes
    metric: Changes


def table2(options: Options) -> Table:
    """Methods on the three medical sets, and on sets at hand that are like them."""
    large, small = ("skin7", "pneumonia", "sd198", "chest_xray"), ("omniglot", "pneumoniamnist")
    sections = []
    for name in large:
        if absent(name, options.data_root) is None:
            sections += _large_images(options, name)
    for name in small:
        if absent(name, options.data_root) is None:
            sections.append(_small_images(options, name))
    missing = all_absent(options.data_root, *large, *small)
    return Table("Table 2. Deep kNN and baselines, K = M = 5", sections, missing)


def _large_images(options: Options, name: str) -> list[Section]:
    """At the paper's size, and on a CPU also at one that a CPU can train."""
    beside = "vasc" if name == "skin7" else ""
    model = backbone(options)
    return [
        Section(
            f"{SETS[name].title}: {model[0]}, {size.words}",
            _rows2(options, name, model, size),
            beside,
        )
        for size in _sizes(options, name)
    ]


def _rows2(options: Options, name: str, model: tuple[str, str], size: _Size) -> list[Row]:
    printed = paper.TABLE2.get(name, {}) | paper.TABLES2.get(name, {})
    rows = []
    vgg19 = backbone(options, "vgg19")
    for method, vote in _ROWS2:
        if method == "knn":
            if vgg19[0] == "vgg19" and ("knn vgg19", vote) in printed:
                cells = [knn_on_images(options, name, "untrained", model=vgg19, extra=size.extra)]
                key = ("knn vgg19", vote)
                rows.append(Row(f"kNN (VGG19), K_p = {vote}", cells, vote, printed[key]))
            cells = [knn_on_images(options, name, "untrained", model=model, extra=size.extra)]
        else:
            cells = _trained(options, name, method, model, size)
        rows.append(Row(_label(method, vote), cells, vote, printed.get((method, vote), {})))
    return rows


def _trained(
    options: Options, name: str, method: str, model: tuple[str, str], size: _Size
) -> list[Cell]:
    """A run of each seed."""
    return [
        on_images(
            options, name, method, seed=seed, model=model, extra=size.extra, metric=size.metric
        )
        for seed in range(size.seeds)
    ]


def _label(method: str, vote: str) -> str:
    return f"{_LABELS[method]}, {'head' if vote == 'head' else f'K_p = {vote}'}"


def _small_images(options: Options, name: str) -> Section:
    """A set that the small CNN learns from random weights."""
    rows = [
        Row(f"kNN, {reference}, K_p = 5", [knn_on_images(options, name, reference)], "5")
        for reference in ("pixels", "untrained")
    ]
    tuned = searched(options.out, TUNED_IMAGES).get(name, {})
    for method, vote in _ROWS_EVEN if name == "omniglot" else _ROWS2:
        if method != "knn":
            extra = tuned.get(method, {}).get("changes")
            cells = [
                on_images(options, name, method, seed=s, extra=extra) for s in range(options.seeds)
            ]
            rows.append(Row(_label(method, vote), cells, vote))
    words = ", learning rates searched" if tuned else ""
    return Section(f"{SETS[name].title}: small CNN from random weights{words}", rows)


def tune_images(options: Options) -> Path:
    """The search for table 2's many small classes: a learning rate for each method.

    From random weights a rate of 0.01, the paper's for pretrained networks, leaves cross entropy
    half learnt after the epochs that the others need. Trials train on four fifths of draw 0's
    training part and are judged on the fifth.

    Raises:
        UserError: Omniglot is not at hand; all trials of a method failed.
    """
    name, set_ = "omniglot", "omniglot_tuning"
    if words := absent(set_, options.data_root):
        raise UserError(words)
    tried = {
        method: [
            (changes, cell(options, set_, f"{method}-trial{number}",
                           LOSSES[method] | changes | {"data.split": "published"}, minutes=2.5))
            for number, changes in enumerate(_RATES)
        ]
        for method in dict(_ROWS_EVEN)
    }  # fmt: skip
    return save(options, TUNED_IMAGES, {name: search(options, tried, dict.fromkeys(tried, ("5",)))})


def table4(options: Options) -> Table:
    """The strong kNN (cross entropy, output layer removed) and deep kNN, by backbone."""
    missing = all_absent(options.data_root, "sd198")
    wanted = [backbone(options, name) for name in paper.TABLE4]
    missing += [
        f"{name}: no published weights: --weights=DIR, where DIR holds {name}.pth or .safetensors"
        for name, (found, _) in zip(paper.TABLE4, wanted, strict=True)
        if found != name
    ]
    models = dict(wanted)  # EfficientNet-Lite0 once, in place of all that lack weights
    sections = []
    for name in ("sd198", "skin7"):
        if absent(name, options.data_root):
            continue
        for model in models.items():
            printed = paper.TABLE4.get(model[0], {}) if name == "sd198" else {}
            for size in _sizes(options, name):
                rows = [
                    Row(
                        f"{label}, K_p = 5",
                        _trained(options, name, method, model, size),
                        "5",
                        printed.get(method, {}),
                    )
                    for method, label in (("ce", "strong kNN"), ("deep_knn", "deep kNN"))
                ]
                title = f"{SETS[name].title}: {model[0]}, {size.words}"
                sections.append(Section(title, rows, "vasc" if name == "skin7" else ""))
    return Table("Table 4. Strong kNN and deep kNN by backbone, K = M = 5", sections, missing)


def _sizes(options: Options, name: str) -> list[_Size]:
    """The paper's size, and for Skin-7 on a CPU the small one.

    That also at a tenth of the learning rate, and, for the metric losses, with embeddings of length
    1 at a rate at which they learn: as they are, those of EfficientNet-Lite0, about 28 apart at the
    start, fall together before their classes part.
    """
    # Published weights want three channels; that set's images are grey.
    grey: Changes = {"data.channels": 3} if name == "chest_xray" else {}
    full = _Size("224 px", options.seeds, grey, {})
    if options.gpu or name != "skin7":
        return [full]
    words = "64 px, 5 epochs, one seed"
    slow: Changes = {"optimizer.learning_rate": 1e-3}
    unit: Changes = {"optimizer.learning_rate": 0.1, "model.normalize": True}
    return [
        full,
        _Size(f"{words}, learning rate 0.01", 1, _SMALL, {}),
        _Size(f"{words}, learning rate 0.001", 1, _SMALL | slow, {}),
        _Size(f"{words}, metric losses of length 1, at 0.1", 1, _SMALL, unit),
    ]


def table_s2(options: Options) -> Table:
    """The natural images, and MNIST, which is at hand more often."""
    sections = []
    names = ("stl10", "cub200", "tiny_imagenet")
    for name in names:
        if absent(name, options.data_root) is None:
            sections += _large_images(options, name)
    if absent("mnist", options.data_root) is None:
        sections.append(_small_images(options, "mnist"))
    missing = all_absent(options.data_root, *names, "mnist")
    return Table("Table S2. Natural images, K = M = 5", sections, missing)


def figure_s1(options: Options) -> Table:
    """Embeddings in two dimensions, of MNIST's training and STL10's test images."""
    sections = []
    for name, part in MAPS.items():
        if absent(name, options.data_root) is None:
            model = backbone(options) if name == "stl10" else None
            rows = [
                Row(label, [on_images(options, name, method, seed=0, model=model)], "5")
                for method, label in (("triplet", "triplet"), ("deep_knn", "deep kNN"))
            ]
            sections.append(Section(f"{SETS[name].title}, {part} part", rows))
    return Table("Figure S1. Embeddings by t-SNE", sections, all_absent(options.data_root, *MAPS))


MAPS = {"mnist": "train", "stl10": "test"}  # the part that figure S1 shows
