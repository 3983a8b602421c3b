"""The command line: what is found, and that bad input ends in one line with nothing written."""

import errno
import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from absl import flags, logging
from PIL import Image
from support.runs import ROOT, file_config, start

from deepknn_jax import config as config_lib
from deepknn_jax import errors, main, shell
from deepknn_jax.engine import parallel
from deepknn_jax.errors import UserError
from deepknn_jax.logs import read_records
from deepknn_jax.trainer import lock, loop

pytestmark = [
    pytest.mark.usefixtures("compiled_once"),
    # ml_collections' way to load a config file.
    pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning"),
]
QUICK = (
    "--config=configs/breast_cancer.py", "--config.epochs=1", "--config.devices=1",
    "--config.evaluate.pictures=False", "--config.evaluate.references=()",
)  # fmt: skip


@pytest.fixture
def command(tmp_path, monkeypatch, capfd):
    """Runs the command in this process and a fresh folder: (exit status or message, stdout)."""
    verbosity = logging.get_verbosity()
    monkeypatch.chdir(tmp_path)

    def forget():
        sys.modules.pop("config_config", None)  # the config file
        flags.FLAGS.unparse_flags()
        for name in list(flags.FLAGS):
            if name in ("workdir", "mode", "distributed") or name.split(".")[0] == "config":
                delattr(flags.FLAGS, name)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["deepknn_jax", *map(str, args)])
        try:
            with pytest.raises(SystemExit) as stop:
                main.cli()
        finally:
            forget()
        out, err = capfd.readouterr()
        assert err == ""  # the interpreter prints the message of SystemExit
        return stop.value.code, out

    yield run
    logging.set_verbosity(verbosity)


def assert_one_line(message, *words):
    """That it is what a person should see, holding the words."""
    assert isinstance(message, str)
    assert message.startswith("error: ")
    assert "\n" not in message
    assert "Traceback" not in message
    for word in words:
        assert word in message


BAD = {
    "unknown key": (["--config.epohcs=3"], ["epohcs", "epochs"]),
    "unknown inner key": (["--config.loss.kk=3"], ["loss.kk", "loss.k"]),
    "unknown section": (["--config.lsos.margin=3"], ["lsos.margin", "loss.margin"]),
    "unknown flag": (["--wrokdir=x"], ["wrokdir", "workdir"]),
    "a word for a number": (["--config.epochs=abc"], ["config.epochs", "abc"]),
    "a fraction for a whole number": (["--config.epochs=1.5"], ["config.epochs", "1.5"]),
    "a number for a section": (["--config.loss=3"], ["config.loss"]),
    "below 0": (["--config.epochs=-1"], ["config.epochs", "at least 0"]),
    "a negative seed": (["--config.seed=-1"], ["config.seed", "at least 0"]),
    "not a number": (["--config.optimizer.learning_rate=nan"], ["learning_rate", "nan"]),
    "a share above 1": (["--config.data.test_share=2"], ["test_share", "2.0"]),
    "unknown loss": (["--config.loss.name=tripel"], ["loss.name", "tripel", "triplet"]),
    "unknown model": (
        ["--config=configs/digits.py", "--config.model.name=cnnn"], ["cnnn", "did you mean cnn"],
    ),
    "unknown source": (["--config.data.source=digit"], ["digit", "digits"]),
    "unknown split": (["--config.data.split=random"], ["data.split", "stratified"]),
    "K_p above the training set": (["--config.evaluate.k_p=(1,456)"], ["k_p", "456", "455"]),
    "K_p of words": (["--config.evaluate.k_p=('a',)"], ["k_p"]),
    "K_p of fractions": (["--config.evaluate.k_p=(1.5,)"], ["k_p", "1.5"]),
    "K_p in any order": (["--config.evaluate.k_p=(5,1)"], ["k_p", "ascending"]),
    "batch above the training set": (["--config.batch.size=460"], ["batch", "460", "456"]),
    "too many devices": (["--config.devices=77"], ["config.devices", "77"]),
    "features in a CNN": (["--config.model.name=cnn"], ["feature vectors", "=cnn", "mlp"]),
    "a crop of features": (["--config.augment.crop=7"], ["augment.crop"]),
    "stray argument": (["epochs=3"], ["epochs=3", "--config."]),
    "no config file": (["--config=nowhere.py"], ["nowhere.py", "configs/digits.py"]),
    "no data folder": (["--config=configs/skin7.py"], ["config.data.dir"]),
    "a missing data folder": (
        ["--config=configs/skin7.py", "--config.data.dir=nowhere"], ["nowhere: no such folder"],
    ),
    "a missing data file": (
        ["--config=configs/mnist.py", "--config.data.dir=no.npz"], ["no.npz: no such file"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line_and_writes_nothing(command, tmp_path, case):
    args, words = BAD[case]
    given = any(arg.startswith("--config=") for arg in args)
    code, _ = command(*([] if given else QUICK[:1]), *args, "--workdir=out")
    assert_one_line(code, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:", ["mine.py", "invalid syntax"]),
        ("x = 1", ["get_config"]),
        (
            "from ml_collections import ConfigDict\n"
            "def get_config():\n    return ConfigDict({'epochs': 3})",
            ["missing", "default()"],
        ),
        (
            "from deepknn_jax import config\n"
            "def get_config():\n    c = config.default()\n    c.epochs = 'many'\n    return c",
            ["mine.py", "epochs", "many"],
        ),
        (
            "from deepknn_jax import config\n"
            "def get_config():\n    c = config.default()\n    c.loss.marign = 2\n    return c",
            ["loss.marign", "loss.margin"],
        ),
    ],
)
def test_a_bad_config_file_ends_in_one_line(command, tmp_path, text, words):
    (tmp_path / "mine.py").write_text(text)
    code, _ = command("--config=mine.py", "--workdir=out")
    assert_one_line(code, *words)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def folders(tmp_path):
    """Class folders a and b of 6 images each."""
    for i in range(12):
        path = tmp_path / "set" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (9, 7, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "set"


FOLDERS = (
    "--config=configs/chest_xray.py", "--config.data.dir=set", "--config.data.split=stratified",
    "--config.data.group_pattern=", "--config.data.size=8", "--config.augment.crop=8",
    "--config.model.name=cnn", "--config.batch.size=4", "--config.evaluate.k_p=(1,)",
    "--config.data.cache_dir=cache", "--config.epochs=1", "--config.devices=1", "--workdir=out",
)  # fmt: skip


@pytest.mark.parametrize("whole", [60, 0])
def test_a_broken_image_is_named_or_skipped_and_counted(command, tmp_path, folders, whole):
    broken = folders / "a" / "04.png"
    broken.write_bytes(broken.read_bytes()[:whole])
    code, _ = command(*FOLDERS)
    assert_one_line(code, "04.png", "on_error=skip")
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_skipped_images_are_counted(command, folders):
    (folders / "a" / "04.png").write_text("no image")
    wrong = ("--config.augment.flip=True", "--config.augment.crop=0")
    code, out = command(*FOLDERS, "--config.data.on_error=skip", *wrong)
    assert_one_line(code, "augment.flip needs")  # there is no need to train
    assert "left out of the examples: 1, " in out
    assert "04.png first" in out


def test_a_class_of_one_image_is_named(command, tmp_path, folders):
    (folders / "c").mkdir()
    Image.new("RGB", (4, 4)).save(folders / "c" / "only.png")
    code, _ = command(*FOLDERS)
    assert_one_line(code, "c (1)", "2")
    assert not (tmp_path / "out").exists()


def test_a_workdir_that_is_a_file_or_below_one(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    for workdir in ("file", "file/below"):
        code, _ = command(*QUICK, f"--workdir={workdir}")
        assert_one_line(code, "file", "cannot be written to", "--workdir")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_workdir_without_permission(command, tmp_path, monkeypatch):
    monkeypatch.setattr(lock.os, "access", lambda path, mode: False)  # root may write anywhere
    code, _ = command(*QUICK, "--workdir=out")
    assert_one_line(code, str(tmp_path), "cannot be written to")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_config_without_a_checkpoint_is_named(command, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text('{"test": {"1')
    code, _ = command(QUICK[0], "--workdir=out")
    assert_one_line(code, "config.json", "damaged")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


def test_a_file_of_flags_may_name_a_config_of_the_package(command, tmp_path):
    (tmp_path / "flags").mkdir()
    (tmp_path / "flags" / "mine.txt").write_text(
        "--config=configs/breast_cancer.py\n--mode=inspect"
    )
    code, out = command("--flagfile=flags/mine.txt", "--config.epochs=3")
    assert code is None
    assert "training: 3 epochs" in out
    code, _ = command("--flagfile=flags/absent.txt")
    assert_one_line(code, "flags/absent.txt", "No such file")


def test_a_device_that_is_not_there_is_named_by_its_variable(command, tmp_path, monkeypatch):
    def absent():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr(parallel.jax, "devices", absent)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    code, _ = command(*QUICK, "--workdir=out")
    assert_one_line(code, "JAX_PLATFORMS=cuda", "no such device", "JAX_PLATFORMS=cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_before_the_training_ends_in_one_line(tmp_path):
    """While it imports, and, in this process, once it runs: Python's own would be a traceback."""
    process = start(["--config=configs/breast_cancer.py", "--workdir=out"], tmp_path)
    status = Path(f"/proc/{process.pid}/status")
    while True:  # the interpreter itself starts, and does not catch SIGTERM
        if not status.exists():
            time.sleep(0.7)
            break
        caught = int(re.search(r"^SigCgt:\s*(\w+)", status.read_text(), re.MULTILINE)[1], 16)
        if caught >> (signal.SIGTERM - 1) & 1 or process.poll() is not None:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err == "stopped by Ctrl-C; the same command goes on, or begins anew\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_releases_the_workdir(command, tmp_path, monkeypatch, capfd, number):
    def stop(*_):
        assert (tmp_path / "out" / "lock").exists()
        signal.raise_signal(number)

    monkeypatch.setattr(loop, "tell_and_load", stop)
    handlers = {each: signal.signal(each, errors._end) for each in errors.STOPS}
    try:
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        code, _ = command(*QUICK, "--workdir=out")
        assert sys.stderr.getvalue().startswith("stopped by ")
        assert sys.stderr.getvalue().count("\n") == 1
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert code == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_python_would_drop_comes_again():
    """Exceptions in __del__ and in JAX's function of the garbage collector are not raised."""

    class Collected:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, errors._raise)
    try:
        with pytest.raises(errors.StoppedError, match="Ctrl-C"):  # noqa: PT012
            Collected()  # and gone
            time.sleep(20)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "target", ["files.Path.write_text", "trainer.checkpoint.shutil.disk_usage"]
)
def test_a_full_disk_ends_in_one_line(command, tmp_path, monkeypatch, target):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    if target.startswith("trainer"):
        free = type("Usage", (), {"free": 2**20})
        monkeypatch.setattr(f"deepknn_jax.{target}", lambda path: free)
    else:
        monkeypatch.setattr(f"deepknn_jax.{target}", full)
    code, _ = command(*QUICK, "--workdir=out")
    assert_one_line(code, "out")
    assert "space" in code or "disk" in code
    left = [path.name for path in (tmp_path / "out").rglob("*") if "tmp" in path.name]
    assert left == []
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 4 MiB; mounting one needs rights."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)]
    mounted = not subprocess.run(mount, capture_output=True).returncode if which("mount") else False
    if not mounted:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize(
    ("left", "named"),
    [
        (0, "lock"),
        (4, "inputs.npz"),
        (8, "config.json"),
        (12, "trained_on.npz"),
        (20, "tensorboard"),
        (24, "metrics.jsonl"),
        (700, "disk"),
    ],
)
def test_a_disk_that_is_really_full_ends_in_one_line(command, small_disk, left, named):
    """With so many KiB left."""
    (small_disk / "other").write_bytes(bytes((4096 - left) * 1024))
    code, _ = command(*QUICK, f"--workdir={small_disk}/out")
    assert_one_line(code, named)
    assert not [path for path in small_disk.rglob("*") if "tmp" in path.name]


def test_a_loss_that_is_not_finite_ends_in_one_line(command, tmp_path):
    code, _ = command(*QUICK, "--config.optimizer.learning_rate=1e30", "--workdir=out")
    assert_one_line(code, "step 2", "not finite", "learning_rate")
    assert read_records(tmp_path / "out" / "metrics.jsonl") == []


def test_the_default_workdir_and_a_config_from_the_package(command, tmp_path):
    code, out = command(*QUICK)
    assert code is None
    assert "written to runs/breast_cancer" in out
    assert (tmp_path / "runs" / "breast_cancer" / "results.json").exists()
    code, out = command(*QUICK)
    assert code is None
    assert "finished before" in out


def test_a_config_beside_comes_before_the_package_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shell.find_config("configs/digits.py") == str(ROOT / "configs" / "digits.py")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.py").write_text("")
    assert shell.find_config("configs/digits.py") == "configs/digits.py"
    absolute = str(tmp_path / "configs" / "digits.py")
    assert shell.find_config(absolute) == absolute
    with pytest.raises(UserError, match=r"configs/skin7\.py"):
        shell.find_config("configs/skin.py")


def test_inspect_tells_what_the_data_are_and_writes_nothing(command, tmp_path, folders):
    (folders / "a" / "x.txt").write_text("")
    size = ("--config.batch.size=8", "--config.batch.per_class=4")
    inspect = ("--mode=inspect", "--config=configs/class_folders.py", "--config.data.dir=set")
    code, out = command(*inspect, *size, "--config.data.ignore=00*")
    assert code is None
    assert out.startswith("source: class_folders set\nclasses: 2: a 5, b 6\nfiles: .png 11; ")
    assert "left out: 1 file (.txt 1)" in out
    assert "ignored: 1 files by 00* (config.data.ignore)" in out
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_deterministic_reaches_the_backend(command, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_some=1")
    command(*QUICK, "--config.deterministic=True", "--config.devices=77")
    assert main.os.environ["XLA_FLAGS"] == "--xla_gpu_some=1 --xla_gpu_deterministic_ops=true"


def test_a_real_process_ends_in_one_line(tmp_path):
    process = start(["--config.loss.kk=3"], tmp_path)
    out, err = process.communicate()
    assert process.returncode == 1
    assert out == ""
    assert err.startswith("error: config key loss.kk does not exist; did you mean loss.k ")
    assert err.count("\n") == 1


def test_the_readmes_first_command_reaches_its_figure(tmp_path, monkeypatch):
    """From another folder: finds configs/digits.py, uses runs/; 99.4 % at K_p = 5.

    The config is as shipped but for pictures and references.
    """
    monkeypatch.delenv("XLA_FLAGS")  # the tests' own
    only = ["--config.evaluate.pictures=False", "--config.evaluate.references=()"]
    process = start(only, tmp_path)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "deep kNN" in out
    results = json.loads((tmp_path / "runs/digits/results.json").read_text())
    assert results["test"]["5"]["n"] == 359
    assert results["test"]["5"]["acc"] >= 0.985


def test_a_run_s_config_json_is_taken_as_a_config(command, tmp_path):
    config = file_config("breast_cancer")
    config.batch.size = 80
    (tmp_path / "config.json").write_text(config_lib.to_json(config))
    code, out = command("--config=config.json", "--config.epochs=3", "--mode=inspect")
    assert code is None
    assert "source: breast_cancer" in out
    assert "training: 3 epochs" in out
    assert "of 80;" in out
    (tmp_path / "config.json").write_text('{"x": 1}')
    code, _ = command("--config=config.json", "--mode=inspect")
    assert_one_line(code, "config.json: is no config.json of a run", "x")
