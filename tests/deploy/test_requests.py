"""Requests: one way through their states, no answer twice, none lost."""

import threading

import numpy as np

from afpjax.deploy.requests import DEADLINE, ENDED, Ledger, State

IMAGE = np.zeros((2, 2, 1), np.uint8)
LOGITS = np.arange(3, dtype=np.float32)


def asked(count):
    ledger = Ledger()
    return ledger, [ledger.ask(IMAGE, float(number), number) for number in range(count)]


def test_first_come_first_served_and_answered_once():
    ledger, (first, second, _) = asked(3)
    assert ledger.take(2) == [first, second]
    assert (ledger.waiting, ledger.under_way) == (1, 2)
    assert ledger.answer(second, LOGITS, (3, 1), 5.0)
    assert not ledger.answer(second, LOGITS + 1, (), 6.0)
    assert second.state is State.ANSWERED and second.lost == (1, 3) and second.ended == 5.0
    np.testing.assert_array_equal(second.logits, LOGITS)
    assert second.latency_ms == 4000.0
    assert ledger.open == [first, ledger.every[2]]


def test_what_is_redone_comes_before_what_waits_in_its_old_order():
    ledger, every = asked(4)
    taken = ledger.take(2)
    ledger.put_back(taken)
    assert [each.number for each in ledger.take(4)] == [0, 1, 2, 3]
    assert [each.attempts for each in every] == [2, 2, 1, 1]


def test_an_answer_counts_only_while_the_request_is_under_way():
    ledger, (first, second) = asked(2)
    assert not ledger.answer(first, LOGITS, (), 1.0)  # it waits: nobody was asked
    ledger.take(2)
    ledger.refuse([second], DEADLINE, 2.0)
    assert not ledger.answer(second, LOGITS, (), 3.0)
    assert second.state is State.REFUSED and second.reason == DEADLINE and second.ended == 2.0
    ledger.put_back([first, second])  # what has ended stays as it is
    assert [each.number for each in ledger.take(9)] == [0]


def test_refused_requests_do_not_wait_any_more():
    ledger, every = asked(3)
    assert ledger.refuse(every[:2], DEADLINE, 1.0) == 2
    assert ledger.refuse(every[:2], ENDED, 2.0) == 0
    assert ledger.take(3) == every[2:]
    assert [each.reason for each in every] == [DEADLINE, DEADLINE, ""]


def test_a_closed_ledger_refuses_what_is_open_and_what_comes():
    ledger, every = asked(2)
    ledger.take(1)
    ledger.close(7.0)
    late = ledger.ask(IMAGE, 8.0)
    assert {each.reason for each in [*every, late]} == {ENDED}
    assert all(each.done.is_set() for each in [*every, late])
    assert not ledger.open and not ledger.take(3)


def test_threads_that_ask_and_one_that_serves_lose_nothing():
    ledger, per_thread = Ledger(), 200

    def ask():
        for _ in range(per_thread):
            ledger.ask(IMAGE, 0.0)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    rng, answers = np.random.default_rng(0), 0
    while answers < 4 * per_thread:
        taken = ledger.take(5)
        back = [each for each in taken if rng.random() < 0.3]
        ledger.put_back(back)
        for each in taken:
            answers += ledger.answer(each, LOGITS, (), 1.0)
    for thread in threads:
        thread.join()
    assert [each.number for each in ledger.every] == list(range(4 * per_thread))
    assert ledger.count(State.ANSWERED) == 4 * per_thread == answers
    assert not ledger.open
