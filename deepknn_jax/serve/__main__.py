"""The command: python -m deepknn_jax.serve --run=RUN."""

import errno
import socket
from typing import Any

import numpy as np
from absl import flags

from deepknn_jax.answers import gallery
from deepknn_jax.answers.judge import check_options, judge
from deepknn_jax.answers.run import Run, open_run
from deepknn_jax.errors import UserError, renaming
from deepknn_jax.logs import say
from deepknn_jax.shell import make_missing_model, parse_flags, run_command

_HOST = "127.0.0.1"  # no other: what it shows are data of patients, and it knows no passwords
_OPTIONS = ("k", "level", "abstain_error")
_LAST_S = 5  # for answers that are under way when it is stopped


@renaming({name: f"--{name}" for name in _OPTIONS})
def main() -> None:
    """Serves the page until a signal ends it.

    Raises:
        UserError: a flag is missing or wrong, the run is not there, the port is taken, or the extra
            [serve] is not installed.
    """
    values = flags.FLAGS
    if not values.run:
        raise UserError("--run is not given: a run's workdir or its model folder")
    try:
        import python_multipart  # noqa: F401  Starlette misses it only when files come
        import uvicorn  # noqa: F401

        from deepknn_jax.serve.app import make_app
        from deepknn_jax.serve.desk import Desk, Options
    except ModuleNotFoundError as error:
        name = str(error.name).split(".", 1)[0]
        raise UserError(f"the page needs {name}: pip install 'deepknn-jax[serve]'") from error
    make_missing_model(values.run)
    run = open_run(values.run)
    k = run.model.about["k_p"] if values.k is None else values.k
    check_options(run.model, k, values.level, values.abstain_error)
    options = Options(k, values.level, values.abstain_error, values.writable)
    with listening(values.port) as listener:
        warm(run, k, writable=values.writable)
        writes = "; it changes the gallery" if values.writable else ""
        say(f"http://{_HOST}:{listener.getsockname()[1]}/ answers by {run.folder}{writes}; Ctrl-C "
            "ends it")  # fmt: skip
        server(make_app(Desk(run, options))).run(sockets=[listener])


def listening(port: int) -> socket.socket:
    """A socket of this machine alone; port 0: any that is free.

    Raises:
        UserError: the port is taken, or not ours to take.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        reason = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error})"
        raise UserError(f"--port={port}: {reason}; choose another, or 0 for any that is free"
                        ) from error  # fmt: skip
    return listener


def server(app: Any) -> Any:  # uvicorn.Server, which only the extra brings
    """What serves the application, without a log of who asked what."""
    import uvicorn

    return uvicorn.Server(uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="on", log_level="warning",
        access_log=False, server_header=False, proxy_headers=False,
        timeout_graceful_shutdown=_LAST_S,
    ))  # fmt: skip


def warm(run: Run, k: int, *, writable: bool = False) -> None:
    """Answers one blank example, so that the first of a user's is not kept waiting by compiling.

    `writable`: calibrates anew as well, which a first correction would wait for.
    """
    shape = run.form.shape
    blank = np.zeros((1, *shape), np.float32 if run.form.kind == "feature vectors" else np.uint8)
    judge(run.embed_inputs(blank), ("",), run.model, k=k, level=0.9, abstain_error=0.1)
    if writable:
        gallery.recalibrated(run.model)


def parse(argv: list[str]) -> list[str]:
    """Defines the flags and parses them."""
    flags.DEFINE_string("run", None, "A run's workdir, or its model folder wherever it lies.")
    flags.DEFINE_integer("port", 8017, "Of 127.0.0.1; 0: any that is free.", 0, 65535)
    flags.DEFINE_bool("writable", False, "The page can correct labels, and add to the gallery.")
    flags.DEFINE_integer("k", None, "Neighbours that vote; the run's own K_p by default.")
    flags.DEFINE_float("level", 0.9, "Of each class such a share has its class in the set.")
    flags.DEFINE_float("abstain_error", 0.1, "Wanted share of wrong answers among those given.")
    return parse_flags(argv)


def cli() -> None:
    """Entry point."""
    run_command(main, parse, like="--port=8017")


if __name__ == "__main__":
    cli()
