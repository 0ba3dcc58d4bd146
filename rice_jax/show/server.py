"""The page and its one question, for browsers of this machine alone."""

import errno
import json
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import waitress
from waitress import wasyncore
from werkzeug.exceptions import Forbidden, HTTPException, MethodNotAllowed, NotFound
from werkzeug.wrappers import Request, Response

from rice_jax.errors import UserError, reason
from rice_jax.report.html.rendering import document

HOST = "127.0.0.1"
MOST_BYTES = 32 << 20
"""Of an image that is sent; what it may have in pixels is `data.images.MAX_PIXELS`."""

_NAMES = ["127.0.0.1", "localhost"]
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Look = Callable[[bytes], dict[str, Any]]


def page(name: str, classes: Sequence[str]) -> str:
    """The page of a net called `name`, which asks for /see alone."""
    scripts = ["maps.js", "show.js"]
    return document(
        "show.html",
        f"{name}, live",
        scripts=scripts,
        name=name,
        classes=classes,
        most=MOST_BYTES,
    )


class Application:
    """/ is the page, /see tells of the image that is posted to it (WSGI, PEP 3333)."""

    def __init__(self, html: str, look: Look) -> None:
        self._html, self._look = html, look

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request; what is wrong with one is told as JSON."""
        request = Request(environ)
        request.trusted_hosts = _NAMES
        request.max_content_length = MOST_BYTES
        try:
            response = self._answered(request)
        except UserError as error:
            response = _json({"error": str(error)}, 400)
        except HTTPException as error:
            response = _json({"error": error.description}, error.code or 500)
        response.headers.extend(_HEADERS)
        return response(environ, start_response)

    def _answered(self, request: Request) -> Response:
        # Another site whose name was made to lead here asks with that name; a page of another
        # origin that posts is told by its origin. Neither is to see images of this machine.
        host = request.host  # SecurityError, 400, where it is none of `_NAMES`
        if request.headers.get("Origin", f"http://{host}") != f"http://{host}":
            raise Forbidden("the page of another origin may not ask")
        if request.path == "/":
            _require(request, "GET", "HEAD")
            return Response(self._html, mimetype="text/html")
        if request.path == "/see":
            _require(request, "POST")
            return _json(self._look(request.get_data(cache=False)))
        raise NotFound("there are / and /see")


def _require(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise MethodNotAllowed(methods, f"{request.path} is asked for by {methods[0]}")


def _json(content: dict[str, Any], status: int = 200) -> Response:
    text = json.dumps(content, allow_nan=False)
    return Response(text, status=status, mimetype="application/json")


def port_taken(port: int) -> socket.socket:
    """A socket at a port of 127.0.0.1, 0 for any that is free.

    Raises:
        UserError: the port is in use, or not to be had.
    """
    taken = socket.socket()
    try:
        if os.name == "posix":  # a port that was just given back; elsewhere it would share one
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((HOST, port))
        taken.listen()
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            other = port % 65535 + 1
            raise UserError(
                f"port {port} is in use: give another, as --port={other}, or --port=0 for any"
            ) from error
        raise UserError(f"port {port} cannot be had: {reason(error)}") from error
    return taken


class Server:
    """The application at a port of 127.0.0.1."""

    def __init__(self, application: Application, taken: socket.socket) -> None:
        self.address = f"http://{HOST}:{taken.getsockname()[1]}"
        self._sockets: dict[int, Any] = {}
        self._server = waitress.create_server(
            application,
            map=self._sockets,
            sockets=[taken],
            threads=4,
            ident=None,
            max_request_body_size=MOST_BYTES,
        )

    def run(self) -> None:
        """Answer until Ctrl-C or `stop`."""
        self._server.run()

    def stop(self) -> None:
        """End `run`, from another thread."""
        self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._sockets))
