"""The HTTP front: answers, refusals with a name, and what is not an image."""

import http.client
import io
import json
import threading

import numpy as np
import pytest

from afpjax.deploy.front import HOST, Front
from afpjax.deploy.requests import ALL_DEAD, Ledger
from afpjax.errors import InputError

SHAPE = (4, 5, 3)


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def port(ledger):
    """A front whose requests one thread answers: class = the image's first pixel."""
    stop = threading.Event()

    def serve():
        while not stop.wait(0.005):
            for request in ledger.take(8):
                first = int(request.image[0, 0, 0])
                if first > 9:
                    ledger.refuse([request], ALL_DEAD, 1.0)
                else:
                    ledger.answer(request, np.eye(10, dtype=np.float32)[first], (2,), 1.0)

    thread = threading.Thread(target=serve)
    thread.start()
    with Front(0, 5.0) as front:
        front.begin(
            SHAPE, lambda image: ledger.ask(image, 0.0), lambda: {"waiting": ledger.waiting}
        )
        yield front.port
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


def test_an_image_gets_its_class_and_logits(port):
    status, answer = call(port, "POST", "/predict", npy(image(7)))
    assert status == 200
    assert answer["class"] == 7 and answer["logits"] == [float(n == 7) for n in range(10)]
    assert answer["lost"] == [2]


def test_a_refused_image_gets_the_reason(port):
    assert call(port, "POST", "/predict", npy(image(200))) == (503, {"error": ALL_DEAD})


def test_clients_at_once_get_their_own_answers(port):
    found = {}

    def ask(number):
        found[number] = call(port, "POST", "/predict", npy(image(number)))[1]["class"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(10)}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "npy"),
        (b"\x89PNG nonsense", 400, "npy"),
        (npy(np.zeros(SHAPE, np.float32)), 400, "uint8"),
        (npy(np.zeros((4, 5), np.uint8)), 400, r"(4, 5, 3)"),
        (npy(np.array([{}], object)), 400, "npy"),
        (npy(image(0))[:-1], 400, "npy"),
        (bytes(60 + 4096 + 1), 413, "bytes"),
    ],
)
def test_what_is_no_image_is_refused_and_never_asked_for(port, ledger, body, status, said):
    found, answer = call(port, "POST", "/predict", body)
    assert found == status and said in answer["error"]
    assert not ledger.every


def test_status_and_unknown_paths(port):
    assert call(port, "GET", "/status") == (200, {"waiting": 0})
    assert call(port, "GET", "/")[0] == 404
    assert call(port, "POST", "/other", b"1")[0] == 404


def test_a_port_in_use_is_one_line_before_anything_starts():
    with (
        Front(0, 1.0) as front,
        pytest.raises(InputError, match=rf"serve\.port: cannot listen on port {front.port}: ") as e,
    ):
        Front(front.port, 1.0)
    assert "\n" not in str(e.value)
    Front(front.port, 1.0).__exit__(None, None, None)  # it is free again
