"""A small HTTP server: POST /predict takes an image, GET /status says how the service is.

Images go through the same queue as all others. It listens on this machine alone, and what it
reads is bounded, in bytes, in time and in clients at once: it is for trying a service, not for the
open network. Whatever a client does, nothing is said on the server's terminal.
"""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from jaxtyping import UInt8

from afpjax.deploy.service.requests import ImageRequest, RequestState
from afpjax.inputs.errors import InputError

HOST = "127.0.0.1"
_HEADER_BYTES = 4096  # what an .npy file may have beside its pixels
_PATIENCE_S = 10.0  # for a client to have sent all of its request
_AT_ONCE = 64  # clients, and so threads
_FAIR_S = 1.0  # where all are taken, who has been sending for longer makes room
_LINGER_S = 0.2  # for what a refused client is still sending: it may read its answer only then
_LINGER_BYTES = 2**20
_MOST_WAITING = 1024  # images that may wait at once
_FIELD = re.compile(r"'(descr|fortran_order|shape)':\s*('[^']*'|True|False|\([\d,\s]*\))\s*,?\s*")
_FULL = b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_PATHS = "GET /status or POST /predict"

#: Puts an image in the queue.
Ask = Callable[[UInt8[np.ndarray, "H W C"]], ImageRequest]
#: What `GET /status` answers; `waiting` is the number of images that wait.
Status = Callable[[], Mapping[str, Any]]


class HttpServer(ThreadingHTTPServer):
    """Listens on a port at once, answers between `start` and the end of its `with` block.

    At most `_AT_ONCE` clients, each with `_PATIENCE_S` to send its request and `patience_s` to wait
    for the answer. Raises `InputError` where the port cannot be had.
    """

    daemon_threads = True
    request_queue_size = 2 * _AT_ONCE

    def __init__(self, port: int, patience_s: float) -> None:
        self._shape, self._patience_s = tuple[int, ...](), patience_s
        self._clients: set[Any] = set()
        self._sending: dict[Any, float] = {}  # since when, the oldest first
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ask: Ask | None = None
        self.status: Status = dict
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(
                f"serve.port: cannot listen on port {port}: {error.strerror}; give another one"
            ) from error

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self.shutdown()
            self._thread.join()
        self.server_close()

    def start(self, shape: Sequence[int], ask: Ask, status: Status) -> None:
        """Answer from now on, in threads of its own; `shape` is an image's, [H, W, C]."""
        self._shape = tuple(shape)
        self._ask, self.status = ask, status
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def predict(self, body: bytes) -> tuple[HTTPStatus, Mapping[str, Any]]:
        """The answer to one image."""
        try:
            image = self._image(body)
        except ValueError as error:
            return HTTPStatus.BAD_REQUEST, {"error": str(error)}
        if self._ask is None or self.status().get("waiting", 0) >= _MOST_WAITING:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "too many images wait; try later"}
        request = self._ask(image)
        request.done.wait(self._patience_s)
        if request.state is not RequestState.ANSWERED or request.logits is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": request.reason or "deadline"}
        return HTTPStatus.OK, {
            "request": request.number,
            "class": int(np.argmax(request.logits)),
            "logits": [float(logit) for logit in request.logits],
            "lost": list(request.lost),
        }

    @property
    def most_bytes(self) -> int:
        """The largest body that is read."""
        return int(np.prod(self._shape)) + _HEADER_BYTES

    def _image(self, body: bytes) -> UInt8[np.ndarray, "H W C"]:
        dtype, by_columns, shape, pixels = _npy(body)
        if dtype.lstrip("|<>=") != "u1":
            raise ValueError("send an .npy file of uint8")
        if shape != self._shape:
            raise ValueError(f"send an image of {self._shape} values, not {shape}")
        if len(pixels) != np.prod(shape):
            raise ValueError(f"send an .npy file of {np.prod(shape)} values, not {len(pixels)}")
        return np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if by_columns else "C")

    def has_sent(self, client: Any) -> bool:
        """The request is read, or given up; whether it was in time."""
        with self._lock:
            return self._sending.pop(client, None) is not None

    def process_request(self, request: Any, client_address: Any) -> None:
        now = time.monotonic()
        with self._lock:
            full = len(self._clients) >= _AT_ONCE
        if full and not self._hurry(now - _FAIR_S, 1):
            with suppress(OSError):
                request.setblocking(False)
                request.send(_FULL)
            self.shutdown_request(request)
            return
        with self._lock:
            self._clients.add(request)
            self._sending[request] = now
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Between clients, and every 0.1 s."""
        self._hurry(time.monotonic() - _PATIENCE_S, _AT_ONCE)

    def _hurry(self, before: float, most: int) -> int:
        """Read no more of those that began to send before a time; how many there were."""
        with self._lock:
            late = [client for client, since in self._sending.items() if since < before][:most]
            for client in late:
                del self._sending[client]
                self._clients.discard(client)
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RD)  # its thread finds an end, and answers
        return len(late)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.discard(request)
            self._sending.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone, most often; that is its own affair."""


class _Refused(Exception):
    """A request that gets `status` and no more."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(why)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    """One request of one client."""

    server: HttpServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = 2 * _PATIENCE_S  # the server itself is stricter

    def do_GET(self) -> None:
        if self.path == "/status":
            self._say(HTTPStatus.OK, self.server.status())
        else:
            self._say(HTTPStatus.NOT_FOUND, {"error": _PATHS})

    def do_POST(self) -> None:
        try:
            body = self._body()
        except _Refused as refused:
            self._refuse(refused.status, str(refused))
        else:
            self._say(*self.server.predict(body))

    def _body(self) -> bytes:
        if self.path != "/predict":
            raise _Refused(HTTPStatus.NOT_FOUND, _PATHS)
        length = self._length()
        body = self.rfile.read(length)
        in_time = self.server.has_sent(self.connection)
        if len(body) == length:
            return body
        if in_time:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"{len(body)} of {length} bytes came")
        raise _Refused(HTTPStatus.REQUEST_TIMEOUT, "send all of it sooner")

    def _length(self) -> int:
        """Bytes of the body, no more than an image may have."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers or not lengths:
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "say Content-Length")
        text = lengths[0].strip()
        if len(lengths) > 1 or not (text.isascii() and text.isdecimal()):
            raise _Refused(HTTPStatus.BAD_REQUEST, "Content-Length is no number of bytes")
        digits = text.lstrip("0") or "0"
        if len(digits) > 18 or int(digits) > self.server.most_bytes:
            largest = f"the largest image has {self.server.most_bytes} bytes"
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, largest)
        return int(digits)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class has against a request, in our words."""
        self.request_version = "HTTP/1.0"  # also where none could be read
        self._refuse(HTTPStatus(code), HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Closing on what is still under way would take the answer back."""
        self._say(status, {"error": why})
        self.wfile.flush()
        self.server.has_sent(self.connection)
        until, left = time.monotonic() + 5 * _LINGER_S, _LINGER_BYTES
        self.connection.settimeout(_LINGER_S)
        with suppress(OSError):
            while left > 0 and time.monotonic() < until and (some := self.connection.recv(left)):
                left -= len(some)

    def _say(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


def _npy(body: bytes) -> tuple[str, bool, tuple[int, ...], bytes]:
    """Type, whether columns come first, shape and pixels of an .npy file, by its header's letter.

    NumPy's own reader evaluates the header, and makes room for whatever shape it says.
    """
    wide = 4 if body[6:7] > b"\1" else 2
    start = 8 + wide
    end = start + int.from_bytes(body[8:start], "little")
    if body[:6] != b"\x93NUMPY" or not start < end <= min(len(body), _HEADER_BYTES):
        raise ValueError("send an .npy file")
    text = body[start:end].decode("latin-1").strip()
    fields = dict(_FIELD.findall(text[1:-1]))
    rest = _FIELD.sub("", text[1:-1])
    lengths = re.findall(r"\d+", fields.get("shape", ""))
    known = len(fields) == 3 and not rest.strip() and text[:1] + text[-1:] == "{}"
    if not known or len(lengths) > 8 or any(len(length) > 18 for length in lengths):
        raise ValueError("send an .npy file")
    shape = tuple(map(int, lengths))
    return fields["descr"].strip("'"), fields["fortran_order"] == "True", shape, body[end:]
