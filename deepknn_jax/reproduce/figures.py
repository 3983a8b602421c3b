"""The papers' figures of finished cells: training curves, t-SNE, principal components."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN
from deepknn_jax.evaluation import pictures
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.catalog import KINDS, SEARCHES, SETS
from deepknn_jax.reproduce.cells import Options, Row, Section, Table
from deepknn_jax.reproduce.markdown import grid, mean_of, shown
from deepknn_jax.reproduce.search import chosen, trial_cells

SHARE = 0.95
_COLORS = ("#0173b2", "#de8f05")  # the paper's: deep kNN blue, triplet orange
# Of more methods than two: colours that are told apart by the colour-blind, and marks.
_PALETTE = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#949494", "#56b4e9",
    "#000000", "#7a6a00",
)  # fmt: skip
_MARKERS = ("s", "D", "^", "v", "P", "X")
_TRADE = ("acc", "mcr")

Curve = Sequence[tuple[float, float]]  # (epoch, training accuracy)


def write_figure2(table: Table, out: Path) -> list[str]:
    """fig2.png, training accuracy against epochs, and the Markdown of the convergence."""
    panels = {section.title: curves(section, out) for section in table.sections}
    ran = {title: found for title, found in panels.items() if any(found.values())}
    if not ran:
        return []
    draw_training(out / "fig2.png", ran)
    lines = ["![training accuracy against epochs](fig2.png)", ""]
    for title, found in panels.items():
        lines += [f"## Convergence: {title}", "", *convergence(found), ""]
    return lines


def curves(section: Section, out: Path) -> dict[str, list[Curve]]:
    """Of each row of figure 2, the curves of its finished runs."""
    found = {}
    for row in section.rows:
        records = [store.read(out, cell) for cell in row.cells]
        found[row.label] = [record["curve"] for record in records if record is not None]
    return found


def convergence(found: Mapping[str, Sequence[Curve]]) -> list[str]:
    """Markdown: epochs to 95 % of the method's own final training accuracy, and of the lower one.

    The final accuracy is that of the last epoch, by leave-one-out at the largest K_p.
    """
    finals = {label: [runs[-1][1] for runs in each] for label, each in found.items() if each}
    if not finals:
        return ["not run"]
    lower = SHARE * min(float(np.mean(values)) for values in finals.values())
    body = []
    for label, final in finals.items():
        own = [
            epochs_to(curve, SHARE * last) for curve, last in zip(found[label], final, strict=True)
        ]
        same = [epochs_to(curve, lower) for curve in found[label]]
        accuracy = shown(mean_of([100 * value for value in final]))
        body.append([label, accuracy, _epochs(own), _epochs(same), str(len(final))])
    words = f"epochs to {100 * lower:.1f} %, 95 % of the lower final Acc"
    return grid(["method", "final training Acc", "epochs to 95 % of it", words, "runs"], body)


def epochs_to(curve: Curve, level: float) -> float | None:
    """The first epoch at which the accuracy is at least `level`; None where it never is."""
    return next((epoch for epoch, accuracy in curve if accuracy >= level), None)


def _epochs(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"not reached in {len(values) - len(known)} of {len(values)} runs"
    return shown(mean_of(known))


def draw_training(path: Path, panels: Mapping[str, Mapping[str, Sequence[Curve]]]) -> None:
    """A panel a section: the mean over seeds, and as a band their least and largest."""
    figure = pictures.new_figure(4.6 * len(panels), 3.4)
    for i, (title, found) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for color, (label, runs) in zip(_COLORS, found.items(), strict=True):
            if not runs:
                continue
            epochs = [epoch for epoch, _ in runs[0]]
            accuracy = 100 * np.asarray([[value for _, value in run] for run in runs])
            axes.plot(epochs, accuracy.mean(0), color=color, label=label)
            axes.fill_between(epochs, accuracy.min(0), accuracy.max(0), color=color, alpha=0.2)
        axes.set_title(title, fontsize=8)
        axes.set(xlabel="epoch", ylabel="training accuracy (leave-one-out), %")
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False, loc="center right")
    pictures.save(path, figure)


def write_figure_s1(table: Table, out: Path) -> list[str]:
    """A picture a cell of figure S1, by t-SNE of its section's part, and their Markdown."""
    lines = []
    for section in table.sections:
        for row in section.rows:
            for cell in store.embedded(out, row):
                target = out / f"figs1_{cell.set}_{row.label.replace(' ', '_')}.png"
                if not target.exists():
                    found = store.embeddings_of(out, cell)
                    of_part = found["splits"] == section.part
                    arrays = (found[key][of_part] for key in ("embeddings", "labels", "splits"))
                    embeddings, labels, splits = arrays
                    classes = tuple(found["classes"].tolist())
                    pictures.tsne(target, embeddings, labels, classes, splits)
                lines += [f"![{section.title}, {row.label}]({target.name})", ""]
    return lines


def write_operating_points(table: Table, out: Path, name: str) -> list[str]:
    """A picture: MCR against Acc of each row, and the votes' curves over tau, a panel a section."""
    ran = [s for s in table.sections if any(store.read(out, c) for r in s.rows for c in r.cells)]
    if not ran:
        return []
    figure = pictures.new_figure(11, 4.7 * len(ran))
    for i, section in enumerate(ran):
        axes = figure.add_subplot(len(ran), 1, i + 1)
        _trade(axes, section, out)
        axes.set_title(section.title, fontsize=9)
        axes.set(xlabel="Acc, %", ylabel="MCR, %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e6e6e6", linewidth=0.7)
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    pictures.save(out / name, figure)
    return [f"![MCR against Acc, a curve over tau for each method]({name})", ""]


def write_searched(name: str, options: Options) -> None:
    """<search>.png: the same of each method's best trial on its validation part."""
    search, out = SEARCHES[name], options.out
    methods, sections = KINDS[search.kind].methods, []
    for each in search.sets:
        tried, rows = trial_cells(name, each, options), []
        for method, best in chosen(out, name).get(each.set, {}).items():
            cells = [cell for changes, cell in tried[method] if changes == best["changes"]]
            title = methods[method].title
            rows.append(Row(f"{title}, K_p = {best['point']}", cells, best["point"], title=title))
            if not methods[method].metric:  # its loss has a head
                rows.append(Row(f"{title}, its head", cells, "head", title=title))
        sections.append(Section(f"{SETS[each.tuning].title}: the part that validates", rows))
    write_operating_points(Table(name, sections), out, f"{Path(search.file).stem}.png")


def _trade(axes: Any, section: Section, out: Path) -> None:
    """A color a method; a curve's chosen point is ringed, what has no curve is a mark alone."""
    colors: dict[str, str] = {}
    for row, marker in zip(section.rows, _MARKERS * len(section.rows), strict=False):
        records = [record for cell in row.cells if (record := store.read(out, cell))]
        if not records:
            continue
        color = colors.setdefault(row.title, _PALETTE[len(colors) % len(_PALETTE)])
        figures = [store.figures_at(record, row.vote) for record in records]
        place = [[100 * float(np.mean([found[key] for found in figures]))] for key in _TRADE]
        if store.TAU not in row.vote:
            axes.plot(*place, marker, color=color, markersize=6, label=row.label)
            continue
        axes.plot(*place, "o", color=color, markersize=12, mfc="none", mew=1.6)
        axes.plot(*curve_over_tau(row, records), ".-", color=color, label=f"{row.label}: by tau")


def curve_over_tau(row: Row, records: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Acc and MCR in per cent, [2, T], by each tau at the row's K_p: means over the records."""
    k_p = row.vote.partition(store.TAU)[0]
    curves = [record["results"]["operating_points"]["test"][k_p] for record in records]
    values = [[[point[key] for point in curve] for key in _TRADE] for curve in curves]
    mean: np.ndarray = 100 * np.asarray(values).mean(0)
    return mean


def write_figure_nw4(table: Table, out: Path) -> list[str]:
    """nw_fig4.png: the test part on two principal components."""
    for section in table.sections:
        for cell in (cell for row in section.rows for cell in store.embedded(out, row)):
            found = store.embeddings_of(out, cell)
            train, test = found["splits"] == TRAIN, found["splits"] == TEST
            x, classes = found["embeddings"], found["classes"].tolist()
            pictures.scatter(out / "nw_fig4.png", x[train], x[test], found["labels"][test], classes)
            return [f"![{section.title}](nw_fig4.png)", ""]
    return []
