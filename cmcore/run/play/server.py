"""The desk behind HTTP: a page, and two questions in JSON. Only the page itself may ask them."""

from __future__ import annotations

import base64
import contextlib
import importlib
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cmcore.errors import Error, sentence
from cmcore.run.failures import out_of_memory, unexpected
from cmcore.run.page import FILES, PAGE
from cmcore.run.play.desk import Desk
from cmcore.run.play.request import read
from cmcore.run.report import say

MOST_BYTES = 24 * 2**20
"""The most bytes of a request: a photograph, or a picture and a mask in base64."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def application(desk: Desk, hosts: Collection[str] = ()) -> Any:
    """Return the ASGI application; ``hosts`` are the names, besides localhost and addresses in numbers, that it answers to.

    Whoever is asked by another name, or by another page, refuses: a page of elsewhere could otherwise have its visitor's browser
    use the models, by a name of its own that it lets point here.
    """
    starlette = _library("starlette")
    routing, responses = (importlib.import_module(f"{starlette.__name__}.{part}") for part in ("routing", "responses"))
    threads = importlib.import_module(f"{starlette.__name__}.concurrency").run_in_threadpool
    requests = importlib.import_module(f"{starlette.__name__}.requests")

    def file(path: Path, kind: str) -> Callable[[Any], Awaitable[Any]]:
        content = path.read_bytes()

        async def sent(request: Any) -> Any:
            return responses.Response(content, media_type=kind, headers=HEADERS)

        return sent

    def told(content: Any, status: int = 200) -> Any:
        return responses.Response(json.dumps(content), status, HEADERS, "application/json")

    def answering(work: Callable[[bytes, Any], Any], kind: str) -> Callable[[Any], Awaitable[Any]]:
        async def answer(request: Any) -> Any:
            if request.headers.get("content-type", "").partition(";")[0].strip() != kind:
                return told({"error": f"This takes {kind}."}, 415)
            body = bytearray()
            try:
                async for piece in request.stream():
                    body += piece
                    if len(body) > MOST_BYTES:
                        return told({"error": f"That is too large: at most {MOST_BYTES // 2**20} MB are taken."}, 413)
                return told(await threads(work, bytes(body), request))
            except requests.ClientDisconnect:
                return told({"error": "The browser has gone."}, 400)
            except (Error, ValueError, TypeError) as wrong:
                return told({"error": sentence(wrong)}, 400)
            except Exception as failure:
                short = "There is not enough memory for this; ask for fewer pictures."
                return told({"error": short if out_of_memory(failure) else unexpected(failure)}, 500)

        return answer

    def about(request: Any) -> Any:
        return told(desk.about())

    def run(body: bytes, _: Any) -> dict[str, Any]:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise Error("A request is JSON, and this is not.") from None
        made = desk.answer(read(content))
        return {
            "pictures": [_text(png) for png in made.pictures],
            "frames": [{"said": said, "pictures": [_text(png) for png in pngs]} for said, pngs in made.frames],
            "milliseconds": made.milliseconds,
            "notes": list(made.notes),
        }

    def picture(body: bytes, request: Any) -> dict[str, Any]:
        number = request.query_params.get("model", "0")
        png, note = desk.fitted(body, int(number) if number.isdecimal() else -1)
        return {"picture": _text(png), "note": note}

    paths = {"/" if name == "index.html" else f"/{name}": (PAGE / name, kind) for name, kind in FILES.items()}
    paths["/engine.js"] = (PAGE / "server" / "engine.js", "text/javascript")
    routes = [routing.Route(path, file(*what)) for path, what in paths.items()]
    routes.append(routing.Route("/about.json", about))
    routes.append(routing.Route("/run", answering(run, "application/json"), methods=["POST"]))
    routes.append(routing.Route("/picture", answering(picture, "application/octet-stream"), methods=["POST"]))
    inner = importlib.import_module(f"{starlette.__name__}.applications").Starlette(routes=routes)
    names = {"localhost", *(name.lower() for name in hosts)}

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (problem := refusal(dict(scope["headers"]), names)):
            await told({"error": problem}, 403)(scope, receive, send)
        else:
            await inner(scope, receive, send)

    return guarded


def refusal(headers: dict[bytes, bytes], names: Collection[str]) -> str | None:
    """Return why a request with these headers is not answered, or None: asked by a name of elsewhere, or by a page of elsewhere."""
    host = headers.get(b"host", b"").decode("latin-1")
    name = _host(f"//{host}")
    if name is None or not (name in names or _is_address(name)):
        return "This address is not called that; open the one that cmcore play printed."
    origin = headers.get(b"origin")
    if origin is not None and origin.decode("latin-1").lower() != f"http://{host}".lower():
        return "Only the page itself may ask this, not one of elsewhere."
    own = headers.get(b"sec-fetch-site", b"none") in (b"same-origin", b"none")
    # A link of elsewhere may open the page.
    if not own and headers.get(b"sec-fetch-mode") != b"navigate":
        return "Only the page itself may ask this, not one of elsewhere."
    return None


def serve(desk: Desk, host: str, port: int) -> None:
    """Serve until Ctrl-C; a port that is taken or a host that is not of this machine is an `Error`."""
    uvicorn = _library("uvicorn")
    app = application(desk, (host, socket.gethostname()))
    with contextlib.closing(_bound(host, port)) as bound:
        address, number = ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]), bound.getsockname()[1]
        # Every address of the machine is no address to open.
        shown = "127.0.0.1" if address.is_unspecified else f"[{address}]" if address.version == 6 else str(address)
        say(f"Open http://{shown}:{number}/ in a browser. Ctrl-C ends this.")
        if not address.is_loopback:
            say(
                f"--host {host} means that everyone who reaches port {number} of this machine can use the model and this machine's "
                "time: there is no password, and nothing is encrypted."
            )
        settings = {"log_config": None, "access_log": False, "lifespan": "off", "timeout_graceful_shutdown": 1}
        server = uvicorn.Server(uvicorn.Config(app, server_header=False, proxy_headers=False, **settings))
        # It raises the signal that ended it once more.
        server.run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise Error(f"A port is a number from 0, any that is free, to 65535; got {port}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as unknown:
        raise Error(f"--host {host} is no address of this machine.") from unknown
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except PermissionError as refused:
        bound.close()
        raise Error(f"Port {port} is not free for everyone; choose one above 1023 with --port.") from refused
    except OSError as taken:
        bound.close()
        raise Error(
            f"Port {port} of {host} cannot be had ({taken.strerror}): another program may have it. Choose another with --port, or any "
            "that is free with --port 0."
        ) from taken
    return bound


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        raise Error(f'cmcore play needs {name}: pip install "cmcore[play]".') from missing


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
