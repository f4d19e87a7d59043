"""How a batch goes through devices: what can begin when, and who works out what with some lost."""

from afpjax.deploy.service.plan import SERVICE, ServedBatch, execution_plan
from afpjax.deploy.service.worker import TensorSource

from . import byhand

#: Two devices share out x; both can make the answer of it.
TASKS = [
    byhand.task("x/0", "0", (), ("image",), ("x/0",)),
    byhand.task("x/1", "1", (), ("image",), ("x/1",)),
    byhand.task("y/0", "0", (), ("x",), ("y",)),
    byhand.task("y/1", "1", (), ("x",), ("y",)),
]
PIECES = {"x": {"0": "x/0", "1": "x/1"}}


def plan(lost=(), tasks=TASKS, pieces=PIECES):
    return execution_plan(tasks, pieces, lost, image="image", answer="y", batch=1)


def batch_of(plan):
    return ServedBatch(0, [], plan, {TensorSource("image", SERVICE): "the image"})


def begin(batch):
    """Give out all that is ready; the names of the tasks, and the inputs of each."""
    begun = []
    for index, task, needed in batch.ready():
        begun.append((task.task, [source.tensor for source in needed]))
        batch.under_way(index, [f"ref {tensor}" for tensor in task.outputs])
    batch.drop_unneeded()
    return begun


def done(batch, ref):
    batch.finished(ref)
    return begin(batch)


def test_pieces_of_all_living_devices_come_before_what_reads_them():
    batch = batch_of(plan())
    assert begin(batch) == [("x/0", ["image"]), ("x/1", ["image"])]
    assert begin(batch) == []  # each task once
    assert done(batch, "ref x/0") == []
    assert done(batch, "ref x/1") == [("y/0", ["x/0", "x/1"])]  # by the first of two alone
    assert not batch.is_through
    assert done(batch, "ref y") == []
    assert batch.is_through and batch.refs == {TensorSource("y", "0"): "ref y"}


def test_a_layer_that_nobody_is_left_for_is_substitutes_alone():
    batch = batch_of(plan({"0"}, pieces={"x": {"0": "x/0"}}, tasks=[TASKS[0], *TASKS[2:]]))
    assert begin(batch) == [("y/1", [])]


def test_branches_of_a_mapping_run_at_once_and_join():
    tasks = [
        byhand.task("left", "0", (), ("image",), ("l",)),
        byhand.task("right", "1", (), ("image",), ("r", "s")),
        byhand.task("join", "0", (), ("l", "s"), ("y",)),
    ]
    batch = batch_of(plan(tasks=tasks, pieces={}))
    assert [name for name, _ in begin(batch)] == ["left", "right"]
    assert set(batch.refs) == {
        TensorSource("l", "0"),
        TensorSource("s", "1"),
    }  # nobody reads the others
    assert done(batch, "ref r") == []  # both outputs of a task are there when its first is
    assert done(batch, "ref l") == [("join", ["s"])]  # device 0 has its own


def test_a_device_is_sent_a_tensor_once():
    """Device 0 reads x, put together, and the image for two tasks one after the other."""
    tasks = [
        *TASKS[:2],
        byhand.task("first", "0", (), ("x", "image"), ("f",)),
        byhand.task("second", "0", (), ("x", "f", "image"), ("y",)),
    ]
    batch = batch_of(plan(tasks=tasks))
    assert [name for name, _ in begin(batch)] == ["x/0", "x/1"]
    assert done(batch, "ref x/0") == []
    assert done(batch, "ref x/1") == [("first", ["x/0", "x/1"])]  # it had the image for x/0
    assert done(batch, "ref f") == [("second", [])]
    assert set(batch.refs) == {TensorSource("y", "0")}
