"""The page of `serve` on a free port, and requests to it by the standard library."""

import contextlib
import http.client
import json
import threading
import uuid

from support.optional import require


@contextlib.contextmanager
def serving(folder, *, writable=False, level=0.9):
    """The port at which the run in `folder` is served, by the server that the command has.

    The test has the marker `serve`.
    """
    for name in ("python_multipart", "starlette", "uvicorn"):
        require(name)
    from deepknn_jax.answers.run import open_run
    from deepknn_jax.serve.__main__ import listening, server
    from deepknn_jax.serve.app import make_app
    from deepknn_jax.serve.desk import Desk, Options

    with listening(0) as listener:
        desk = Desk(open_run(folder), Options(3, level, 0.1, writable))
        served = server(make_app(desk))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            served.should_exit = True
            thread.join()


def multipart(files=(), fields=()):
    """(content type, body) of a form: files (name, bytes) under images, fields (key, text)."""
    mark = uuid.uuid4().hex
    parts = [(f'name="images"; filename="{name}"', data) for name, data in files]
    parts += [(f'name="{key}"', value.encode()) for key, value in fields]
    body = b"".join(
        f"--{mark}\r\nContent-Disposition: form-data; {what}\r\n\r\n".encode() + data + b"\r\n"
        for what, data in parts
    )
    return f"multipart/form-data; boundary={mark}", body + f"--{mark}--\r\n".encode()


def ask(port, path="/", files=None, fields=(), headers=(), **more):
    """(status, headers, text) of a request: a POST where there are files or fields, else a GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    try:
        if files is None and not fields and not more:
            connection.request("GET", path, headers=dict(headers))
        else:
            kind, body = multipart(files or (), fields)
            sent = {"Content-Type": kind, **dict(headers)}
            connection.request("POST", path, **({"body": body} | more), headers=sent)
        found = connection.getresponse()
        return found.status, found.headers, found.read().decode()
    finally:
        connection.close()


def predicted(port, files):
    """What the JSON route says of each file, by its name."""
    status, _, text = ask(port, "/api/predict", files)
    assert status == 200, text
    return {each["name"]: each for each in json.loads(text)["images"]}
