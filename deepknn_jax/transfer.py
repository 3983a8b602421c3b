"""The command: python -m deepknn_jax.transfer --embeddings=FILE.npz [--survival=FILE.csv].

Frozen embeddings in other models (Neighborhood Watch, "Setting", second experiment): simple
classifiers on their principal components, and Cox's proportional hazards.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from deepknn_jax import pictures
from deepknn_jax.classify import knn_classify
from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.sources_arrays import npz
from deepknn_jax.data.survival_csv import Survival, check_survival, of_names, read_survival
from deepknn_jax.errors import UserError
from deepknn_jax.files import write_text
from deepknn_jax.logs import say
from deepknn_jax.main import parse_flags, run
from deepknn_jax.methods import neighborhood_size
from deepknn_jax.metrics import classification_metrics
from deepknn_jax.survival import c_index, fit_cox_network

# A component with less than this share of the variance is rounding of float32.
_LEAST_SHARE = 1e-10


def standardize(train_x: np.ndarray, test_x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, less the training part's mean and over its deviation; constants give 0."""
    from sklearn.preprocessing import StandardScaler

    train, test = train_x.astype(np.float64), test_x.astype(np.float64)
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


def reduce(train_x: np.ndarray, test_x: np.ndarray, pca: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised, then on at most `pca` principal components; both fitted on the training part.

    Args:
        train_x, test_x: [N, D], [M, D].
        pca: components, >= 1. There are fewer where the training part spans fewer dimensions, to
            a share of 1e-10 of its variance: the rest is rounding, which Cox's model would blow up.

    Returns:
        float64 [N, d] and [M, d].

    Raises:
        UserError: the training part is one point.
    """
    from sklearn.decomposition import PCA

    train, test = standardize(train_x, test_x)
    if not train.any():
        raise UserError("the training part's embeddings are all equal: nothing to transfer")
    fitted = PCA(min(pca, *train.shape), svd_solver="full").fit(train)
    kept = fitted.explained_variance_ratio_ >= _LEAST_SHARE
    return fitted.transform(train)[:, kept], fitted.transform(test)[:, kept]


def classify_all(
    train_x: np.ndarray,
    train_y: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    *,
    pca: int = 32,
    k: int = 0,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Test figures of four classifiers on the principal components (table 2 of the paper).

    kNN, this project's own; and scikit-learn's linear SVM (C = 1), decision tree, and MLP with one
    layer of 24 ReLU units, all else as scikit-learn has it but the MLP's 1,000 epochs at most.

    Args:
        train_x, test_x: embeddings [N, D], [M, D].
        train_y, test_y: int [N], [M], 0 and up.
        pca: as `reduce`.
        k: neighbours that vote; 0: `methods.neighborhood_size`.
        seed: of the tree and the MLP.

    Returns:
        {"kNN" | "SVM" | "DT" | "MLP": {"acc": share, "mcr": mean class recall}}.

    Raises:
        UserError: k above N; training examples of one class only; as `reduce`.
    """
    from sklearn.neural_network import MLPClassifier
    from sklearn.svm import SVC
    from sklearn.tree import DecisionTreeClassifier

    k = neighborhood_size(k, len(train_y))
    if k > len(train_y):
        raise UserError(f"k is {k}, but there are {len(train_y)} training examples: choose fewer")
    if len(np.unique(train_y)) < 2:
        raise UserError("the training part is of one class: nothing to classify")
    num_classes = int(max(train_y.max(), test_y.max())) + 1
    train, test = reduce(train_x, test_x, pca)
    queries, gallery = (jnp.asarray(x, jnp.float32) for x in (test, train))
    voted, _, _ = knn_classify(queries, gallery, jnp.asarray(train_y), k=k, num_classes=num_classes)
    predictions = {"kNN": np.asarray(voted)}
    for name, model in (
        ("SVM", SVC(kernel="linear")),
        ("DT", DecisionTreeClassifier(random_state=seed)),
        ("MLP", MLPClassifier((24,), activation="relu", max_iter=1000, random_state=seed)),
    ):
        predictions[name] = model.fit(train, train_y).predict(test)
    known: dict[str, Any] = {
        "class_names": [str(c) for c in range(num_classes)],
        "train_counts": np.bincount(train_y, minlength=num_classes),
    }
    figures = {name: classification_metrics(test_y, y, **known) for name, y in predictions.items()}
    return {name: {key: found[key] for key in ("acc", "mcr")} for name, found in figures.items()}


def cox_log_hazards(
    train_x: np.ndarray,
    train_time: np.ndarray,
    train_event: np.ndarray,
    test_x: np.ndarray,
    *,
    pca: int = 8,
) -> np.ndarray:
    """Log hazards [M] of the test part by Cox's model on the principal components (lifelines).

    Args:
        train_x, test_x: embeddings [N, D], [M, D].
        train_time, train_event: [N], [N]: as `check_survival` takes them.
        pca: as `reduce`.

    Raises:
        UserError: what `check_survival` or `reduce` refuses; the fit does not converge.
    """
    import pandas
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError, ConvergenceWarning

    times, events = check_survival(train_time, train_event, "training part")
    train, test = standardize(*reduce(train_x, test_x, pca))
    frame = pandas.DataFrame(train, columns=[f"pc{i}" for i in range(train.shape[1])])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            fitted = CoxPHFitter().fit(frame.assign(time=times, event=events), "time", "event")
    except (ConvergenceError, ConvergenceWarning) as error:
        raise UserError(
            f"Cox's model has no optimum on {train.shape[1]} components and {events.sum()} deaths:"
            " take fewer components"
        ) from error
    hazards = fitted.predict_log_partial_hazard(pandas.DataFrame(test, columns=frame.columns))
    return np.asarray(hazards)


def cox_c_index(
    train_x: np.ndarray,
    train_time: np.ndarray,
    train_event: np.ndarray,
    test_x: np.ndarray,
    test_time: np.ndarray,
    test_event: np.ndarray,
    *,
    pca: int = 8,
) -> float:
    """C-index on the test part of Cox's model on the embeddings (table 3 of the paper)."""
    log_hazards = cox_log_hazards(train_x, train_time, train_event, test_x, pca=pca)
    return c_index(log_hazards, test_time, test_event)


def network_log_hazards(
    train_x: np.ndarray,
    train_time: np.ndarray,
    train_event: np.ndarray,
    test_x: np.ndarray,
    **options: Any,
) -> np.ndarray:
    """Log hazards [M] by the end-to-end baseline (table 3, last line) on standardised features.

    `options` go to `survival.fit_cox_network`, whose errors these are.
    """
    train, test = (x.astype(np.float32) for x in standardize(train_x, test_x))
    return fit_cox_network(train, train_time, train_event, **options).log_hazards(test)


def draw_scatter(
    path: Path,
    train_x: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """The test part on two principal components of the training part (figures 4 and 5).

    The embeddings are not standardised first: distances look as the kNN on them sees them. Each
    class has a colour and, up to 40 classes, its name at its median.

    Raises:
        UserError: the training part is one point.
    """
    from matplotlib import colormaps
    from matplotlib.patheffects import withStroke
    from sklearn.decomposition import PCA

    train, test = (np.pad(np.float64(x), ((0, 0), (0, 1))) for x in (train_x, test_x))  # D may be 1
    if not np.ptp(train, axis=0).any():
        raise UserError("the training part's embeddings are all equal: nothing to draw")
    fitted = PCA(2, svd_solver="full").fit(train)
    points, count = fitted.transform(test), len(class_names)
    spread = np.linspace(0.03, 0.97, count)
    colors = colormaps["tab10"](range(10)) if count <= 10 else colormaps["turbo"](spread)
    figure = pictures.new_figure(7, 6)
    axes = figure.add_subplot()
    size = 6 if len(points) > 2000 else 16
    axes.scatter(points[:, 0], points[:, 1], c=colors[test_y], s=size, alpha=0.6, linewidths=0)
    for c in np.unique(test_y) if count <= 40 else ():
        x, y = np.median(points[test_y == c], axis=0)
        # Above it, not to hide the only point of a class.
        place: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "bottom"}
        name = axes.annotate(class_names[c].replace("$", r"\$"), (x, y), (0, 5), **place)
        name.set(fontweight="bold", path_effects=[withStroke(linewidth=3, foreground="white")])
    shares = fitted.explained_variance_ratio_
    axes.set_xlabel(f"first component, {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {shares[1]:.0%}")
    axes.set_title(f"Test features, {len(points):,} examples, {count} classes")
    pictures.save(path, figure)


def draw_kaplan_meier(
    path: Path, log_hazards: np.ndarray, times: np.ndarray, events: np.ndarray
) -> float:
    """Survival of the halves of low and high predicted hazard (Kaplan-Meier), 95 % bands.

    The halves part at the median; what equals it is low. Ticks mark the censored.

    Args:
        path: PNG to write.
        log_hazards: [M]; their order is what counts.
        times, events: [M]: as `check_survival` takes them.

    Returns:
        The p-value of the log-rank test between the halves, which the title tells too.

    Raises:
        UserError: what `check_survival` refuses; more than half of the hazards are the largest.
    """
    from lifelines import KaplanMeierFitter
    from lifelines.statistics import logrank_test

    times, events = check_survival(times, events, "test part")
    high = log_hazards > np.median(log_hazards)
    if not high.any():
        raise UserError("half of the predicted hazards or more are equal: no halves to compare")
    figure = pictures.new_figure(6, 4.2)
    axes = figure.add_subplot()
    for name, of, color, dashes in (
        ("low", ~high, "#0173b2", "-"),
        ("high", high, "#d55e00", "--"),
    ):
        fitted = KaplanMeierFitter().fit(times[of], events[of])
        steps, band = fitted.survival_function_, fitted.confidence_interval_
        label = f"{name} hazard: {of.sum()} patients, {events[of].sum()} deaths"
        axes.step(steps.index, steps.iloc[:, 0], dashes, where="post", color=color, label=label)
        lower, upper = band.to_numpy().T
        axes.fill_between(band.index, lower, upper, step="post", color=color, alpha=0.15)
        if (censored := times[of & ~events]).size:
            axes.plot(censored, fitted.predict(censored), "|", color=color, markersize=8)
    test = logrank_test(times[high], times[~high], events[high], events[~high])
    axes.set(xlabel="time", ylabel="share alive", ylim=(0, 1.02))
    axes.set_xlim(left=0)
    axes.set_title(f"Halves by predicted hazard; log-rank p = {test.p_value:.2g}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    pictures.save(path, figure)
    return float(test.p_value)


def read_embeddings(path: Path) -> Listing:
    """An .npz of embeddings (or features), labels, names, splits, classes, as a run leaves it.

    Raises:
        UserError: what `data.sources_arrays.npz` refuses; no training or no test part.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; --embeddings is the embeddings.npz of a run")
    listing = npz(path)
    if listing.inputs is None or listing.inputs.ndim != 2:
        raise UserError(f"{path}: holds images; --embeddings is the embeddings.npz of a run")
    for part in (TRAIN, TEST):
        if listing.splits is None or part not in listing.splits:
            raise UserError(f"{path}: names no {part} part; splits [N] must hold train and test")
    return listing


def survive(listing: Listing, survival: Survival, out: Path, *, pca: int) -> dict[str, Any]:
    """Cox's model on the embeddings, and km.png in `out`: {"c_index", "logrank_p", ...}."""
    assert listing.inputs is not None
    assert listing.splits is not None
    times, events = of_names(survival, listing.names)
    train, test = (np.flatnonzero(listing.splits == part) for part in (TRAIN, TEST))
    x = listing.inputs
    log_hazards = cox_log_hazards(x[train], times[train], events[train], x[test], pca=pca)
    return {
        "c_index": c_index(log_hazards, times[test], events[test]),
        "logrank_p": draw_kaplan_meier(out / "km.png", log_hazards, times[test], events[test]),
        "train_deaths": int(events[train].sum()),
        "test_deaths": int(events[test].sum()),
        "cox_pca": pca,
    }


def table(results: Mapping[str, Any]) -> str:
    """The figures of transfer.json as plain text."""
    lines = [f"{'classifier':<12}{'Acc':>6}{'MCR':>6}", "-" * 24]
    for name, found in results["classifiers"].items():
        shown = f"{name}, k = {results['k']}" if name == "kNN" else name
        lines.append(f"{shown:<12}{100 * found['acc']:>6.1f}{100 * found['mcr']:>6.1f}")
    if "survival" in results:
        found = results["survival"]
        lines.append(f"Cox: C-index {found['c_index']:.4f}, log-rank p {found['logrank_p']:.2g}")
    return "\n".join(lines)


def main() -> None:
    """Writes transfer.json, scatter.png and, with --survival, km.png; prints the figures.

    The validation part of the embeddings is not used.
    """
    values = flags.FLAGS
    if not values.embeddings:
        raise UserError("say --embeddings=FILE.npz, the embeddings of a run")
    path = Path(values.embeddings).expanduser()
    listing = read_embeddings(path)
    keys = ("time_column", "event_column", "name_column")
    columns: dict[str, Any] = {key: values[key].value for key in keys}
    survival = read_survival(values.survival, **columns) if values.survival else None
    out = Path(values.out).expanduser() if values.out else path.parent
    out.mkdir(parents=True, exist_ok=True)
    assert listing.inputs is not None
    train, test = listing.splits == TRAIN, listing.splits == TEST
    train_x, test_x = listing.inputs[train], listing.inputs[test]
    train_y, test_y = listing.labels[train], listing.labels[test]
    k = neighborhood_size(values.k, len(train_y))
    results: dict[str, Any] = {"embeddings": values.embeddings, "pca": values.pca, "k": k}
    results |= {"seed": values.seed, "train": len(train_y), "test": len(test_y)}
    results["classifiers"] = classify_all(
        train_x, train_y, test_x, test_y, pca=values.pca, k=k, seed=values.seed
    )
    draw_scatter(out / "scatter.png", train_x, test_x, test_y, listing.class_names)
    if survival:
        results["survival"] = survive(listing, survival, out, pca=values.cox_pca)
    write_text(out / "transfer.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    say(table(results))
    say(f"written to {out / 'transfer.json'}")


def cli() -> None:
    """Entry point."""
    flags.DEFINE_string("embeddings", None, "The embeddings.npz of a run.")
    flags.DEFINE_integer("pca", 32, "Principal components for the classifiers.", lower_bound=1)
    flags.DEFINE_integer("k", 0, "Neighbours that vote; 0: the root of n.", lower_bound=0)
    flags.DEFINE_string("out", None, "Folder of what is written; default: that of the embeddings.")
    flags.DEFINE_integer("seed", 0, "Of the tree and the MLP.", lower_bound=0)
    flags.DEFINE_string("survival", None, "A csv with the survival of each embedding's name.")
    flags.DEFINE_string("time_column", "time", "Its column of times.")
    flags.DEFINE_string("event_column", "event", "Its column of events: 1 died, 0 censored.")
    flags.DEFINE_string("name_column", "name", "Its column of names.")
    flags.DEFINE_integer("cox_pca", 8, "Principal components for Cox's model.", lower_bound=1)
    run(main, parse_flags, like="--pca=32")


if __name__ == "__main__":
    cli()
