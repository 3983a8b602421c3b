"""Pictures as PNG files: of a run, and of its embeddings in other models (scatter, kaplan_meier).

Drawn through matplotlib's objects on the Agg canvas: no display, no global state. Colours suit
colour-blind readers, and nothing is told by colour alone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.classes import MOST, shown_classes
from deepknn_jax.evaluation.tsne import spread_rows, tsne_map
from deepknn_jax.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# seaborn's "colorblind" palette
_COLORS = (
    *("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc"),
    *("#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9"),
)
_REST = (0.75, 0.75, 0.75, 1.0)  # of the classes that are not named
_PANELS = (  # title, {key of a record: its name in the legend}, format of the axis
    ("loss", {"loss": "loss"}, "from 0"),
    ("share of active triplets", {"active": "active"}, "share"),
    (
        "kNN accuracy, $K_p$ = {k}",
        {
            "train_acc": "training, leave-one-out",
            "validation_acc": "validation",
            "validation_mcr": "validation, mean class recall",
        },
        "share",
    ),
    ("learning rate", {"lr": "learning rate"}, "rate"),
    ("examples per second", {"examples_per_s": "examples per second"}, "from 0"),
)


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that many inches, white, 150 dots to the inch."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")


def save(path: Path, figure: "Figure") -> None:
    """Writes a PNG, whole or not at all."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.1)


def training_curves(path: Path, records: Sequence[Mapping[str, Any]], k: int) -> None:
    """Draw the course of a training from the records of metrics.jsonl; `k` neighbours voted.

    Each record has "step" and any of: loss, active, lr, examples_per_s, train_acc,
    validation_acc, validation_mcr. What no record has gets no panel.
    """
    present = {key for record in records for key, value in record.items() if value is not None}
    panels = [panel for panel in _PANELS if present & panel[1].keys()] or [_PANELS[0]]
    columns = min(3, len(panels)) if len(panels) != 4 else 2
    rows = -(-len(panels) // columns)
    figure = new_figure(4.2 * columns, 2.9 * rows)
    for i, (title, lines, form) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.set_title(title.format(k=k), fontsize=10)
        axes.set_xlabel("step")
        _curves(axes, records, lines)
        _curve_axes(axes, form)
    save(path, figure)


def confusion(
    path: Path, matrix_CxC: np.ndarray, class_names: Sequence[str], note: str = ""
) -> None:
    """Draw a confusion matrix of counts; rows are true classes, shaded by share of the row.

    Counts are printed up to 20 classes; a class without images has a grey row. Every class is
    named, so the picture grows with their number (to about 4,500 pixels for 200 classes). `note`
    stands above.
    """
    C = len(class_names)
    few = C <= 20
    cell, font = (max(0.55, 2.6 / C), 8) if few else (0.13, 6)  # inches, points
    names = [shown_name(name, 28) for name in class_names]
    beside = max(map(len, names)) * font * 0.0085 * (1 if few else 2)  # a letter is 0.6 em wide
    figure = new_figure(cell * C + beside + 1.4, cell * C + beside + 0.6)
    axes = figure.add_subplot()
    totals = np.broadcast_to(matrix_CxC.sum(1, keepdims=True), (C, C))
    shares = np.ma.masked_where(totals == 0, matrix_CxC / np.maximum(totals, 1))
    axes.set_facecolor("#d9d9d9")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(C), names, fontsize=font)
    axes.set_yticks(range(C), names, fontsize=font)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(note, fontsize=8)
    if not few:
        axes.tick_params("x", rotation=90)
        axes.tick_params(labeltop=True, labelright=True)  # the way from a name to its cell is long
        axes.set_xticks(np.arange(C - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(C - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="#e4e4e4", linewidth=0.3)
        axes.tick_params(which="minor", length=0)
    elif max(map(len, names)) > 6:
        for label in axes.get_xticklabels():
            label.set(rotation=45, ha="right", rotation_mode="anchor")
    for row, column in zip(*np.nonzero(totals), strict=True) if few else ():
        count, dark = int(matrix_CxC[row, column]), shares[row, column] > 0.5
        color = "white" if dark else "black" if count else "#a0a0a0"
        axes.text(column, row, str(count), ha="center", va="center", fontsize=font, color=color)
    bar = figure.colorbar(image, ax=axes, shrink=min(0.8, 3 / (cell * C)), pad=0.02)
    bar.set_label("share of the true class")
    save(path, figure)


def tsne(
    path: Path,
    embeddings_NxD: np.ndarray,
    labels_N: np.ndarray,
    class_names: Sequence[str],
    splits_N: np.ndarray,
    points_nx2: np.ndarray | None = None,
) -> None:
    """Draw the embeddings in two dimensions by t-SNE, with each class named at its median.

    Of more than 40 classes the largest 40 are named and the others grey. Of more than 2,000
    examples as many are drawn, in proportion to splits and classes; the choice and the map are the
    same each time. `points_nx2` is that map, where it was computed before.
    """
    from matplotlib import colormaps

    kept = spread_rows(np.asarray(splits_N), np.asarray(labels_N))
    points = tsne_map(embeddings_NxD[kept]) if points_nx2 is None else points_nx2
    C = len(class_names)
    shown = shown_classes(np.bincount(labels_N, minlength=C), class_names)
    labels, splits = shown.place[labels_N][kept], np.asarray(splits_N)[kept]
    hues = np.linspace(0.03, 0.97, min(C, MOST))
    colors = np.array(_COLORS) if C <= 10 else np.vstack([colormaps["turbo"](hues), _REST])
    figure = new_figure(8, 7)
    axes = figure.add_subplot()
    marks: dict[str, dict[str, Any]] = {
        "train": {"marker": "o", "s": 14, "alpha": 0.5, "linewidths": 0},
        "validation": {"marker": "^", "s": 26, "edgecolors": "black", "linewidths": 0.5},
        "test": {"marker": "D", "s": 22, "edgecolors": "black", "linewidths": 0.6},
    }
    for split, mark in marks.items():
        of = splits == split
        if of.any():
            axes.scatter(points[of, 0], points[of, 1], c=colors[labels[of]], **mark)
            axes.scatter([], [], color="#555555", label=f"{split} ({of.sum():,})", **mark)
    named = labels < MOST
    _name_classes(axes, points[named], labels[named], shown.names[:MOST])
    axes.set(xticks=[], yticks=[])
    if shown.rest:
        axes.scatter([], [], color=[_REST], label=f"grey: {shown.names[-1]}")
    of_all = f" of {len(labels_N):,}" if len(kept) < len(labels_N) else ""
    axes.set_title(f"t-SNE of the embeddings: {len(kept):,}{of_all} examples, {C:,} classes")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    save(path, figure)


def scatter(
    path: Path,
    train_x: np.ndarray,
    test_x: np.ndarray,
    test_y: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Draw the test part on two principal components of the training part.

    As figures 4 and 5 of Neighborhood Watch. The embeddings are not standardised first: distances
    look as the kNN on them sees them. Each class has a colour and, up to 40 classes, its name at
    its median.

    Raises:
        UserError: the training part is one point.
    """
    from matplotlib import colormaps
    from sklearn.decomposition import PCA

    train, test = (np.pad(np.float64(x), ((0, 0), (0, 1))) for x in (train_x, test_x))  # D may be 1
    if not np.ptp(train, axis=0).any():
        raise UserError("the training part's embeddings are all equal: nothing to draw")
    fitted = PCA(2, svd_solver="full").fit(train)
    points, count = fitted.transform(test), len(class_names)
    hues = np.linspace(0.03, 0.97, count)
    colors = colormaps["tab10"](range(10)) if count <= 10 else colormaps["turbo"](hues)
    figure = new_figure(7, 6)
    axes = figure.add_subplot()
    size = 6 if len(points) > 2000 else 16
    axes.scatter(points[:, 0], points[:, 1], c=colors[test_y], s=size, alpha=0.6, linewidths=0)
    _name_classes(axes, points, test_y, class_names)
    shares = fitted.explained_variance_ratio_
    axes.set_xlabel(f"first component, {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second component, {shares[1]:.0%}")
    axes.set_title(f"Test features, {len(points):,} examples, {count} classes")
    save(path, figure)


def _name_classes(
    axes: "Axes", points_Nx2: np.ndarray, labels_N: np.ndarray, class_names: Sequence[str]
) -> None:
    """The name of each class, up to 40 of them, at the median of its points."""
    from matplotlib.patheffects import withStroke

    for c in np.unique(labels_N) if len(class_names) <= 40 else ():
        x, y = np.median(points_Nx2[labels_N == c], axis=0)
        above = 12 if np.sum(labels_N == c) < 10 else 0  # points: not to hide what is named
        place: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "center"}
        name = axes.annotate(shown_name(class_names[c], 24), (x, y), (0, above), **place)
        name.set(fontweight="bold", path_effects=[withStroke(linewidth=3, foreground="white")])


def kaplan_meier(
    path: Path, log_hazards: np.ndarray, times: np.ndarray, events: np.ndarray
) -> float:
    """Draw the survival of the halves of low and high predicted hazard (Kaplan-Meier), 95 % bands.

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

    from deepknn_jax.data.survival import check_survival  # it brings Pillow

    times, events = check_survival(times, events, "test part")
    high = log_hazards > np.median(log_hazards)
    if not high.any():
        raise UserError("half of the predicted hazards or more are equal: no halves to compare")
    figure = new_figure(6, 4.2)
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
    save(path, figure)
    return float(test.p_value)


def shown_name(name: str, longest: int = 30) -> str:
    """A class name as matplotlib can show it: not too long, "$" not the start of a formula."""
    short = name if len(name) <= longest else name[: longest - 1] + "…"
    return short.replace("$", r"\$")


def _curves(axes: "Axes", records: Sequence[Mapping[str, Any]], lines: Mapping[str, str]) -> None:
    for i, (key, name) in enumerate(lines.items()):
        points = [(r["step"], r[key]) for r in records if r.get(key) is not None]
        if not points:
            continue
        steps, values = np.array(points, np.float64).T
        marker = "o" if len(points) <= 20 else ""
        style = ("-", "--", ":")[i]
        axes.plot(steps, values, style, marker=marker, markersize=3, color=_COLORS[i], label=name)
    if axes.lines and len(lines) > 1:
        axes.legend(fontsize=8, frameon=False, loc="lower right")


def _curve_axes(axes: "Axes", form: str) -> None:
    from matplotlib.ticker import (
        LogLocator,
        MaxNLocator,
        NullLocator,
        PercentFormatter,
        StrMethodFormatter,
    )

    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    low, high = axes.get_ylim()
    if form == "rate" and axes.lines and axes.dataLim.ymin > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2.5, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    elif form == "share":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(max(low, -0.02), min(high, 1.02))
    elif form == "from 0":
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        axes.set_ylim(low if axes.dataLim.ymin < 0 else 0, high + 0.05 * abs(high))
