import threading
import time

import pytest

from transfer.server.worker import ModelWorker, QueueFull


@pytest.fixture
def worker():
    started = ModelWorker(capacity=8, most=4)
    yield started
    if started._thread.is_alive():
        started.close()


class Gate:
    """A call that waits until it may go on, and records its batches."""

    def __init__(self):
        self.open, self.running, self.batches = threading.Event(), threading.Event(), []

    def __call__(self, items):
        self.running.set()
        assert self.open.wait(10)
        self.batches.append(list(items))
        return [item * 10 for item in items]


def test_waiting_items_are_joined_up_to_the_limit_in_order(worker):
    gate = Gate()
    worker.start()
    first = worker.submit(gate, [0])
    assert gate.running.wait(10)
    others = worker.submit(gate, [1, 2, 3, 4, 5, 6])
    gate.open.set()
    assert [future.result(10) for future in (*first, *others)] == [0, 10, 20, 30, 40, 50, 60]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_only_items_of_the_same_call_are_joined(worker):
    one, two = Gate(), Gate()
    one.open.set(), two.open.set()
    found = [*worker.submit(one, [1]), *worker.submit(two, [2]), *worker.submit(one, [3])]
    worker.start()
    assert [future.result(10) for future in found] == [10, 20, 30]
    assert (one.batches, two.batches) == ([[1, 3]], [[2]])


def test_a_full_queue_takes_all_items_or_none(worker):
    worker.submit(Gate(), range(6))
    with pytest.raises(QueueFull, match="6 images are waiting"):
        worker.submit(Gate(), range(3))
    assert worker.waiting == 6
    worker.submit(Gate(), range(2))
    assert worker.waiting == 8


def test_an_item_that_fails_spoils_no_other(worker):
    def call(items):
        if 2 in items:
            raise ValueError("two")
        return items

    found = worker.submit(call, [1, 2, 3])
    worker.start()
    assert found[0].result(10) == 1
    assert found[2].result(10) == 3
    with pytest.raises(ValueError, match="two"):
        found[1].result(10)
    assert worker.submit(call, [4])[0].result(10) == 4


def test_cancelled_items_are_not_computed(worker):
    seen = []

    def call(items):
        seen.extend(items)
        return items

    found = worker.submit(call, [1, 2])
    found[0].cancel()
    worker.start()
    assert found[1].result(10) == 2
    assert seen == [2]


def test_closing_answers_what_waits_and_refuses_more(worker):
    gate = Gate()
    found = worker.submit(gate, [1, 2, 3, 4, 5])
    worker.start()
    gate.running.wait(10)
    closing = threading.Thread(target=worker.close)
    closing.start()
    while not worker._closing:
        time.sleep(0.01)
    with pytest.raises(QueueFull):
        worker.submit(gate, [6])
    gate.open.set()
    closing.join(10)
    assert [future.result(0) for future in found] == [10, 20, 30, 40, 50]


def test_idle_work_waits_for_items(worker):
    order = []

    def steps():
        for place in range(3):
            order.append(f"step {place}")
            yield

    def call(items):
        order.extend(items)
        return items

    found = worker.submit(call, ["item"])
    worker.work_when_idle(steps())
    worker.start()
    found[0].result(10)
    while worker._idle:
        time.sleep(0.01)
    assert order == ["item", "step 0", "step 1", "step 2"]


def test_idle_work_that_fails_does_not_end_the_worker(worker, caplog):
    def steps():
        yield
        raise ValueError("broken")

    worker.work_when_idle(steps())
    worker.start()
    while worker._idle:
        time.sleep(0.01)
    assert worker.submit(list, [1])[0].result(10) == 1
    assert "background failed" in caplog.text


def test_an_end_at_once_cancels_what_waits_and_waits_for_the_present_batch(worker):
    gate = Gate()
    worker.start()
    (running,) = worker.submit(gate, [0])
    assert gate.running.wait(10)
    waiting = worker.submit(gate, [1, 2, 3])
    closing = threading.Thread(target=worker.close, kwargs={"finish": False})
    closing.start()
    while not all(future.cancelled() for future in waiting):
        time.sleep(0.01)
    assert closing.is_alive()
    gate.open.set()
    closing.join(10)
    assert running.result(10) == 0
    assert gate.batches == [[0]]
    assert not worker._thread.is_alive()
