"""Environments of running systems: what a trace comes to, step by step, and what is refused."""

import pytest

from afpjax.config.jobs import names_in
from afpjax.inputs.errors import InputError
from afpjax.online.environment import (
    ROLES,
    Change,
    Trace,
    nominal_state,
    random_trace,
    read_trace,
    shipped_traces,
)

NAMES = ("eyeriss", "simba", "simba-ecc")
BUILT = nominal_state((0.02, 0.2, 0.0), (0.03, 0.3, 0.0))
PLACES = {"busiest": 2, "sensitive": 0}


def steps_of(*changes, steps=20, shift=0, seed=0):
    return Trace("t", steps, changes, shift=shift).states(NAMES, BUILT, PLACES, seed)


def test_a_change_holds_from_its_step_on_for_its_device_alone():
    found = steps_of(
        Change(3, "simba", weight_rate=0.5),
        Change(3, "eyeriss", latency=2.0, energy=0.5),
        Change(7, 1, activation_rate=0.1),
    )
    assert found[:3] == (BUILT,) * 3
    third = BUILT._replace(
        weight_rate=(0.02, 0.5, 0.0), latency=(2.0, 1.0, 1.0), energy=(0.5, 1.0, 1.0)
    )
    assert found[3:7] == (third,) * 4
    assert found[7:] == (third._replace(activation_rate=(0.03, 0.1, 0.0)),) * 13


@pytest.mark.parametrize("device", ["simba-ecc", 2, "2", "busiest"])
def test_a_device_is_a_name_an_index_or_a_role(device):
    found = steps_of(Change(0, device, weight_rate=0.4))
    assert found[0].weight_rate == (0.02, 0.2, 0.4)


def test_a_factor_is_on_the_rates_that_the_system_was_built_for():
    found = steps_of(
        Change(1, 0, weight_rate=0.9, activation_rate=0.9),
        Change(2, 0, rate_factor=10.0),
        Change(3, 1, rate_factor=10.0),  # cut at 1
        Change(4, 0, rate_factor=1.0),
        Change(4, 1, rate_factor=1.0),
        Change(5, 0, rate_factor=2.0, weight_rate=0.5),  # a rate is a rate
    )
    assert found[2].weight_rate[0] == pytest.approx(0.2)
    assert found[2].activation_rate[0] == pytest.approx(0.3)
    assert (found[3].weight_rate[1], found[3].activation_rate[1]) == (1.0, 1.0)
    assert found[4] == BUILT
    assert (found[5].weight_rate[0], found[5].activation_rate[0]) == (0.5, 0.06)


def test_a_device_leaves_and_comes_back():
    found = steps_of(Change(4, 1, present=False), Change(9, 1, present=True))
    assert [state.present[1] for state in found] == [True] * 4 + [False] * 5 + [True] * 11


def test_a_seed_moves_all_changes_by_the_same():
    changes = (Change(3, 0, weight_rate=0.1), Change(6, 0, weight_rate=0.2))
    starts = set()
    for seed in range(60):
        rates = [state.weight_rate[0] for state in steps_of(*changes, shift=5, seed=seed)]
        start = rates.index(0.1)
        assert rates.index(0.2) == start + 3
        assert steps_of(*changes, shift=5, seed=seed) == steps_of(*changes, shift=5, seed=seed)
        starts.add(start)
    assert starts == set(range(3, 9))


def test_toml_and_csv_say_the_same(tmp_path):
    (tmp_path / "one.toml").write_text(
        'description = "d"\nsteps = 20\nshift = 0\n'
        '[[change]]\nstep = 2\ndevice = "simba"\nweight_rate = 0.5\nlatency = 2\n'
        "[[change]]\nstep = 5\ndevice = 0\npresent = false\n"
    )
    (tmp_path / "two.csv").write_text(
        "step,device,weight_rate,latency,present\n2,simba,0.5,2,\n5,0,,,false\n"
    )
    one, two = (read_trace(str(tmp_path / name)) for name in ("one.toml", "two.csv"))
    assert (one.name, two.name, one.description, one.steps) == ("one", "two", "d", 20)
    assert two.steps == 105  # a hundred steps after the last change
    found = [each.states(NAMES, BUILT, PLACES, 0)[:20] for each in (one, two)]
    assert found[0] == found[1]
    assert found[0][5].present == (False, True, True) and found[0][2].latency[1] == 2.0


def test_shipped_traces_fit_any_platform_and_bring_trouble():
    assert set(shipped_traces()) == set(names_in("online.traces", ".toml"))
    for name in shipped_traces():
        trace = read_trace(name)
        trace.check_devices(("only",))
        assert trace.name == name and trace.description
        assert {change.device for change in trace.changes} <= set(ROLES)
        found = trace.states(NAMES, BUILT, PLACES, 3)
        assert len(found) == trace.steps and found[0] == BUILT and len(set(found)) > 1


def test_random_bursts_are_a_function_of_the_seed():
    assert random_trace(4, 3) == random_trace(4, 3) != random_trace(5, 3)
    begun, lasted = [], []
    for seed in range(200):
        trace = random_trace(seed, 3)
        assert [c.step for c in trace.changes] == sorted(c.step for c in trace.changes)
        bursts = [c for c in trace.changes if c.weight_rate is not None]
        assert len(bursts) * 2 == len(trace.changes)
        assert all(0.08 <= (c.weight_rate or 0) <= 0.4 for c in bursts)
        assert {c.device for c in bursts} <= {0, 1, 2}
        begun.append(len(bursts))
        ends = [c.step for c in trace.changes if c.rate_factor == 1.0]
        lasted += [min(ends) - min(c.step for c in bursts)] if len(bursts) == 1 else []
        assert len(trace.states(NAMES, BUILT, PLACES, seed)) == 480
    # Bursts begin after 40 + 80 steps on average, then every 160: about 3.2 in 480 steps.
    assert 2.7 < sum(begun) / len(begun) < 3.7
    assert min(lasted) >= 53 and max(lasted) <= 160


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([Change(5, 0, latency=1.0), Change(4, 0, latency=1.0)], "step 4 comes after step 5"),
        ([Change(1, "tpu", latency=2.0)], "no device `tpu`; devices are eyeriss, simba"),
        ([Change(1, 3, latency=2.0)], "no device `3`; .* or 0 to 2"),
        ([Change(1, "-1", latency=2.0)], "no device `-1`"),
        ([Change(n, n, present=False) for n in range(3)], "all devices are gone at step 2"),
    ],
)
def test_changes_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        steps_of(*changes)


HEAD = "[[change]]\nstep = 1\ndevice = 0\n"
FILES = {
    "a.toml": {
        "step 5": ":1: is not valid TOML",
        "stpes = 3": "not `stpes`",
        "change = 3": r"description, steps, shift and \[\[change\]\]",
        HEAD + "voltage = 1.0": "change 1: unknown key `voltage`; known are",
        "[[change]]\nstep = 0": "change 1: key `device` is missing",
        "[[change]]\nstep = 0\ndevice = 1.5": "give a name or an index",
        "[[change]]\nstep = -1\ndevice = 0": "`step` is -1: give 0 or more",
        "[[change]]\nstep = 1.5\ndevice = 0": "`step` is 1.5: give a whole number",
        HEAD + "present = 1": "`present` is 1: give true or false",
        "steps = 0": "`steps` is 0: give 1 or more",
        HEAD + "[[change]]\nstep = 0\ndevice = 0": "change 2: step 0 comes after step 1",
        HEAD + "weight_rate = 2": "change 1: `weight_rate` is 2: give 1 at most",
        HEAD + "latency = 0": "`latency` is 0: give more than 0",
        HEAD + "energy = inf": "`energy` is inf: give a finite number",
    },
    "a.csv": {
        b"step,device\n\xff,\xfe\n": "is no readable CSV file",
        "step,device\n1,0,3\n": "change 1: unknown key `None`",
        "step,device,weight_rate\n1,0,much\n": "is 'much': give a number",
        "step,device\n,0\n": "change 1: key `step` is missing",
    },
}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [(name, *case) for name, cases in FILES.items() for case in cases.items()],
)
def test_files_that_are_no_traces(tmp_path, name, text, message):
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^online.trace: .*{name}.*{message}") as caught:
        read_trace(str(tmp_path / name))
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.toml", "none.toml does not exist"),
        ("solar-flare", "unknown trace `solar-flare`; shipped are ageing, attacker"),
        ("trace.json", "any other is the path of a .toml or .csv file"),
    ],
)
def test_traces_that_are_not_there(name, message):
    with pytest.raises(InputError, match=f"^online.trace: .*{message}"):
        read_trace(name)
