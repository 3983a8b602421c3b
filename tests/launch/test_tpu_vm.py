"""launch/tpu_vm.sh against a stand-in of gcloud, which runs on this machine what hosts would."""

import os
import subprocess

import pytest
from support.runs import ROOT

# Each program that the script or a host calls and that is not to be called here.
STUBS = {
    "gcloud": """
echo "$*" | head -n 1 | cut -d " " -f 3-6 >>"$LOG"
case "$*" in
*describe*) head -n 1 "$STATES"; sed -i 1d "$STATES" ;;
*scp*) cp "$5" "$HOME/deepknn.tar.gz" ;;
*ssh*)
    command=${@: -1:1}
    exec bash -c "${command#--command=}" ;;
esac""",
    "git": """
echo of the checkout >README.md
tar -czf "${2#--output=}" README.md""",
    "mountpoint": "exit 1",
    "pkill": 'echo "pkill" >>"$LOG"; exit 1',
    "python3": ":",
    "sudo": 'echo "$*" >>"$LOG"',
    ".local/bin/uv": r"""
[ "$1" = venv ] || exit 0
mkdir -p "$4/bin"
cat >"$4/bin/python" <<'END'
#!/bin/bash
echo "$PWD $DEEPKNN_JOB $*" >>"$LOG"
status=$(head -n 1 "$STATUSES")
sed -i 1d "$STATUSES"
exit "$status"
END
chmod +x "$4/bin/python" """,
}


@pytest.fixture
def tpu_vm(tmp_path):
    """Runs the script; what the slice's states and the program's statuses are to be, in turn."""
    for name, text in STUBS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)

    def run(*arguments, states=(), statuses=(), **environment):
        (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
        (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
        (tmp_path / "log").write_text("")
        variables = {
            "HOME": str(tmp_path), "LOG": str(tmp_path / "log"), "POLL_SECONDS": "0",
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "STATES": str(tmp_path / "states"),
            "STATUSES": str(tmp_path / "statuses"), "ZONE": "z", "TYPE": "v6e-16",
            "VERSION": "v", "SHARED": "10.0.0.2:/share",
        }  # fmt: skip
        ran = subprocess.run(
            [ROOT / "launch" / "tpu_vm.sh", *arguments], cwd=tmp_path, text=True,
            env=os.environ | variables | environment, capture_output=True, timeout=60,
        )  # fmt: skip
        return ran, (tmp_path / "log").read_text().splitlines()

    return run


def programs(log):
    return [line for line in log if "deepknn_jax.main" in line]


def test_a_slice_is_asked_for_and_the_program_goes_on_while_it_says_so(tpu_vm, tmp_path):
    options = ["--config=configs/digits.py", "--workdir=/shared/a run"]
    ran, log = tpu_vm(*options, states=["", "WAITING_FOR_RESOURCES", "ACTIVE"], statuses=[85, 0])
    assert ran.returncode == 0, ran.stderr
    kinds = [" ".join(line.split()[:2]) for line in log]
    assert kinds[:5] == [
        "queued-resources describe", "queued-resources create", "queued-resources describe",
        "queued-resources describe", "tpu-vm scp",
    ]  # fmt: skip
    # Within it each option is one word, as on the command line.
    command = f"{tmp_path}/deepknn deepknn -m deepknn_jax.main {' '.join(options)}"
    assert programs(log) == [command, command]
    assert "mount 10.0.0.2:/share /shared" in log
    assert (tmp_path / "deepknn" / "README.md").read_text() == "of the checkout\n"


def test_where_the_slice_is_taken_away_another_one_follows(tpu_vm):
    ran, log = tpu_vm(
        states=["ACTIVE", "SUSPENDED", "SUSPENDED", "", "ACTIVE"], statuses=[1, 0], SPOT="1"
    )
    assert ran.returncode == 0, ran.stderr
    assert len(programs(log)) == 2
    asked = [line.split()[1] for line in log if line.startswith("queued-resources")]
    assert asked == ["describe"] * 3 + ["delete", "describe", "create", "describe"]


def test_a_failure_of_the_program_is_the_scripts(tpu_vm):
    ran, log = tpu_vm(states=["ACTIVE", "ACTIVE", "ACTIVE"], statuses=[7, 0])
    assert ran.returncode == 7
    assert len(programs(log)) == 1


def test_stop_ends_it_and_starts_none(tpu_vm, tmp_path):
    (tmp_path / "deepknn_goes_on").touch()
    ran, log = tpu_vm("stop")
    assert ran.returncode == 0, ran.stderr
    assert log == ["tpu-vm ssh deepknn --zone=z", "pkill"]
    assert not (tmp_path / "deepknn_goes_on").exists()


def test_what_is_not_said_is_named(tpu_vm):
    ran, log = tpu_vm(TYPE="")
    assert ran.returncode != 0
    assert "TYPE: names no type of slice" in ran.stderr
    assert log == []
