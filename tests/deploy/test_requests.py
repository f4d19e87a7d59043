"""Requests: one way through their states, no answer twice, none lost."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from afpjax.deploy.service.requests import DEADLINE, ENDED, RequestQueue, RequestState

IMAGE = np.zeros((2, 2, 1), np.uint8)
LOGITS = np.arange(3, dtype=np.float32)


def asked(count):
    queue = RequestQueue()
    return queue, [queue.ask(IMAGE, float(number), number) for number in range(count)]


def test_first_come_first_served_and_answered_once():
    queue, (first, second, _) = asked(3)
    assert queue.take(2) == [first, second]
    assert (queue.waiting, queue.under_way) == (1, 2)
    assert queue.answer(second, LOGITS, (3, 1), 5.0)
    assert not queue.answer(second, LOGITS + 1, (), 6.0)
    assert second.state is RequestState.ANSWERED and second.lost == (1, 3) and second.ended == 5.0
    np.testing.assert_array_equal(second.logits, LOGITS)
    assert second.latency_ms == 4000.0
    assert queue.open == [first, queue.all[2]]


def test_what_is_redone_comes_before_what_waits_in_its_old_order():
    queue, every = asked(4)
    taken = queue.take(2)
    queue.put_back(taken)
    assert [each.number for each in queue.take(4)] == [0, 1, 2, 3]
    assert [each.attempts for each in every] == [2, 2, 1, 1]


def test_an_answer_counts_only_while_the_request_is_under_way():
    queue, (first, second) = asked(2)
    assert not queue.answer(first, LOGITS, (), 1.0)  # it waits: nobody was asked
    queue.take(2)
    queue.refuse([second], DEADLINE, 2.0)
    assert not queue.answer(second, LOGITS, (), 3.0)
    assert (
        second.state is RequestState.REFUSED and second.reason == DEADLINE and second.ended == 2.0
    )
    queue.put_back([first, second])  # what has ended stays as it is
    assert [each.number for each in queue.take(9)] == [0]


def test_refused_requests_do_not_wait_any_more():
    queue, every = asked(3)
    assert queue.refuse(every[:2], DEADLINE, 1.0) == 2
    assert queue.refuse(every[:2], ENDED, 2.0) == 0
    assert queue.take(3) == every[2:]
    assert [each.reason for each in every] == [DEADLINE, DEADLINE, ""]


def test_a_closed_ledger_refuses_what_is_open_and_what_comes():
    queue, every = asked(2)
    queue.take(1)
    queue.close(7.0)
    late = queue.ask(IMAGE, 8.0)
    assert {each.reason for each in [*every, late]} == {ENDED}
    assert all(each.done.is_set() for each in [*every, late])
    assert not queue.open and not queue.take(3)


def test_threads_that_ask_and_one_that_serves_lose_nothing():
    queue, count = RequestQueue(), 800
    rng, answers = np.random.default_rng(0), 0
    with ThreadPoolExecutor(4) as pool:
        for _ in range(count):
            pool.submit(queue.ask, IMAGE, 0.0)
        while answers < count:
            taken = queue.take(5)
            queue.put_back([each for each in taken if rng.random() < 0.3])
            answers += sum(queue.answer(each, LOGITS, (), 1.0) for each in taken)
    assert [each.number for each in queue.all] == list(range(count))
    assert queue.count(RequestState.ANSWERED) == count == answers
    assert not queue.open
