"""What each table and figure is made of."""

from collections.abc import Callable

from deepknn_jax.reproduce import plan_features, plan_images, plan_watch
from deepknn_jax.reproduce.cells import (
    Options,
    Row,
    Section,
    Table,
    backbone,
    on_features,
    on_images,
)
from deepknn_jax.reproduce.methods import Changes
from deepknn_jax.reproduce.plan_features import FEATURES
from deepknn_jax.reproduce.sets import SETS, absent, all_absent


def figure2(options: Options) -> Table:
    """Training accuracy against epochs, deep kNN and triplet."""
    each: Changes = {"evaluate.every_epochs": 1, "evaluate.k_p": (1, 5)}
    sections, missing = [], all_absent(options.data_root, "skin7_features", "sd198", "skin7")
    if absent("skin7_features", options.data_root) is None:
        rows = [
            Row(
                label,
                [on_features(options, method, fold=1, seed=seed, extra=each, minutes=1.0)
                 for seed in range(options.seeds)],
                "5",
            )
            for method, label in (("deep_knn", "deep kNN"), ("triplet", "triplet"))
        ]  # fmt: skip
        sections.append(Section(f"Skin-7 fold 1, {FEATURES}, MLP", rows))
    for name, wanted in (("sd198", "resnet50"), ("skin7", "densenet121")):
        if absent(name, options.data_root) is None:
            model = backbone(options, wanted)
            rows = [
                Row(
                    label,
                    [on_images(options, name, method, seed=0, model=model, extra=each)],
                    "5",
                )
                for method, label in (("deep_knn", "deep kNN"), ("triplet", "triplet"))
            ]
            sections.append(Section(f"{SETS[name].title}, {model[0]}", rows))
    return Table("Figure 2. Training accuracy against epochs", sections, missing)


PLANS: dict[str, Callable[[Options], Table]] = {
    "2": plan_images.table2,
    "3": plan_features.table3,
    "4": plan_images.table4,
    "s2": plan_images.table_s2,
    "s3": plan_features.table_s3,
    "s4": plan_features.table_s4,
    "fig2": figure2,
    "figs1": plan_images.figure_s1,
    "nw1": plan_watch.table_nw1,
    "nw2": plan_watch.table_nw2,
    "nw3": plan_watch.table_nw3,
    "nw_fig4": plan_watch.figure_nw4,
    "nw_fig5": plan_watch.figure_nw5,
}
