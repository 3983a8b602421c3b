"""The command: python -m deepknn_jax.reproduce --table=3 --data_root=DIR."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from absl import flags

from deepknn_jax.errors import UserError
from deepknn_jax.files import write_text
from deepknn_jax.logs import say
from deepknn_jax.reproduce import counts, coverage, figures, markdown, new_class, transferred
from deepknn_jax.reproduce.catalog import COUNTS, SEARCHES, TABLES
from deepknn_jax.reproduce.cells import Options, Table
from deepknn_jax.reproduce.plan import make_table
from deepknn_jax.reproduce.runs import run_cells, unfinished
from deepknn_jax.reproduce.search import run_search
from deepknn_jax.shell import parse_flags, run_command

# What stands in a table's Markdown before its sections, and the figures that it shows.
EXTRAS: Mapping[str, Callable[[Table, Path], list[str]]] = {
    "fig2": figures.write_figure2,
    "figs1": figures.write_figure_s1,
    "nw2": transferred.write_nw2,
    "nw3": transferred.write_nw3,
    "nw_fig4": figures.write_figure_nw4,
    "ours": functools.partial(figures.write_operating_points, name="ours.png"),
    "skin7_images": functools.partial(figures.write_operating_points, name="skin7_images.png"),
}
# A cell of more seconds than this is told, and run with --all only.
MOST_SECONDS = 3600.0
_PLANS = COUNTS | TABLES


def main() -> None:
    """Writes OUT/table<name>.md, or fig<name>.md, after running what it needs.

    Raises:
        UserError: no data folder or table is given, or whatever stops a run.
    """
    values = flags.FLAGS
    others = ("tune", "coverage", "new_class")
    if values.data_root is None or not (values.table or any(values[name].value for name in others)):
        raise UserError(
            "say --data_root=DIR, and --table=" + "|".join(_PLANS)
            + ", --tune, --coverage or --new_class"
        )  # fmt: skip
    options = _options()
    if not options.data_root.is_dir():
        raise UserError(f"{options.data_root}: no such folder; it should hold a folder a data set")
    options.out.mkdir(parents=True, exist_ok=True)
    _share_compiled_programs(options.out)
    if values.tune:
        search = _PLANS[values.table].search if values.table else "3"
        say(f"written to {run_search(search, options)}")
        if SEARCHES[search].point:
            figures.write_searched(search, options)
    if values.coverage:
        say(coverage.run(options))
    if values.new_class:
        say(new_class.run(options))
    if values.table in COUNTS:
        text = counts.document(values.table, options.data_root, options.out)
        write_text(_path(options.out), text)
        say(text)
    elif values.table:
        _run_table(options)


def _options() -> Options:
    values = flags.FLAGS
    return Options(
        data_root=Path(values.data_root).expanduser(),
        out=Path(values.out).expanduser(),
        seeds=values.seeds,
        weights=Path(values.weights).expanduser() if values.weights else None,
        untuned=values.untuned,
        gpu=jax.default_backend() != "cpu",
    )


def _run_table(options: Options) -> None:
    values, out = flags.FLAGS, options.out
    table = make_table(values.table, options)
    for words in table.absent:
        say(f"absent: {words}")
    todo = unfinished(table.cells, out)
    costly = [] if values.all else [cell for cell in todo if cell.seconds > MOST_SECONDS]
    for words in markdown.costs(costly):
        say(f"not run: {words}")
    left_out = {cell.name for cell in costly}
    wanted = [cell for cell in table.cells if cell.name not in left_out]
    time = markdown.hours(sum(cell.seconds for cell in unfinished(wanted, out)))
    say(f"{len(table.cells)} cells, {len(todo)} to do, about {time} to run now")

    command = f"--table={values.table} --data_root=DATA --seeds={options.seeds}"
    command = f"python -m deepknn_jax.reproduce {command}{' --untuned' * values.untuned}"

    def report() -> None:
        extra = EXTRAS[values.table](table, out) if values.table in EXTRAS else []
        write_text(_path(out), markdown.document(table, out, costly, command, extra))

    if not values.dry_run:
        run_cells(wanted, data_root=options.data_root, out=out, after=report)
        report()
        say(f"written to {_path(out)}")


def _path(out: Path) -> Path:
    """The Markdown; that of the untuned table is another file: both are kept."""
    suffix = "_untuned" if flags.FLAGS.untuned else ""
    return out / f"{_PLANS[flags.FLAGS.table].file}{suffix}.md"


def _share_compiled_programs(out: Path) -> None:
    """A program that one cell compiled is there for the next, also in a later call."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str((out / "compiled").absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def cli() -> None:
    """Entry point."""
    flags.DEFINE_enum("table", None, [*_PLANS], "Which table or figure of the paper.")
    flags.DEFINE_string("data_root", None, "Folder with a folder a data set: skin7, sd198, ...")
    flags.DEFINE_string("out", "runs/reproduce", "Folder of cells, tables and figures.")
    flags.DEFINE_integer("seeds", 3, "Runs of each cell, with seeds 0, 1, ...", lower_bound=1)
    flags.DEFINE_string("weights", None, "Folder of published weights: resnet50.pth, ...")
    flags.DEFINE_boolean("all", False, f"Also cells of more than {MOST_SECONDS / 60:.0f} minutes.")
    flags.DEFINE_boolean("dry_run", False, "Tell what would be run, and run nothing.")
    flags.DEFINE_boolean(
        "tune",
        False,
        "First search the options of --table=3 (the default), 2, ours, skin7_images or nw1.",
    )
    flags.DEFINE_boolean(
        "coverage", False, "Measure how often prediction sets hold the true class: coverage.md."
    )
    flags.DEFINE_boolean(
        "new_class", False, "Measure a class that joins the gallery untrained: new_class.md."
    )
    flags.DEFINE_boolean("untuned", False, "Table 3 without what the search chose.")
    run_command(main, parse_flags, like="--seeds=3")


if __name__ == "__main__":
    cli()
