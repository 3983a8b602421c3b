"""One run at a time in a workdir: who holds it, and when a lock is another one's no more."""

import json
import os
import subprocess
import sys
import threading

import pytest

from deepknn_jax.errors import UserError
from deepknn_jax.trainer import lock
from deepknn_jax.trainer.lock import check_held, held, holding


def test_a_workdir_is_held_and_given_back(tmp_path):
    workdir = tmp_path / "deep" / "run"
    with held(workdir):
        assert json.loads((workdir / "lock").read_text())["pid"] == os.getpid()
        check_held(workdir)
        assert [path.name for path in workdir.iterdir()] == ["lock"]
    assert list(tmp_path.iterdir()) == []  # nothing was written


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_it_is_given_back_whatever_happens_and_what_was_written_stays(tmp_path, error):
    with pytest.raises(error), held(tmp_path / "run"):  # noqa: PT012
        (tmp_path / "run" / "file").write_text("mine")
        raise error
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["file"]


def test_a_second_run_is_told_who_holds_it(tmp_path):
    with held(tmp_path):
        content = (tmp_path / "lock").read_text()
        with pytest.raises(UserError) as error, held(tmp_path):
            pytest.fail("both hold it")
        assert (tmp_path / "lock").read_text() == content
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    owner = json.loads(content)
    for words in (f"process {os.getpid()} of {owner['host']}", owner["since"], "--workdir"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


def write_lock(folder, **changes):
    owner = {key: changes.get(key, value) for key, value in lock._this_process().items()}
    (folder / "lock").write_text(json.dumps(owner))


@pytest.fixture(scope="module")
def dead():
    """The number of a process that is over, and that of one that nobody has asked after yet."""
    over = subprocess.Popen([sys.executable, "-c", ""])
    over.wait()
    unreaped = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    unreaped.stdout.read()  # its end
    while lock._started(unreaped.pid):
        pass
    yield over.pid, unreaped.pid
    unreaped.wait()
    unreaped.stdout.close()


@pytest.mark.parametrize("which", [0, 1])
def test_a_dead_process_s_lock_is_taken_over_at_once(tmp_path, dead, capsys, which):
    write_lock(tmp_path, pid=dead[which], token="other")
    with held(tmp_path):
        check_held(tmp_path)
    assert f"taken over from a run (process {dead[which]} of" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_another_process_has_by_now_is_a_dead_one_s(tmp_path):
    write_lock(tmp_path, pid=os.getppid(), token="other", started="another boot 1")
    with held(tmp_path):
        pass
    write_lock(tmp_path, pid=os.getppid(), token="other", started=lock._started(os.getppid()))
    with pytest.raises(UserError, match="writes to it"), held(tmp_path):
        pytest.fail("both hold it")


@pytest.mark.parametrize("content", [None, "", "{", "[]"])
def test_on_another_machine_signs_of_life_count(tmp_path, content):
    write_lock(tmp_path, host="node7", place="node7 space", token="other")
    if content is not None:  # a lock that is just being written, or of another program
        (tmp_path / "lock").write_text(content)
    with (
        pytest.raises(UserError, match=r"last sign of life is 0:0\d old.*remove .*/lock if"),
        held(tmp_path),
    ):
        pytest.fail("both hold it")
    long_ago = (tmp_path / "lock").stat().st_mtime - lock.SILENT_S - 60
    os.utime(tmp_path / "lock", (long_ago, long_ago))
    with held(tmp_path):
        check_held(tmp_path)


def test_a_scheduler_s_job_takes_over_from_its_earlier_start_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPKNN_JOB", "SLURM 7")
    write_lock(tmp_path, host="node7", place="node7 space", token="other")
    for job in ("SLURM 8", ""):
        monkeypatch.setenv("DEEPKNN_JOB", job)
        with pytest.raises(UserError, match="writes to it"), held(tmp_path):
            pytest.fail("both hold it")
    monkeypatch.setenv("DEEPKNN_JOB", "SLURM 7")
    with held(tmp_path):
        check_held(tmp_path)
    monkeypatch.delenv("DEEPKNN_JOB")
    write_lock(tmp_path, host="node7", place="node7 space", token="other")
    with pytest.raises(UserError, match="writes to it"), held(tmp_path):
        pytest.fail("both hold it")


def test_its_holder_gives_signs_of_life(tmp_path, monkeypatch):
    renewed = threading.Event()
    monkeypatch.setattr(lock, "BEAT_S", 0.01)
    monkeypatch.setattr(lock.os, "utime", lambda path: renewed.set())
    with held(tmp_path):
        assert renewed.wait(20)


def test_one_that_was_taken_over_notices_and_leaves_the_other_s_lock(tmp_path):
    with held(tmp_path):
        write_lock(tmp_path, host="node7", token="other")
        with pytest.raises(UserError, match=r"taken over by .* of node7"):
            check_held(tmp_path)
    assert json.loads((tmp_path / "lock").read_text())["host"] == "node7"


def test_without_links_it_is_made_as_well(tmp_path, monkeypatch):
    def unable(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr(lock.os, "link", unable)
    with held(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        with pytest.raises(UserError, match="writes to it"), held(tmp_path):
            pytest.fail("both hold it")
    assert list(tmp_path.iterdir()) == []


def test_a_decorated_function_takes_a_path_as_text(tmp_path):
    @holding
    def run(config, workdir, more=0):
        check_held(workdir)
        assert (workdir / "lock").exists()
        return config, workdir, more

    assert run("c", str(tmp_path / "run"), more=3) == ("c", tmp_path / "run", 3)
