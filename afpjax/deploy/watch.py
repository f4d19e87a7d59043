"""Which devices are alive: heartbeats, and what their answers, errors and silence say."""

from typing import Any

from afpjax.deploy.members import Member, Members

KILLED, DIED, SILENT = "killed", "died", "silent"


class Watch:
    """Asks every living device for a sign of life, `heartbeat_s` after it was last asked.

    A device is lost whose process is gone, or that leaves a question unanswered for `timeout_s`.
    """

    def __init__(self, ray: Any, members: Members, heartbeat_s: float, timeout_s: float) -> None:
        self._ray, self._members = ray, members
        self._heartbeat_s, self._timeout_s = heartbeat_s, timeout_s
        self._doubts: set[Any] = set()
        self._last: float | None = None

    @property
    def sure(self) -> bool:
        """Whether all that were doubted have answered, or are lost."""
        self._doubts &= {ref for ref, _ in self._members.pings()}
        return not self._doubts

    def doubt(self, now: float) -> None:
        """Something went wrong that a dead device would explain: ask all of them, now."""
        for member in self._members.alive:
            self._members.ping(member, now)
            self._doubts |= set(member.pings)

    def ask(self, now: float) -> None:
        """Ask those whose turn it is."""
        self._forgive(now)
        for member in self._members.alive:
            if not member.pings and now - member.asked_at >= self._heartbeat_s:
                self._members.ping(member, now)

    def hear(self, ready: set[Any], now: float) -> list[tuple[Member, str]]:
        """The devices that are found lost now, and why: `ready` has been answered or has failed."""
        lost = []
        for ref, member in list(self._members.pings()):
            if ref in ready and not self._answered(ref, member, now):
                lost.append((member, DIED if member.killed_at is None else KILLED))
        gone = {member.number for member, _ in lost}
        for member in self._members.alive:
            silent = any(now - sent > self._timeout_s for sent in member.pings.values())
            if silent and member.number not in gone:
                lost.append((member, SILENT if member.killed_at is None else KILLED))
        return list({member.number: (member, how) for member, how in lost}.values())

    def _answered(self, ref: Any, member: Member, now: float) -> bool:
        sent = member.pings.pop(ref, now)
        try:
            member.heard(self._ray.get(ref))
        except self._ray.exceptions.ActorUnavailableError:  # perhaps for a moment: ask again
            self._members.ping(member, now)
            member.pings = dict.fromkeys(member.pings, sent)
        except self._ray.exceptions.RayError:
            return False
        return True

    def _forgive(self, now: float) -> None:
        """Time in which nobody listened, because this process was busy, is no silence."""
        if self._last is not None and (gap := now - self._last) > self._heartbeat_s:
            for member in self._members.alive:
                member.pings = {ref: sent + gap for ref, sent in member.pings.items()}
        self._last = now
