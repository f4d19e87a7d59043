"""Parts in their processes: what is kept of a batch for later tasks, and what is missed."""

from collections import Counter
from itertools import count

import numpy as np
import pytest

from afpjax.deploy.device import Missing, Work
from afpjax.deploy.exported import FromManifest
from afpjax.deploy.flow import SENSOR, Batch, Source

from . import byhand
from .chains import NAMES, assert_near, chain_of, mapped, placed, quantized_of
from .test_placement import IMAGES, PARAMS, SUBSTITUTES, coded_placement, network, placement_of

IMAGE = [*np.clip(IMAGES[:1] * 40 + 128, 0, 255).astype(np.uint8)]


def served(exported) -> FromManifest:
    return FromManifest(exported.manifest, exported.files, NAMES)


def through(exported: FromManifest, images, lost=()):
    """A batch through all devices, in this process; the logits, and what was sent to whom."""
    parts = {d: part.open() for d in range(3) if (part := exported.part(d)) is not None}
    values, number, sent = {}, count(), Counter()

    def kept(value):
        values[place := next(number)] = value
        return place

    plan = exported.plan(0, lost)
    batch = Batch(0, [], plan, {Source(plan.image, SENSOR): kept(exported.prepared(images))})
    while not batch.is_through:
        for place, task, needed in list(batch.ready()):
            sent.update((source, task.device) for source in needed)
            work = Work(task.name, tuple(needed), plan.lost, 0, 0)
            made = parts[task.device](work, [values[batch.refs[source]] for source in needed])
            batch.give_out(place, [kept(each) for each in made])
        batch.finished(next(iter(batch.waiting)))
        batch.forget()
    return values[batch.refs[plan.final]], sent


@pytest.fixture(scope="module")
def quantized():
    return quantized_of(network, PARAMS, IMAGES)


@pytest.mark.parametrize("lost", [(), (0,), (1, 2)])
@pytest.mark.parametrize("coded", [False, True])
def test_devices_that_keep_what_they_need_answer_as_the_chain_does(quantized, coded, lost):
    """A residual sum reads the first layer again, layers after it was sent."""
    made = placed(quantized, coded_placement() if coded else placement_of(), SUBSTITUTES)
    exported = served(made)
    logits, sent = through(exported, IMAGE, lost)
    assert_near(logits, chain_of(made)(exported.prepared(IMAGE), lost), 1e-6)
    assert max(sent.values()) == 1
    again = [t for t in made.manifest.tasks if "stem" in t.inputs]
    assert len({t.device for t in again}) < len(again)


def test_mappings_keep_tensors_for_skips(quantized):
    made = mapped(quantized, [0, 1, 0, 1])
    logits, sent = through(served(made), IMAGE)
    assert_near(logits, chain_of(made)(served(made).prepared(IMAGE)), 1e-6)
    assert max(sent.values()) == 1 and not any(s.device == device for s, device in sent)


HAND = byhand.images(2)
PIECES = [Source(f"one/{name}", place) for place, name in enumerate(byhand.NAMES)]


@pytest.fixture
def parts():
    made = (byhand.placement().part(device) for device in range(4))
    return [part.open() for part in made if part is not None]


def begun(parts, batch=0):
    """Every device's piece of the first layer, of a batch."""
    image = byhand.placement().prepared([HAND[batch]])
    sent = (Source("image", SENSOR),)
    works = [Work(f"one/{name}", sent, frozenset(), batch, 0) for name in byhand.NAMES]
    return [part(work, [image])[0] for part, work in zip(parts, works, strict=True)]


def test_pieces_that_were_not_sent_are_missed_and_never_made_up(parts):
    made = begun(parts)
    three = Work("two/a", tuple(PIECES[:3]), frozenset(), 0, 0)
    with pytest.raises(Missing, match="pieces of one were not sent to a"):
        parts[0](three, made[:3])
    with pytest.raises(Missing, match="image was not sent to b"):
        parts[1](Work("one/b", (), frozenset(), 1, 0), [])
    parts[0](three._replace(lost=frozenset({3})), made[:3])  # nobody misses a lost one's


def test_batches_do_not_mix_and_end(parts):
    first, second = begun(parts), begun(parts, batch=1)
    work = Work("two/a", tuple(PIECES), frozenset(), 0, 0)
    answers = [parts[0](work._replace(batch=n), made)[0] for n, made in enumerate((first, second))]
    assert not np.array_equal(*answers)
    assert set(parts[0]._kept) == {0, 1}
    with pytest.raises(KeyError):  # a task is run once
        parts[0](work, first)
    later = Work("one/a", (Source("image", SENSOR),), frozenset(), 5, 1)
    parts[0](later, [byhand.placement().prepared([HAND[0]])])
    assert set(parts[0]._kept) == {1, 5}
