"""The routes, as an ASGI application: what each takes and gives, and who may ask."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deepknn_jax.errors import UserError
from deepknn_jax.serve.desk import Answers, Desk
from deepknn_jax.serve.uploads import MOST_BYTES, Sent, plain_name, read_form

_T = TypeVar("_T")
HOSTS = ("127.0.0.1", "localhost")
_AT_ONCE = 4  # requests that are read, and so in memory; all others wait, unread
_BASE_64 = 3 * MOST_BYTES // 2  # a file as it comes back with its correction
# A policy of no referrer would make the browser's own Origin "null" in a form.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class _Guard:
    """Adds the headers to every response, and refuses what a page from elsewhere sends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        app = self.app
        if scope["method"] not in ("GET", "HEAD") and is_foreign(Headers(scope=scope)):
            app = PlainTextResponse("this comes from another page: refused", 403)
        await app(scope, receive, guarded)


def is_foreign(headers: Headers) -> bool:
    """Whether a request comes from a page of another origin. Programs, not browsers, name none."""
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    if site not in ("same-origin", "none"):
        return True
    if origin is None:
        return False
    parts = urlsplit(origin)
    return (parts.scheme, parts.netloc) != ("http", headers.get("host"))


def make_app(desk: Desk) -> Starlette:
    """The application; all work on images is done by one thread, the loop stays free."""
    worker, reading = ThreadPoolExecutor(1, "answers"), asyncio.Semaphore(_AT_ONCE)
    title = f"Ask {desk.run.model.about['source']}, {desk.run.model.about['backbone']}"

    async def worked(work: Callable[[], _T]) -> _T:
        return await _by(worker, work)

    async def told(message: str, status: int = 200) -> Response:
        none = Answers([], {}, {})
        html = await worked(lambda: desk.html(none, title=title, message=message))
        return HTMLResponse(html, status)

    async def home(request: Request) -> Response:
        return await told("")

    async def ask(request: Request) -> Response:
        async with reading:
            try:
                sent = await _files(request)
                html = await worked(lambda: _page(desk, sent))
            except HTTPException as error:
                return await told(error.detail, error.status_code)
            return HTMLResponse(html)

    async def api(request: Request) -> Response:
        async with reading:
            try:
                sent = await _files(request)
                found = await worked(lambda: desk.plain(desk.answer(sent.uploads)))
            except HTTPException as error:
                return JSONResponse({"error": error.detail}, error.status_code)
            return JSONResponse(found)

    async def correct(request: Request) -> Response:
        if not desk.options.writable:
            return await told(
                "this page does not change the gallery: start it with --writable", 403
            )
        async with reading:
            try:
                sent = await read_form(request, _BASE_64)
                return await told(await worked(lambda: _corrected(desk, sent)))
            except HTTPException as error:
                return await told(error.detail, error.status_code)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        worker.shutdown(cancel_futures=True)

    routes = [
        Route("/", home),
        Route("/", ask, methods=["POST"]),
        Route("/correct", correct, methods=["POST"]),
        Route("/api/predict", api, methods=["POST"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS), www_redirect=False)
    return Starlette(routes=routes, middleware=[Middleware(_Guard), hosts], lifespan=lifespan)


async def _by(worker: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
    """What `work` returns, done by the worker; its errors as responses of one line."""
    try:
        return await asyncio.get_running_loop().run_in_executor(worker, work)
    except UserError as error:
        raise HTTPException(400, str(error)) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise HTTPException(500, f"{error.filename or 'a file'}: {reason}") from error


async def _files(request: Request) -> Sent:
    sent = await read_form(request, MOST_BYTES)
    if not sent.uploads:
        raise HTTPException(400, "no file was chosen")
    return sent


def _page(desk: Desk, sent: Sent) -> str:
    n = len(sent.uploads)
    title = f"Answer for {sent.uploads[0].name}" if n == 1 else f"Answers for {n} files"
    return desk.html(desk.answer(sent.uploads), title=title)


def _corrected(desk: Desk, sent: Sent) -> str:
    fields = sent.fields
    if not fields.get("name") or not fields.get("label"):
        raise UserError("a correction has a name and a label")
    data = None
    if "file" in fields:
        try:
            data = base64.b64decode(fields["file"], validate=True)
        except binascii.Error as error:
            raise UserError("its file is not in base 64") from error
    name = fields["name"] if data is None else plain_name(fields["name"])
    return desk.correct(name, fields["label"], fields.get("note", ""), data)
