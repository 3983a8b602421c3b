"""The command: python -m deepknn_jax.main [--mode=embed|inspect] --config=configs/skin7.py."""

import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from deepknn_jax.engine import compiled, hosts
from deepknn_jax.shell import (
    DEFAULT_CONFIG,
    parse_config_flags,
    run_command,
    with_flagfiles,
    without_config,
)


def main() -> None:
    """Runs the config that the flags name."""
    config = flags.FLAGS.config
    if config.get("deterministic"):
        # JAX's backend reads the variable once, when it starts.
        os.environ["XLA_FLAGS"] = (
            os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
        )
    hosts.join(flags.FLAGS.distributed)
    asked = flags.FLAGS.compilation_cache or os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if hosts.count() > 1 and not asked:
        # On GPUs they tune kernels together: who finds a program, and tunes none, is waited for.
        compiled.keep(compiled.OFF)
    from deepknn_jax.trainer import embed, inspect, loop  # only now, as they bring JAX

    if flags.FLAGS.mode == "inspect":
        inspect.run(config)
        return
    embeds = flags.FLAGS.mode == "embed"
    given, _ = without_config(with_flagfiles(sys.argv))
    name = Path(given or DEFAULT_CONFIG).stem + ("_features" * embeds)
    workdir = Path(flags.FLAGS.workdir or f"runs/{name}").expanduser()
    (embed if embeds else loop).run(config, workdir)


def parse(argv: list[str]) -> list[str]:
    """Defines the flags and parses them."""
    with_flagfiles(argv)  # defining --config reads such files, too, but words no error
    config_flags.DEFINE_config_file("config", lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run's files; default runs/<config's name>.")
    flags.DEFINE_enum(
        "distributed",
        "auto",
        hosts.WAYS,
        "auto: one of several processes where srun, mpirun, JAX's variables or a TPU slice say so; "
        "on: it must be; off: this process alone. docs/cluster.md.",
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        ["train", "embed", "inspect"],
        "embed: write the backbone's features, train nothing; inspect: tell what the data are and "
        "what a training would take, write nothing.",
    )
    return parse_config_flags(argv)


def cli() -> None:
    """Entry point."""
    run_command(main, parse, like="--config.loss.k=7")


if __name__ == "__main__":
    cli()
