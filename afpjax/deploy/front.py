"""A small HTTP front: POST /predict takes an image, GET /status says how the service is.

Images go through the same queue as all others. It listens on this machine alone, and what it
reads is bounded: it is for trying a service, not for the open network.
"""

import io
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from afpjax.deploy.requests import Request, State
from afpjax.errors import InputError

HOST = "127.0.0.1"
_HEADER_BYTES = 4096  # what an .npy file may have beside its pixels
_PATIENCE_S = 10.0  # for a client that sends slowly
_MOST_WAITING = 1024  # images that may wait at once

#: Puts an image in the queue.
Ask = Callable[[UInt8[np.ndarray, "H W C"]], Request]
#: What `GET /status` answers; `waiting` is the number of images that wait.
Status = Callable[[], Mapping[str, Any]]


class Front:
    """Listens on a port from the start, answers between `begin` and the end of its `with` block.

    A client waits for `patience_s` at most. Raises `InputError` where the port cannot be had.
    """

    def __init__(self, port: int, patience_s: float) -> None:
        self._shape, self._patience_s = tuple[int, ...](), patience_s
        try:
            self._server = ThreadingHTTPServer((HOST, port), self._handler())
        except OSError as error:
            raise InputError(
                f"serve.port: cannot listen on port {port}: {error.strerror}; give another one"
            ) from error
        self._server.daemon_threads = True
        self._thread: threading.Thread | None = None
        self._ask: Ask | None = None
        self._status: Status = dict

    def __enter__(self) -> "Front":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def begin(self, shape: Sequence[int], ask: Ask, status: Status) -> None:
        """Answer from now on, in threads of its own; `shape` is an image's, [H, W, C]."""
        self._shape = tuple(shape)
        self._ask, self._status = ask, status
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def predict(self, body: bytes) -> tuple[HTTPStatus, Mapping[str, Any]]:
        """The answer to one image."""
        try:
            image = self._image(body)
        except ValueError as error:
            return HTTPStatus.BAD_REQUEST, {"error": str(error)}
        if self._ask is None or self._status().get("waiting", 0) >= _MOST_WAITING:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "too many images wait; try later"}
        request = self._ask(image)
        request.done.wait(self._patience_s)
        if request.state is not State.ANSWERED or request.logits is None:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": request.reason or "deadline"}
        logits = [float(each) for each in request.logits]
        return HTTPStatus.OK, {
            "request": request.number,
            "class": int(np.argmax(request.logits)),
            "logits": logits,
            "lost": list(request.lost),
        }

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def most_bytes(self) -> int:
        """The largest body that is read."""
        return int(np.prod(self._shape)) + _HEADER_BYTES

    def _image(self, body: bytes) -> UInt8[np.ndarray, "H W C"]:
        try:
            image = np.load(io.BytesIO(body), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError("send an .npy file") from error
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
            raise ValueError("send an .npy file of uint8")
        if image.shape != self._shape:
            raise ValueError(f"send an image of {self._shape} values, not {image.shape}")
        return image

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        front = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _PATIENCE_S

            def do_GET(self) -> None:
                if self.path == "/status":
                    self._say(HTTPStatus.OK, front._status())
                else:
                    self._say(HTTPStatus.NOT_FOUND, {"error": "GET /status or POST /predict"})

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if self.path != "/predict":
                    self._say(HTTPStatus.NOT_FOUND, {"error": "GET /status or POST /predict"})
                elif not length.isdecimal():
                    self._say(HTTPStatus.LENGTH_REQUIRED, {"error": "say Content-Length"})
                elif int(length) > front.most_bytes:
                    largest = f"the largest image has {front.most_bytes} bytes"
                    self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": largest})
                else:
                    self._say(*front.predict(self.rfile.read(int(length))))

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def _say(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body)
                self.close_connection = True

        return Handler
