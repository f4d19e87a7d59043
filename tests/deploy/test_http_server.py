"""The HTTP server: answers, refusals with a name, and what is not an image."""

import contextlib
import http.client
import io
import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from afpjax.deploy.service import http_server as module
from afpjax.deploy.service.http_server import HOST, HttpServer
from afpjax.deploy.service.requests import ALL_DEAD, RequestQueue
from afpjax.inputs.errors import InputError

SHAPE = (4, 5, 3)


@pytest.fixture
def queue():
    return RequestQueue()


@pytest.fixture
def port(queue):
    """A server whose requests one thread answers: class = the image's first pixel."""
    stop = threading.Event()

    def serve():
        while not stop.wait(0.005):
            for request in queue.take(8):
                first = int(request.image[0, 0, 0])
                if first > 9:
                    queue.refuse([request], ALL_DEAD, 1.0)
                else:
                    queue.answer(request, np.eye(10, dtype=np.float32)[first], (2,), 1.0)

    thread = threading.Thread(target=serve)
    thread.start()
    with HttpServer(0, 5.0) as server:
        server.start(SHAPE, lambda image: queue.ask(image, 0.0), lambda: {"waiting": queue.waiting})
        yield server.server_port
    stop.set()
    thread.join()


def call(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def image(first):
    array = np.zeros(SHAPE, np.uint8)
    array[0, 0, 0] = first
    return array


def test_an_image_gets_its_class_and_logits_or_the_reason_why_not(port):
    status, answer = call(port, "POST", "/predict", npy(image(7)))
    assert status == 200
    assert answer["class"] == 7 and answer["logits"] == [float(n == 7) for n in range(10)]
    assert answer["lost"] == [2]
    assert call(port, "POST", "/predict", npy(image(200))) == (503, {"error": ALL_DEAD})


def test_clients_at_once_get_their_own_answers(port):
    with ThreadPoolExecutor(10) as pool:
        answers = pool.map(lambda n: call(port, "POST", "/predict", npy(image(n)))[1], range(10))
    assert [answer["class"] for answer in answers] == list(range(10))


def test_status_and_unknown_paths(port):
    assert call(port, "GET", "/status") == (200, {"waiting": 0})
    assert call(port, "GET", "/")[0] == 404
    assert call(port, "POST", "/other", b"1")[0] == 404


def test_a_port_in_use_is_one_line_before_anything_starts():
    with HttpServer(0, 1.0) as server:
        said = rf"serve\.port: cannot listen on port {server.server_port}: "
        with pytest.raises(InputError, match=said) as error:
            HttpServer(server.server_port, 1.0)
    assert "\n" not in str(error.value)
    HttpServer(server.server_port, 1.0).__exit__(None, None, None)  # it is free again


def raw(port, text):
    """The first line that comes back for bytes as they are."""
    with socket.create_connection((HOST, port), timeout=10) as client:
        client.sendall(text)
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    return answer.split(b"\r\n", 1)[0].decode()


def post(*headers, body=b""):
    lines = ["POST /predict HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


@pytest.fixture
def quiet(capfd):
    yield
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (post("Content-Length: " + "9" * 5000), 413),
        (post("Content-Length: " + "0" * 5000), 400),
        (post("Content-Length: 4157", body=bytes(4157)), 413),
        (post("Content-Length: -1"), 400),
        (post("Content-Length: \xb2"), 400),
        (post("Content-Length: 1_0"), 400),
        (post("Content-Length: "), 400),
        (post("Content-Length: 3", "Content-Length: 4"), 400),
        (post("Content-Length: 200", body=b"abc"), 400),
        (post(), 411),
        (post("Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"), 411),
        (post("X: " + "y" * 70_000), 431),
        (post(*["X: y"] * 200), 431),
        (b"POST /predict HTTP/9." + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"BREW /predict HTTP/1.1\r\n\r\n", 501),
    ],
)
def test_requests_that_are_none_are_refused_quietly(port, queue, quiet, text, status):
    assert raw(port, text).split()[1] == str(status)
    assert not queue.all


def header(text, pixels=bytes(60), version=b"\1\0"):
    wide = 2 if version == b"\1\0" else 4
    data = text.encode("latin-1")
    return b"\x93NUMPY" + version + len(data).to_bytes(wide, "little") + data + pixels


FIELDS = "{{'descr': '|u1', 'fortran_order': False, 'shape': {}, }}"


NO_IMAGES = [
    *(b"", b"\x93NUMPY", b"PK\3\4" + bytes(40), b"\x80\4K\1."),
    *(b"\x93NUMPY\1\0\xff\xff", b"\x93NUMPY\3\0\xff\xff\xff\xff"),
    *(npy(np.zeros(SHAPE, np.float32)), npy(np.zeros((4, 5), np.uint8))),
    *(npy(np.array([{}], object)), npy(image(0))[:-1]),
    header(FIELDS.format("(1000000, 1000000)")),
    header(FIELDS.format(f"({'9' * 3000},)")),
    header(FIELDS.format("(" + "4, " * 1000 + ")")),
    header(FIELDS.format("(4, 5, 3)"), bytes(61)),
    header(FIELDS.format("(-4, -5, 3)")),
    header("(" * 4000),
    header("{'descr': [('a', 'u1')], 'fortran_order': False, 'shape': (4, 5, 3)}"),
    header("{'descr': '|O', 'fortran_order': False, 'shape': (4, 5, 3)}"),
    header("{'descr': '|u1', 'shape': (4, 5, 3)}"),
    header("__import__('os').getcwd()"),
    header(""),
]


def test_what_is_no_image_is_refused_quietly_and_never_asked_for(port, queue, quiet):
    for body in NO_IMAGES:
        status, answer = call(port, "POST", "/predict", body)
        assert status == 400 and "send an" in answer["error"], body[:80]
    assert not queue.all


def test_images_in_every_order_and_version_that_numpy_writes(port, queue):
    columns = np.asfortranarray(np.random.default_rng(0).integers(0, 9, SHAPE).astype(np.uint8))
    file = io.BytesIO()
    np.lib.format.write_array(file, columns, version=(2, 0))
    for body in (npy(columns), file.getvalue()):
        assert call(port, "POST", "/predict", body)[0] == 200
    for request in queue.all:
        np.testing.assert_array_equal(request.image, columns)


def test_clients_that_reset_leave_no_trace(port, quiet):
    for text in (b"", b"POST /predi", post("Content-Length: 100", body=b"abc")):
        for _ in range(5):
            with socket.create_connection((HOST, port)) as client:
                client.sendall(text)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert call(port, "GET", "/status")[0] == 200


def test_slow_clients_hold_few_threads_and_not_for_long(port, quiet, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 8)
    monkeypatch.setattr(module, "_FAIR_S", 0.3)
    before, most = threading.active_count(), 0
    slow = [socket.create_connection((HOST, port), timeout=10) for _ in range(60)]
    for client in slow:
        with contextlib.suppress(OSError):  # refused at once
            client.sendall(post("Content-Length: 100", body=b"a"))
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        most = max(most, threading.active_count() - before)
        time.sleep(0.01)
    assert 0 < most <= 8
    assert call(port, "POST", "/predict", npy(image(3)))[0] == 200
    for client in slow:
        client.close()


def test_a_request_that_is_never_whole_gets_408(port, quiet, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE_S", 0.3)
    with socket.create_connection((HOST, port), timeout=10) as client:
        client.sendall(post("Content-Length: 100", body=b"a"))
        for _ in range(8):
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                client.sendall(b"a")
        assert b" 408 " in client.recv(1000)
