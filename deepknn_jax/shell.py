"""What all commands share: flags parsed, config files found, and errors in one line."""

import atexit
import contextlib
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

from deepknn_jax import config as config_lib
from deepknn_jax.engine import allocation, compiled, hosts
from deepknn_jax.errors import StoppedError, UserError, raise_at_interrupt

flags.DEFINE_string(
    "compilation_cache",
    "",
    "Folder of compiled programs, which a second start takes; off: none. Default: "
    "$JAX_COMPILATION_CACHE_DIR, else deepknn_jax/compiled in the user's cache. docs/speed.md.",
)
DEFAULT_CONFIG = "configs/digits.py"
_PACKAGE = Path(__file__).resolve().parent
# Where configs/ is: in a checkout, and in an installed package.
_CONFIG_FOLDERS = (_PACKAGE.parent, _PACKAGE)


def find_config(path: str) -> str:
    """The config file at `path`, here or among those that come with the package.

    Raises:
        UserError: neither has it.
    """
    for folder in (Path(), *_CONFIG_FOLDERS):
        if (folder / path).is_file():
            return str(folder / path)
    shipped = next(
        (found for folder in _CONFIG_FOLDERS if (found := sorted(folder.glob("configs/[!_]*.py")))),
        [],
    )
    names = ", ".join(f"configs/{file.name}" for file in shipped)
    raise UserError(f"{path}: no such config file; with the package come {names}")


def without_config(argv: list[str]) -> tuple[str | None, list[str]]:
    """The first value of --config (`--config=FILE` or `--config FILE`), and all other arguments."""
    given, rest, arguments = [], [], iter(argv)
    for argument in arguments:
        if argument in ("--config", "-config"):
            given += [next(arguments, None)]
        elif argument.startswith(("--config=", "-config=")):
            given += [argument.split("=", 1)[1]]
        else:
            rest += [argument]
    return (given[0] if given else None), rest


def with_flagfiles(argv: list[str]) -> list[str]:
    """The arguments with those in the files that --flagfile names in its place."""
    try:
        return [*argv[:1], *flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False)]
    except flags.Error as error:
        raise UserError(" ".join(str(error).removeprefix("ERROR::").split())) from error


def parse_config_flags(argv: list[str]) -> list[str]:
    """Absl's parsing, with the config file found from any folder.

    Raises:
        UserError: no such config file, or a flag or key that is wrong.
    """
    given, rest = without_config(with_flagfiles(argv))
    found = find_config(given or DEFAULT_CONFIG)
    try:
        with _as_module(found) as module:
            return flags.FLAGS([rest[0], f"--config={module}", *rest[1:]])
    except (AttributeError, KeyError) as error:
        if "get_config" in str(error):
            raise UserError(f"{found}: is no config: it has no function get_config") from error
        raise UserError(_bad_key(rest, error)) from error
    except (SyntaxError, NameError, ImportError) as error:
        raise UserError(f"{found}: is no config that can be read: {error}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_last_line(error, found)) from error


@contextlib.contextmanager
def _as_module(found: str) -> Iterator[str]:
    """The config file itself, or for a run's config.json a module that gives what it holds."""
    if not found.endswith(".json"):
        yield found
        return
    path = Path(found).resolve()
    try:
        config_lib.of_json(path.read_text(encoding="utf-8"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{found}: is no config.json of a run ({error})") from error
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "config_of_a_run.py"
        module.write_text(
            "from pathlib import Path\n\nfrom deepknn_jax.config import of_json\n\n\n"
            f"def get_config():\n    return of_json(Path({str(path)!r}).read_text())\n",
            encoding="utf-8",
        )
        yield str(module)


def _last_line(error: Exception, found: str) -> str:
    """What the error says; of a traceback out of the config file `found`, the file and the end."""
    lines = str(error).strip().splitlines()
    return f"{found}: {lines[-1]}" if "Traceback" in str(error) else " ".join(lines)


def _bad_key(argv: list[str], error: Exception) -> str:
    known = config_lib.flatten(config_lib.default())
    for argument in argv:
        if argument.lstrip("-").startswith("config."):
            key = argument.lstrip("-").removeprefix("config.").split("=", 1)[0]
            if key not in known:
                return f"config key {key} does not exist{config_lib.near_keys(key)}"
    return " ".join(str(error).split())


def parse_flags(argv: list[str]) -> list[str]:
    """Absl's parsing for a command without a config file.

    Raises:
        UserError: its errors, in one line.
    """
    try:
        return list(flags.FLAGS(argv))
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from error


def make_missing_model(path: str) -> None:
    """Makes the model folder of the run at `path`, if it was finished without one.

    Raises:
        UserError: its checkpoints or data are not there any more.
    """
    from deepknn_jax.answers import model  # only now, as these bring JAX and orbax

    if model.lacks(path):
        from deepknn_jax.trainer import afterwards

        afterwards.make_model(path)


def run_command(
    command: Callable[[], None], parse: Callable[[list[str]], list[str]], like: str
) -> None:
    """Parses the flags and runs `command`; errors that the user can mend end in one line.

    `like` is an example of an option, shown where an argument is none. Exit status 1 for an error.
    """

    def checked(argv: list[str]) -> None:
        if len(argv) > 1:
            raise UserError(f"{argv[1]!r} is not understood: options look like {like}")
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # orbax tells every step of a save
        raise_at_interrupt()
        allocation.keep_freed()
        compiled.keep(flags.FLAGS.compilation_cache)
        command()

    atexit.register(gc.freeze)  # the interpreter's end need not look through it all: 0.3 s
    try:
        app.run(checked, flags_parser=parse)
    except UserError as error:
        hosts.fail(f"error: {error}")
    except StoppedError as stopped:
        hosts.stop(str(stopped), stopped.code)
    except BrokenPipeError:
        _unread()
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        hosts.fail(f"error: {error.filename or 'a file'}: {error.strerror}")


def _unread() -> NoReturn:
    """Ends a process whose output nobody reads any more, as behind `| head`, as a pipe's end does.

    Without a word; of several processes with one, as the others are to end.
    """
    if hosts.count() > 1:
        hosts.fail("error: nobody reads the output any more")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left of it goes there
    sys.exit(128 + signal.SIGPIPE)
