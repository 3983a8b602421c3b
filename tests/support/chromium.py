"""A headless Chromium, driven by its DevTools protocol through a pipe: no port, no package."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time

import pytest
from support.optional import STRICT, absent

PROGRAM = "chromium"
_SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-proxy-server", "--remote-debugging-pipe", "--window-size=1280,1100",
)  # fmt: skip
_SECONDS = 60  # that an answer of it may take


class _RefusedError(AssertionError):
    """A command that the browser answers with an error."""


class Chromium:
    """One tab. `requests`: the addresses of all that its pages asked for."""

    def __init__(self, reads, writes):
        self.reads, self.writes, self.rest, self.number = reads, writes, b"", 0
        self.session, self.requests, self.loaded = None, [], 0

    def call(self, method, **parameters):
        """The result of a command of the protocol."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self.number:
                if "error" in found:
                    raise _RefusedError(found)
                return found["result"]

    def _next(self):
        """The next message, noted if it is an event."""
        until = time.monotonic() + _SECONDS
        while b"\0" not in self.rest:
            there, _, _ = select.select([self.reads], [], [], max(0, until - time.monotonic()))
            part = os.read(self.reads, 1 << 16) if there else b""
            assert part, "Chromium says nothing"
            self.rest += part
        data, self.rest = self.rest.split(b"\0", 1)
        found = json.loads(data)
        if found.get("method") == "Network.requestWillBeSent":
            self.requests.append(found["params"]["request"]["url"])
        self.loaded += found.get("method") == "Page.loadEventFired"
        return found

    def loads(self, method, **parameters):
        """Does something by which another page comes, and waits for that."""
        before = self.loaded
        result = self.call(method, **parameters)
        while self.loaded == before:
            self._next()
        return result

    def value(self, script):
        """What a line of JavaScript gives; it is the test's, the page has none."""
        found = self.call("Runtime.evaluate", expression=script, userGesture=True)
        return found["result"].get("value")

    @contextlib.contextmanager
    def opened(self, ending):
        """Gives what reads the text of the tab that the block opens at an address so ending."""
        own = self.session

        def text():
            until = time.monotonic() + _SECONDS
            while time.monotonic() < until:
                self.session = None
                for each in self.call("Target.getTargets")["targetInfos"]:
                    if each["type"] == "page" and each["url"].endswith(ending):
                        target = each["targetId"]
                        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
                        self.session = found["sessionId"]
                        with contextlib.suppress(_RefusedError):  # it is just being opened
                            if shown := self.value("document.body && document.body.innerText"):
                                self.session = own
                                return shown
                time.sleep(0.1)
            raise AssertionError(f"no tab at {ending}")

        try:
            yield text
        finally:
            self.session = own

    def drop(self, selector, files):
        """Files are dropped from outside onto the middle of an element."""
        place = f"document.querySelector({selector!r}).getBoundingClientRect()"
        x, y = (self.value(f"({place}).{a} + ({place}).{b} / 2") for a, b in
                (("x", "width"), ("y", "height")))  # fmt: skip
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)


@contextlib.contextmanager
def running_chromium(folder):
    """A Chromium with a new profile in `folder`; skips where there is none.

    The test has the marker `chromium`.
    """
    if shutil.which(PROGRAM) is None:
        assert not STRICT, "no chromium"
        pytest.skip(absent("chromium", f"no {PROGRAM}"))
    ours, theirs = _pipe(), _pipe()  # to it, from it
    # Bash brings them to 3 and 4, where Chromium looks for them.
    place = 'r=$1 w=$2; shift 2; exec "$@" 3<&"$r" 4>&"$w"'
    process = subprocess.Popen(
        ["bash", "-c", place, "bash", str(ours[0]), str(theirs[1]), PROGRAM, *_SWITCHES,
         f"--user-data-dir={folder}", "about:blank"],
        pass_fds=(ours[0], theirs[1]), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        os.close(ours[0])
        os.close(theirs[1])
        chromium = Chromium(theirs[0], ours[1])
        target = chromium.call("Target.createTarget", url="about:blank")["targetId"]
        attached = chromium.call("Target.attachToTarget", targetId=target, flatten=True)
        chromium.session = attached["sessionId"]
        for room in ("Page", "Network", "Runtime"):
            chromium.call(f"{room}.enable")
        yield chromium
    finally:
        with contextlib.suppress(OSError):
            os.close(ours[1])  # which ends it
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(theirs[0])


def _pipe():
    """(read, write), above the numbers that Chromium wants."""
    found = []
    for fd in os.pipe():
        found.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20))
        os.close(fd)
    return tuple(found)
