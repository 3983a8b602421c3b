"""The papers' figures of finished cells: training curves, t-SNE, principal components."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepknn_jax.data.dataset import TEST, TRAIN
from deepknn_jax.evaluation import pictures
from deepknn_jax.reproduce import store
from deepknn_jax.reproduce.cells import Section, Table
from deepknn_jax.reproduce.markdown import grid, mean_of, shown

SHARE = 0.95
_COLORS = ("#0173b2", "#de8f05")  # the paper's: deep kNN blue, triplet orange

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
