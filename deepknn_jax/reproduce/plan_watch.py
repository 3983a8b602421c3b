"""Neighborhood Watch's tables: its methods, and deep kNN beside them, on the sets at hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deepknn_jax.errors import UserError
from deepknn_jax.reproduce import paper
from deepknn_jax.reproduce.cells import Cell, Options, Row, Section, Table, cell
from deepknn_jax.reproduce.methods import Changes, searched
from deepknn_jax.reproduce.methods_watch import TITLES, TUNED, WATCH, trials
from deepknn_jax.reproduce.sets import SETS, absent, all_absent
from deepknn_jax.reproduce.tune import save, search


class Small(NamedTuple):
    """A small set: the set to tune on, its classes, K_p (the root of its training part's size).

    `folds` are taken in turn by the seeds; `minutes` are those of a run; `part` is for the reader.
    """

    tuning: str
    classes: int
    k_p: int
    folds: tuple[int, ...]
    minutes: float
    part: str = ""


SMALL: Mapping[str, Small] = {
    "nw_pneumoniamnist": Small("pneumoniamnist_tuning", 2, 69, (0,), 1.5),
    "nw_skin7": Small("nw_skin7_tuning", 7, 90, (1,), 0.4, ", fold 1"),
    "chest_features": Small("chest_tuning", 3, 58, (1, 2, 3), 0.3, ", three draws by patient"),
}
# The paper's sets that train without weights from elsewhere: K_p = k, minutes.
_PRINTED = (("nw_mnist", "mnist", 233, 150.0), ("epid", "epid", 17, 90.0),
            ("sarcoma", "sarcoma", 15, 90.0))  # fmt: skip
_SHORT: Changes = {"epochs": 20, "evaluate.every_epochs": 0}


def _cell(
    options: Options, name: str, method: str, changes: Changes, *, k_p: int, minutes: float,
    label: str = "",
) -> Cell:  # fmt: skip
    everything = WATCH[method] | changes | {"evaluate.k_p": tuple(sorted({1, 5, k_p}))}
    everything |= {"checkpoint_seconds": 600.0}
    label = f"{method}-{label}seed{changes.get('seed', 0)}"
    return cell(options, name, label, everything, minutes=minutes, keep=True)


def table_nw1(options: Options) -> Table:
    """Accuracy of the kNN: MNIST, the sets that are not at hand named, and small sets of ours."""
    sections = []
    if absent("nw_mnist", options.data_root) is None:
        whole = _mnist_short(
            options, "nw_mnist", "54,000 training images", {}, k_p=233, seeds=1, minutes=25.0
        )
        sections += [_mnist_part(options), whole]
    for name, paper_name, k_p, minutes in _PRINTED:
        if absent(name, options.data_root) is None:
            sections.append(_printed(options, name, paper_name, k_p, minutes))
    tuned = chosen(options.out)
    for name in SMALL:
        if absent(name, options.data_root) is None and name in tuned:
            sections.append(_small(options, name, tuned[name]))
    missing = all_absent(options.data_root, "cifar10", "epid", "sarcoma", "nw_mnist", *SMALL)
    if not tuned:
        missing.append("the small sets: no options were searched yet: --tune --table=nw1")
    return Table(_TITLE1, sections, missing)


_TITLE1 = "Neighborhood Watch, table 1. Accuracy by kNN, and MCR"


def _printed(options: Options, name: str, paper_name: str, k_p: int, minutes: float) -> Section:
    """The paper's own rows on one of its sets, two seeds of its methods as its text has them."""
    rows = [
        Row(
            TITLES[method],
            [
                _cell(options, name, method, {"seed": seed, "evaluate.every_epochs": 1},
                      k_p=k_p, minutes=minutes)
                for seed in range(2 if method.startswith("lm") else 1)
            ],
            str(k_p),
            paper.NW1[paper_name][method],
        )
        for method in WATCH
        if method != "deep_knn"
    ]  # fmt: skip
    best = paper.NW1_BEST.get(paper_name)
    known = f" (best known: {best})" if best else ""
    return Section(f"{SETS[name].title}, K_p = k = {k_p}{known}", rows)


def _mnist_part(options: Options) -> Section:
    """A ninth of the paper's images."""
    all_trained: Changes = {"data.validation": 0.0}
    return _mnist_short(
        options, "mnist_part", "600 training images a class", all_trained,
        k_p=78, seeds=options.seeds, minutes=4.0,
    )  # fmt: skip


def _mnist_short(
    options: Options, name: str, words: str, extra: Changes, *, k_p: int, seeds: int, minutes: float
) -> Section:
    """A third of the paper's epochs, and so no column with its figures."""
    rows = []
    for method in WATCH:
        for batch in (128, 512) if method == "mm_hard" else (128,):
            changes = _SHORT | extra | {"batch.size": batch}
            cells = [
                _cell(options, name, method, changes | {"seed": seed},
                      k_p=k_p, minutes=minutes, label="" if batch == 128 else "512-")
                for seed in range(seeds)
            ]  # fmt: skip
            label = TITLES[method] + (f", batches of {batch}" if batch != 128 else "")
            rows.append(Row(label, cells, str(k_p)))
    return Section(f"MNIST, {words}, 20 epochs, K_p = k = {k_p}", rows)


def _small(options: Options, name: str, tuned: Mapping[str, Any]) -> Section:
    """Each method with the options and the K_p that its search chose."""
    small = SMALL[name]
    rows = []
    for method, found in tuned.items():
        cells = [
            _cell(options, name, method, dict(found["changes"]) | _fold(small.folds, seed),
                  k_p=small.k_p, minutes=small.minutes, label="tuned-")
            for seed in range(options.seeds)
        ]  # fmt: skip
        rows.append(Row(f"{TITLES[method]}, K_p = {found['vote']}", cells, found["vote"]))
    return Section(f"{SETS[name].title}{small.part}, tuned", rows)


def _fold(folds: tuple[int, ...], seed: int) -> Changes:
    return {"seed": seed, "data.fold": folds[seed % len(folds)]}


def tune_watch(options: Options) -> Path:
    """The search for table nw1's small sets: the same budget for each method and set.

    Raises:
        UserError: none of the sets is at hand; all trials of a method failed.
    """
    found = {}
    for name, small in SMALL.items():
        if absent(name, options.data_root) is None:
            tried = trial_cells(options, name)
            votes = dict.fromkeys(tried, ("1", "5", str(small.k_p)))
            found[name] = search(options, tried, votes)
    if not found:
        raise UserError(f"{options.data_root}: none of {', '.join(SMALL)} is there")
    return save(options, TUNED, found)


def trial_cells(options: Options, name: str) -> dict[str, list[tuple[Changes, Cell]]]:
    """Of each method its trials on the set `name`."""
    small = SMALL[name]
    is_features = name != "nw_pneumoniamnist"
    return {
        method: [
            (changes, _cell(options, small.tuning, method, changes, k_p=small.k_p,
                            minutes=small.minutes, label=f"trial{number}-"))
            for number, changes in enumerate(
                trials(method, classes=small.classes, features=is_features)
            )
        ]
        for method in WATCH
    }  # fmt: skip


def chosen(out: Path) -> dict[str, Any]:
    """What tune_watch found, {set: {method: {"changes", "vote"}}}; of `out`, or what we found."""
    return searched(out, TUNED)


def table_nw2(options: Options) -> Table:
    """Transfer to simple classifiers: on the chest X-rays' features, in the place of EPID."""
    name, tuned = "chest_features", chosen(options.out)
    sections = []
    if absent(name, options.data_root) is None and name in tuned:
        own = {m: tuned[name][m] for m in ("lm_mining", "lm", "mm", "softmax", "deep_knn")}
        sections.append(_small(options, name, own))
    return Table(_TITLE2, sections, all_absent(options.data_root, "epid", name))


_TITLE2 = "Neighborhood Watch, table 2. Transfer to simple classifiers, PCA to 32"


def table_nw3(options: Options) -> Table:
    """Survival beyond 1,096 days, five stratified folds; and Cox on the features (transfer)."""
    sections = []
    if absent("lung1", options.data_root) is None:
        rows = []
        for method in WATCH:
            # k and w_sd as the paper has them on its sarcoma set.
            own: Changes = {"loss.k": 0, "loss.w_sd": 0.0} if method != "deep_knn" else {}
            cells = [
                _cell(options, "lung1", method,
                      own | {"seed": seed, "data.fold": fold, "epochs": 60, "batch.size": 20},
                      k_p=11, minutes=0.2, label=f"fold{fold}-")
                for fold in range(1, 6)
                for seed in range(options.seeds)
            ]  # fmt: skip
            rows.append(Row(TITLES[method], cells, "11"))
        title = "Lung1, alive beyond 1,096 days, five folds, K_p = k = 11 (majority: 75.2)"
        sections.append(Section(title, rows))
    return Table(_TITLE3, sections, all_absent(options.data_root, "sarcoma", "lung1"))


_TITLE3 = "Neighborhood Watch, table 3. Survival"


def figure_nw4(options: Options) -> Table:
    """PCA-2 of MNIST's test features, LM-Mining."""
    sections = []
    if absent("nw_mnist", options.data_root) is None:
        (row, *_) = _mnist_part(options).rows
        part = [row._replace(cells=row.cells[:1])]
        sections.append(Section("MNIST, 600 training images a class, test part", part))
    missing = all_absent(options.data_root, "nw_mnist")
    return Table("Neighborhood Watch, figure 4. MNIST by PCA", sections, missing)


def figure_nw5(options: Options) -> Table:
    """PCA-2 of CIFAR-10's test features."""
    missing = all_absent(options.data_root, "cifar10")
    if not missing:
        missing = ["CIFAR-10: its features of InceptionResNetV2 want published weights"]
    return Table("Neighborhood Watch, figure 5. CIFAR-10 by PCA", [], missing)
