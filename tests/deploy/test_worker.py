"""Parts in their processes: what is kept of a batch for later tasks, and what is missed."""

from collections import Counter
from itertools import count

import numpy as np
import pytest

from afpjax.deploy.service.plan import SERVICE, ServedBatch, ServedExport, execution_plan
from afpjax.deploy.service.worker import MissingTensor, TaskRun, TensorSource

from . import byhand
from .exports import NAMES, assert_near, mapped, placed, quantized_of, runner_of
from .test_placement import IMAGES, PARAMS, SUBSTITUTES, coded_placement, network, placement_of

IMAGE = [*np.clip(IMAGES[:1] * 40 + 128, 0, 255).astype(np.uint8)]


def served(exported) -> ServedExport:
    return ServedExport(exported.manifest, exported.files, NAMES)


def through(exported: ServedExport, images, lost=()):
    """A batch through all devices, in this process; the logits, and what was sent to whom."""
    parts = {
        name: part.open()
        for number, name in enumerate(NAMES)
        if (part := exported.part(number)) is not None
    }
    values, number, sent = {}, count(), Counter()

    def kept(value):
        values[place := next(number)] = value
        return place

    plan = exported.plan(0, lost)
    batch = ServedBatch(
        0, [], plan, {TensorSource(plan.image, SERVICE): kept(exported.network_input(images))}
    )
    while not batch.is_through:
        for index, task, needed in list(batch.ready()):
            sent.update((source, task.device) for source in needed)
            run = TaskRun(task.task, tuple(needed), plan.lost, 0, 0)
            made = parts[task.device](run, [values[batch.refs[source]] for source in needed])
            batch.under_way(index, [kept(each) for each in made])
        batch.finished(next(iter(batch.pending)))
        batch.drop_unneeded()
    assert set(batch.refs) == {plan.final}  # nothing else is kept
    return values[batch.refs[plan.final]], sent


@pytest.fixture(scope="module")
def quantized():
    return quantized_of(network, PARAMS, IMAGES)


@pytest.mark.parametrize(
    ("coded", "lost"), [(False, ()), (False, (0, 1)), (True, ()), (True, (0,)), (True, (1, 2))]
)
def test_devices_that_keep_what_they_need_answer_as_one_process_does(quantized, coded, lost):
    """A residual sum reads the first layer again, layers after it was sent; the third device makes
    nothing of that layer, which is substitutes alone where it is the only one left."""
    made = placed(quantized, coded_placement() if coded else placement_of(), SUBSTITUTES)
    exported = served(made)
    logits, sent = through(exported, IMAGE, lost)
    assert_near(logits, runner_of(made)(exported.network_input(IMAGE), lost), 1e-6)
    assert max(sent.values()) == 1
    again = [t for t in made.manifest.tasks if "stem" in t.inputs]
    assert len({t.device for t in again}) < len(again)


def test_mappings_keep_tensors_for_skips(quantized):
    made = mapped(quantized, [0, 1, 0, 1])
    logits, sent = through(served(made), IMAGE)
    assert_near(logits, runner_of(made)(served(made).network_input(IMAGE)), 1e-6)
    assert max(sent.values()) == 1 and not any(s.device == device for s, device in sent)


def test_branches_of_a_mapping_run_at_once_and_join():
    tasks = [
        byhand.task("left", "0", (), ("image",), ("l",)),
        byhand.task("right", "1", (), ("image",), ("r", "s")),
        byhand.task("join", "0", (), ("l", "s"), ("y",)),
    ]
    plan = execution_plan(tasks, {}, (), image="image", answer="y", batch=1)
    batch = ServedBatch(0, [], plan, {TensorSource("image", SERVICE): "the image"})

    def begun():
        """Give out all that is ready: tasks, and what each is sent."""
        made = []
        for index, task, needed in batch.ready():
            made.append((task.task, [source.tensor for source in needed]))
            batch.under_way(index, [f"ref {tensor}" for tensor in task.outputs])
        return made

    assert begun() == [("left", ["image"]), ("right", ["image"])]
    batch.finished("ref r")
    assert begun() == []
    batch.finished("ref l")
    assert begun() == [("join", ["s"])]  # device 0 has its own


HAND = byhand.images(2)
PIECES = [TensorSource(f"one/{name}", name) for name in byhand.NAMES]


@pytest.fixture
def parts():
    made = (byhand.placement().part(device) for device in range(4))
    return [part.open() for part in made if part is not None]


def begun(parts, batch=0):
    """Every device's piece of the first layer, of a batch."""
    image = byhand.placement().network_input([HAND[batch]])
    sent = (TensorSource("image", SERVICE),)
    works = [TaskRun(f"one/{name}", sent, frozenset(), batch, 0) for name in byhand.NAMES]
    return [part(work, [image])[0] for part, work in zip(parts, works, strict=True)]


def test_pieces_that_were_not_sent_are_missed_and_never_made_up(parts):
    made = begun(parts)
    three = TaskRun("two/a", tuple(PIECES[:3]), frozenset(), 0, 0)
    with pytest.raises(MissingTensor, match="pieces of one were not sent to a"):
        parts[0](three, made[:3])
    with pytest.raises(MissingTensor, match="image was not sent to b"):
        parts[1](TaskRun("one/b", (), frozenset(), 1, 0), [])
    parts[0](three._replace(lost=frozenset({"d"})), made[:3])  # nobody misses a lost one's


def test_batches_do_not_mix_and_end(parts):
    first, second = begun(parts), begun(parts, batch=1)
    work = TaskRun("two/a", tuple(PIECES), frozenset(), 0, 0)
    answers = [parts[0](work._replace(batch=n), made)[0] for n, made in enumerate((first, second))]
    assert not np.array_equal(*answers)
    assert set(parts[0]._caches) == {0, 1}
    with pytest.raises(KeyError):  # a task is run once
        parts[0](work, first)
    later = TaskRun("one/a", (TensorSource("image", SERVICE),), frozenset(), 5, 1)
    parts[0](later, [byhand.placement().network_input([HAND[0]])])
    assert set(parts[0]._caches) == {1, 5}
