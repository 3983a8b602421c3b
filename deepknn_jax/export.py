"""The command: python -m deepknn_jax.export --run=RUN --out=FILE.zip."""

from pathlib import Path

from absl import flags

from deepknn_jax.answers.export import export, write
from deepknn_jax.answers.judge import check_options
from deepknn_jax.answers.run import open_run
from deepknn_jax.errors import UserError, renaming
from deepknn_jax.logs import say
from deepknn_jax.shell import make_missing_model, parse_flags, run_command


@renaming({"k": "--k"})
def main() -> None:
    """Writes what the run answers by as one archive, which JAX alone runs (docs/export.md).

    Raises:
        UserError: a flag is missing or wrong, or the run is not there.
    """
    values = flags.FLAGS
    if not values.run:
        raise UserError("--run is not given: a run's workdir or its model folder")
    out = Path(values.out or "").expanduser()
    if out.suffix != ".zip":
        raise UserError(f"--out is {values.out or 'not given'}: give it the name of a .zip file")
    make_missing_model(values.run)
    run = open_run(values.run)
    k = run.model.about["k_p"] if values.k is None else values.k
    check_options(run.model, k, level=0.9, abstain_error=0.1)
    out.parent.mkdir(parents=True, exist_ok=True)
    found = export(run.model, k=k)
    write(out, found)
    size = len(found.program) / 1e6, sum(x.nbytes for x in found.arrays.values()) / 1e6
    say(f"{run.model.about['backbone']}, {len(run.model.gallery.labels):,} training images, K_p "
        f"{k}: a program of {size[0]:.2f} MB, arrays of {size[1]:.1f} MB")  # fmt: skip
    if run.model.gallery.names:
        say("holds the names of the training images: treat it as the data themselves")
    say(f"written to {out}")


def parse(argv: list[str]) -> list[str]:
    """Defines the flags and parses them."""
    flags.DEFINE_string("run", None, "A run's workdir, or its model folder wherever it lies.")
    flags.DEFINE_string("out", None, "The .zip file to write.")
    flags.DEFINE_integer("k", None, "Neighbours that vote; the run's own K_p by default.")
    return parse_flags(argv)


def cli() -> None:
    """Entry point."""
    run_command(main, parse, like="--k=5")


if __name__ == "__main__":
    cli()
