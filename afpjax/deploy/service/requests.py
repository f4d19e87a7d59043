"""Images that are asked for: none is lost, none is answered twice, each ends with a name.

A request waits, is under way, and is then answered or refused, once and for all:

    waiting -> under way -> answered
       ^          |
       +--redone--+       waiting or under way -> refused
"""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from jaxtyping import Float, UInt8

DEADLINE = "deadline"
ALL_DEAD = "all devices dead"
NO_ROOM = "no memory on the surviving devices"
NO_MAPPING = "no mapping for the surviving devices"
DEVICE_ERROR = "device error"
ENDED = "the service has ended"


class RequestState(StrEnum):
    """Where a request is."""

    WAITING = "waiting"
    UNDER_WAY = "under way"
    ANSWERED = "answered"
    REFUSED = "refused"


@dataclass(eq=False)
class ImageRequest:
    """One image. `lost` are the devices that were lost when its answer was worked out.

    `index` is the image's number in the stream, -1 where it came from elsewhere; times are seconds
    of one clock.
    """

    number: int
    image: UInt8[np.ndarray, "H W C"]
    index: int
    asked: float
    state: RequestState = RequestState.WAITING
    attempts: int = 0
    ended: float = 0.0
    logits: Float[np.ndarray, "classes"] | None = None
    lost: tuple[int, ...] = ()
    reason: str = ""
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def latency_ms(self) -> float:
        return 1e3 * (self.ended - self.asked)


class RequestQueue:
    """All requests; many threads may ask, and one serves.

    Every change of state goes through here, under one lock, and only along the arrows above.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[ImageRequest] = []
        self._waiting: deque[ImageRequest] = deque()
        self._open: dict[int, ImageRequest] = {}  # waiting or under way, oldest first
        self._closed = False
        self._counts = dict.fromkeys(RequestState, 0)
        self._streamed = [0, 0]  # images of the stream: asked for, ended

    def ask(self, image: UInt8[np.ndarray, "H W C"], now: float, index: int = -1) -> ImageRequest:
        """A new request, waiting; refused at once where the service has ended."""
        with self._lock:
            request = ImageRequest(len(self._all), image, index, now)
            self._all.append(request)
            self._open[request.number] = request
            self._streamed[0] += index >= 0
            if self._closed:
                self._end(request, RequestState.REFUSED, now, reason=ENDED)
            else:
                self._waiting.append(request)
            return request

    def take(self, count: int) -> list[ImageRequest]:
        """Up to `count` of those that wait, first come first served; they are under way now."""
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            for request in taken:
                request.state = RequestState.UNDER_WAY
                request.attempts += 1
            return taken

    def put_back(self, requests: Sequence[ImageRequest]) -> None:
        """Those of them that are still under way wait again, before all others."""
        with self._lock:
            for request in reversed(requests):
                if request.state is RequestState.UNDER_WAY:
                    request.state = RequestState.WAITING
                    self._waiting.appendleft(request)

    def answer(
        self,
        request: ImageRequest,
        logits: Float[np.ndarray, "classes"],
        lost: Iterable[int],
        now: float,
    ) -> bool:
        """Whether this answer counts: the first one of a request that is under way does."""
        with self._lock:
            if request.state is not RequestState.UNDER_WAY:
                return False
            request.logits, request.lost = logits, tuple(sorted(lost))
            self._end(request, RequestState.ANSWERED, now)
            return True

    def refuse(self, requests: Iterable[ImageRequest], reason: str, now: float) -> int:
        """How many of them were still open, and are refused now."""
        with self._lock:
            refused = [request for request in requests if request.number in self._open]
            for request in refused:
                self._end(request, RequestState.REFUSED, now, reason=reason)
            gone = {request.number for request in refused}
            self._waiting = deque(r for r in self._waiting if r.number not in gone)
            return len(refused)

    def close(self, now: float) -> None:
        """Refuse what is open, and whatever is asked from now on."""
        with self._lock:
            self._closed = True
        self.refuse(self.open, ENDED, now)

    @property
    def open(self) -> list[ImageRequest]:
        """Waiting or under way, oldest first."""
        with self._lock:
            return list(self._open.values())

    @property
    def waiting(self) -> int:
        with self._lock:
            return len(self._waiting)

    @property
    def under_way(self) -> int:
        with self._lock:
            return len(self._open) - len(self._waiting)

    @property
    def all(self) -> list[ImageRequest]:
        with self._lock:
            return list(self._all)

    @property
    def streamed(self) -> tuple[int, int]:
        """Images of the stream: how many have been asked for, and how many have ended."""
        with self._lock:
            asked, ended = self._streamed
            return asked, ended

    def count(self, state: RequestState) -> int:
        """Requests that have ended in this state."""
        with self._lock:
            return self._counts[state]

    def _end(
        self, request: ImageRequest, state: RequestState, now: float, reason: str = ""
    ) -> None:
        request.state, request.ended, request.reason = state, now, reason
        del self._open[request.number]
        self._counts[state] += 1
        self._streamed[1] += request.index >= 0
        request.done.set()
