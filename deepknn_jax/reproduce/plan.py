"""From a table of tables.toml to the cells that it is made of."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from deepknn_jax.reproduce.catalog import (
    KINDS,
    PRINTED,
    SEARCHES,
    SETS,
    SIZES,
    TABLES,
    Changes,
    RowPlan,
    SectionPlan,
    Size,
)
from deepknn_jax.reproduce.cells import Cell, Options, Row, Section, Table, named
from deepknn_jax.reproduce.search import chosen
from deepknn_jax.reproduce.sets import absent, all_absent

# A row's vote -> what of the search's choice it is.
_CHOSEN = {"chosen": "vote", "point": "point"}
FALLBACK = "efficientnet_lite0"  # the package's own weights: no download


class Backbone(NamedTuple):
    """A network and its weights; the config's own, from random weights, where both are empty."""

    name: str = ""
    weights: str = ""

    @property
    def changes(self) -> Changes:
        """To a config."""
        return {"model.name": self.name, "model.weights": self.weights} if self.name else {}


class _Shared(NamedTuple):
    """What the rows of a section share: `choice` is {method: {"vote", "changes"}} of a search."""

    table: str
    plan: SectionPlan
    size: Size
    backbone: Backbone
    choice: Mapping[str, Any]
    options: Options


def backbone(options: Options, wanted: str) -> Backbone:
    """The backbone `wanted` and its weights; without any EfficientNet-Lite0 and its own."""
    if options.weights is not None:
        for suffix in (".safetensors", ".pth"):
            if (path := options.weights / f"{wanted}{suffix}").is_file():
                return Backbone(wanted, str(path))
    return Backbone(FALLBACK, FALLBACK)


def make_table(name: str, options: Options) -> Table:
    """The table `name` of what is at hand, and words about what is not."""
    plan = TABLES[name]
    here = [each for each in plan.sections if absent(each.set, options.data_root) is None]
    stood_for = [other for each in here for other in each.in_place_of]
    missing = all_absent(options.data_root, *plan.absent, *stood_for)
    models = {wanted: backbone(options, wanted) for wanted in plan.backbones}
    missing += [
        f"{wanted}: no published weights: --weights=DIR, where DIR holds {wanted}.pth or "
        ".safetensors"
        for wanted, found in models.items()
        if found.name != wanted
    ]
    sections = []
    for each in here:
        choice = _choice(each, options)
        if not choice and any(row.vote in _CHOSEN for row in each.rows):
            missing.append(f"{SETS[each.set].title}: no options were searched yet: "
                           f"--tune --table={each.chosen}")  # fmt: skip
            continue
        own = [backbone(options, each.backbone) if each.backbone else Backbone()]
        for model in dict.fromkeys(models.values()) or own:
            sections += [
                _section(_Shared(name, each, size, model, choice, options))
                for size in [SIZES[size] for size in each.sizes] or [Size()]
                if not (size.cpu_only and options.gpu)
            ]
    return Table(plan.title, sections, missing or [plan.lacks] * bool(plan.lacks))


def _choice(plan: SectionPlan, options: Options) -> Mapping[str, Any]:
    if not plan.chosen or (options.untuned and SEARCHES[plan.chosen].optional):
        return {}
    found: Mapping[str, Any] = chosen(options.out, plan.chosen).get(plan.chosen_on or plan.set, {})
    return found


def _section(shared: _Shared) -> Section:
    plan = shared.plan
    title = plan.title.format(
        model=shared.backbone.name,
        size=shared.size.words,
        seeds=_seeds(RowPlan(), shared),
        best=_printed("best known", shared).get("acc"),
    )
    rows = [made for row in plan.rows if (made := _row(row, shared)) is not None]
    return Section(title, rows, plan.beside, plan.part)


def _printed(label: str, shared: _Shared) -> Mapping[str, float]:
    of_set = shared.plan.paper.format(model=shared.backbone.name)
    return PRINTED.get((shared.table, of_set, label), {})


def _row(plan: RowPlan, shared: _Shared) -> Row | None:
    """None for a backbone of its own without weights or figures, and for a method not searched."""
    if plan.backbone:
        shared = shared._replace(backbone=backbone(shared.options, plan.backbone))
        if shared.backbone.name != plan.backbone or not _printed(plan.label, shared):
            return None
    vote = plan.vote
    if vote in _CHOSEN:
        if plan.method not in shared.choice:
            return None
        vote = shared.choice[plan.method][_CHOSEN[vote]]
    if plan.reference:
        title, cells = plan.label, _reference(plan, shared)
    else:
        title = KINDS[shared.plan.kind].methods[plan.method].title
        cells = [_trained(plan, shared, fold, seed) for fold, seed in _runs(plan, shared)]
    label = plan.label.format(title=title, vote=vote)
    return Row(label, cells, vote, _printed(label, shared), title)


def _seeds(plan: RowPlan, shared: _Shared) -> int:
    wanted = plan.seeds or shared.size.seeds or shared.options.seeds
    return min(wanted, shared.plan.most_seeds or wanted)


def _runs(plan: RowPlan, shared: _Shared) -> list[tuple[int | None, int]]:
    """(fold, seed) of each cell of the row; fold None: the config's."""
    seeds, draws = range(_seeds(plan, shared)), shared.plan.draws
    if draws:
        return [(draws[seed % len(draws)], seed) for seed in seeds]
    return [(fold, seed) for fold in shared.plan.folds or (None,) for seed in seeds]


def _fold(fold: int | None) -> Changes:
    return {} if fold is None else {"data.fold": fold}


def _reference(plan: RowPlan, shared: _Shared) -> list[Cell]:
    """Neighbours by the network's features before any training, or on the pixels: without seeds."""
    kind = KINDS[shared.plan.kind]
    changes = kind.base | shared.backbone.changes
    changes |= shared.plan.changes | shared.size.changes | plan.changes
    label = plan.cell or f"knn-{plan.reference}"
    seconds = plan.seconds or kind.seconds
    cell = Cell("", shared.plan.set, plan.method, changes, seconds, reference=plan.reference)
    return [
        named(
            cell._replace(name=label.format(fold=fold), changes=changes | _fold(fold)),
            shared.options,
        )
        for fold in dict(_runs(plan, shared))
    ]


def _trained(plan: RowPlan, shared: _Shared, fold: int | None, seed: int) -> Cell:
    """A run of the row's method, after that of the method that it starts from."""
    kind, size = KINDS[shared.plan.kind], shared.size
    method = kind.methods[plan.method]
    changes = kind.base | shared.backbone.changes | method.changes
    changes |= shared.plan.changes | size.changes
    changes |= shared.choice.get(plan.method, {}).get("changes", {}) | plan.changes | kind.changes
    changes |= size.metric_changes if method.metric else {}
    changes |= _fold(fold) | {"seed": seed}
    changes |= {"data.split_seed": seed} if shared.plan.split_seeds else {}
    start = None
    if method.start:
        start = _trained(plan._replace(method=method.start), shared, fold, seed)
        changes["model.weights"] = ""
    label = (plan.cell or kind.cell).format(method=plan.method, fold=fold, seed=seed)
    seconds = plan.seconds or kind.seconds
    cell = Cell(label, shared.plan.set, plan.method, changes, seconds, kind.keep, start)
    return named(cell, shared.options)
