"""Experiment files: what is read, what is refused and how, and that they read back equal."""

import random
from dataclasses import replace
from typing import Any

import pytest

from afpjax.config import config as configs
from afpjax.config.config import (
    Config,
    all_settings,
    find_file,
    first_difference,
    load,
    to_toml,
)
from afpjax.config.settings import Setting
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import image_size

LETTERS = "abcXYZ 019.,:/\\\"'#[]=é中–"


def refusal(tmp_path, text, overrides=None):
    """The error for a file with this text, without the file's path."""
    path = tmp_path / "x.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        load(path, overrides or {})
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path}", "FILE")


def test_defaults_file_and_overrides_in_this_order(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("[search]\npopulation = 8\ngenerations = 9\n[faults]\nweight_rate = 0.5\n")
    config = load(path, {"search.generations": 7})
    assert (config.search.population, config.search.generations) == (8, 7)
    assert config.faults.weight_rate == (0.5,)
    assert replace(config, search=Config().search, faults=Config().faults) == Config()
    assert load() == Config()


def test_a_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "x.toml"
    path.write_text("[run]\nseed = 3\n", encoding="utf-8-sig")
    assert load(path).run.seed == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[search]\npopulatoin = 3",
            "FILE: unknown key `populatoin` in [search]; did you mean `population`?",
        ),
        ("[run]\nxyz = 3", "FILE: unknown key `xyz` in [run]; known: job, seed, out"),
        ("[serch]\n", "FILE: unknown section `serch`; did you mean `search`?"),
        ("seed = 1", "FILE: unknown key outside a section `seed`; it belongs in [run]"),
        ("model = 1", "FILE: `model` is a section: write [model] and keys below"),
        ("[faults]\nweight_rate = nan", "FILE: faults.weight_rate: needs a finite number"),
        ("[run]\nseed = = 3", "FILE:2: is not valid TOML"),
        ("[run]\nseed = 1\nseed = 2", "FILE: is not valid TOML"),
        (b"[run]\nout = '\xff'", "FILE: is not a text file in UTF-8"),
        ("[run]\nseed = " + "[" * 5000, "FILE: is not valid TOML"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(tmp_path, text, message):
    assert refusal(tmp_path, text).startswith(message)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"search.popul": 3}, "--search.popul: there is no such setting; did you mean `search.po"),
        ({"format.bits": 8, "format.frac": 8}, "format.frac: 8 fraction bits do not fit"),
        ({"faults.bits": []}, "faults.bits: name one bit or more"),
        ({"faults.bits": [1, 0]}, "faults.bits: list each bit once, lowest first"),
        ({"faults.bits": [0, 16]}, "faults.bits: there is no bit 16 in a format of 16 bits"),
        (
            {"format.kind": "bfloat16", "faults.bits": [31]},
            "faults.bits: there is no bit 31 in a format of 16 bits",
        ),
        ({"faults.bit_profile": [1.0]}, "faults.bit_profile: 1 factors for 4 faulty bits"),
        ({"faults.weight_rate": [0.1, 0.2]}, "faults.weight_rate: 2 rates for 3 devices"),
        ({"faults.layers": []}, "faults.layers: give `all`, one count of first layers, or names"),
        ({"faults.layers": [2, "conv1"]}, "faults.layers: give `all`"),
        ({"data.name": "npz"}, "data.path: say where the npz images lie"),
        ({"data.mean": [0.1, 0.2], "data.std": [0.1]}, "data.std: 1 values for 2 of data.mean"),
        ({"data.resize": 8, "data.crop": 9}, "data.crop: 9 pixels do not fit data.resize = 8"),
        ({"platform.devices": ["eyeriss"]}, "platform.devices: a partition needs two devices"),
        (
            {"run.job": "profile", "platform.devices": []},
            "platform.devices: name one device or more",
        ),
        ({"model.name": ""}, "model.name: must not be empty"),
    ],
)
def test_values_that_cannot_be_are_refused(overrides, message):
    with pytest.raises(InputError) as caught:
        load(None, overrides)
    assert str(caught.value).startswith(message)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for path, why in ((tmp_path / "none.toml", "does not exist"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=why):
            load(path)


def test_an_experiment_is_found_by_path_or_by_shipped_name(tmp_path, monkeypatch):
    own = tmp_path / "mine.toml"
    own.write_text("")
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (shipped / "paper.toml").write_text("")
    monkeypatch.setattr(configs, "_shipped_folder", lambda: shipped)
    monkeypatch.chdir(tmp_path)
    assert find_file("mine.toml").read_text() == ""
    assert find_file(str(own)) == own
    assert find_file("paper") == shipped / "paper.toml"
    (tmp_path / "paper").mkdir()  # a folder of that name is not meant
    assert find_file("paper") == shipped / "paper.toml"
    with pytest.raises(InputError, match=r"papr: there is no such file; did you mean `paper`"):
        find_file("papr")
    with pytest.raises(InputError, match="shipped with afpjax: paper"):
        find_file("x" * 5000)


def test_every_shipped_experiment_is_valid(monkeypatch):
    monkeypatch.setenv("AFPJAX_DATA", "data")
    for name in configs.shipped():
        load(find_file(name))


def any_value(draw: random.Random, setting: Setting) -> Any:
    limits = setting.range

    def item(kind) -> Any:
        if setting.choices:
            return draw.choice(setting.choices)
        if kind is bool:
            return draw.random() < 0.5
        if kind is str:
            return "x" + "".join(draw.choices(LETTERS, k=draw.randrange(9)))
        assert limits is not None
        if kind is int:
            low = int(limits.low)
            return draw.randint(low, min(int(limits.high), low + 10 ** draw.randrange(6)))
        return draw.uniform(limits.low, limits.high) or 0.5

    if setting.is_size:
        return image_size(item(int), item(int)) if draw.random() < 0.7 else item(int)
    if not setting.many:
        return item(setting.types[0])
    return tuple(item(draw.choice(setting.types)) for _ in range(draw.randrange(5)))


def any_config(draw: random.Random) -> Config:
    """A valid experiment in which every setting is drawn."""
    values = {name: any_value(draw, setting) for name, setting in all_settings().items()}
    values["platform.devices"] = tuple(f"d{i}" for i in range(draw.randint(2, 5)))
    values["format.frac"] = draw.randrange(values["format.bits"])
    bits = values["faults.bits"] = tuple(sorted(draw.sample(range(4), draw.randint(1, 4))))
    for name, counts in {
        "faults.weight_rate": (0, 1, len(values["platform.devices"])),
        "faults.activation_rate": (0, 1, len(values["platform.devices"])),
        "faults.bit_profile": (0, len(bits)),
        "data.std": (len(values["data.mean"]),),
    }.items():
        values[name] = tuple(draw.random() + 1e-9 for _ in range(draw.choice(counts)))
        values[name] = tuple(min(value, 1.0) for value in values[name])
    values["faults.layers"] = draw.choice([("all",), (draw.randint(1, 9),), ('a"b', "c\\d")])
    for name in ("targets", "bits", "rates", "sites"):
        values[f"campaign.{name}"] = tuple(dict.fromkeys(values[f"campaign.{name}"]))
    values["campaign.targets"] = values["campaign.targets"] or ("link",)
    values["online.trace"] = tuple(dict.fromkeys(values["online.trace"])) or ("ageing",)
    values["online.policies"] = tuple(dict.fromkeys((*values["online.policies"], "online")))
    values |= any_distribution(draw, values)
    most = values["data.resize"] or 99
    values["data.crop"] = image_size(draw.randint(0, most), draw.randint(0, 200))
    return load(None, values)


def any_distribution(draw: random.Random, values: dict[str, Any]) -> dict[str, Any]:
    """What fits together of the settings of job distribute."""
    own = {
        name: tuple(dict.fromkeys(values[f"distribute.{name}"]))
        for name in ("devices", "scores", "methods", "lost", "curve", "thresholds")
    }
    own["devices"] = (draw.randint(3, 128), *(d for d in own["devices"] if d != 3))
    own["devices"] = tuple(dict.fromkeys(own["devices"]))
    own["lost"] = tuple(lost for lost in own["lost"] if lost < max(own["devices"]))
    own["scores"], own["methods"] = own["scores"] or ("l1",), own["methods"] or ("cdc",)
    own["thresholds"] = own["thresholds"] or (0.5,)
    own["failure"] = tuple(draw.random() for _ in range(draw.choice((0, 1, own["devices"][0]))))
    own["weights"] = tuple(draw.random() + 0.1 for _ in range(4))
    return {f"distribute.{name}": value for name, value in own.items()}


@pytest.mark.parametrize("seed", range(50))
def test_any_experiment_reads_back_equal(tmp_path, seed):
    config = any_config(random.Random(seed))
    path = tmp_path / "x.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    again = load(path, named=config.model.name)
    assert again == config
    assert first_difference(again, config) == ""


def test_the_written_file_has_every_key():
    lines = to_toml(Config()).splitlines()
    assert len([line for line in lines if " = " in line]) == len(all_settings())


def test_a_size_is_one_number_where_it_is_square_and_two_where_it_is_not(tmp_path):
    """The size of an image could only be a square's."""
    square = load(None, {"model.image_size": [64, 64]})
    assert square.model.image_size == 64 and "\nimage_size = 64\n" in to_toml(square)
    narrow = load(None, {"model.image_size": [49, 10]})
    assert narrow.model.image_size == (49, 10) and "\nimage_size = [49, 10]\n" in to_toml(narrow)
    assert first_difference(square, narrow) == "model.image_size: 64 -> [49, 10]"
    file = tmp_path / "x.toml"
    file.write_text("model.image_size = 64")
    assert load(file) == square
    file.write_text("model.image_size = [49, 10]")
    assert load(file) == narrow


def test_the_first_difference_is_named_and_the_place_is_none():
    other = load(None, {"run.out": "elsewhere", "search.images": 5, "run.seed": 4})
    assert first_difference(Config(), other) == "run.seed: 0 -> 4"
    assert first_difference(Config(), load(None, {"run.out": "elsewhere"})) == ""


def test_an_environment_variable_opens_a_path(tmp_path, monkeypatch):
    file = tmp_path / "e.toml"
    file.write_text(
        '[data]\nname = "npz"\npath = "$PLACE/a.npz"\n[model]\nname = "${PLACE}/n.onnx"'
    )
    monkeypatch.setenv("PLACE", "/somewhere")
    config = load(file)
    assert (config.data.path, config.model.name) == ("/somewhere/a.npz", "/somewhere/n.onnx")
    assert load(file, {"data.path": "a/$PLACE"}).data.path == "a/$PLACE"


def test_a_variable_that_is_not_set_is_named_unless_the_path_is_given_otherwise(
    tmp_path, monkeypatch
):
    file = tmp_path / "e.toml"
    file.write_text('[data]\nname = "npz"\npath = "$PLACE/a.npz"')
    monkeypatch.delenv("PLACE", raising=False)
    with pytest.raises(
        InputError, match=r"variable PLACE, which is not set; .* or give --data.path"
    ):
        load(file)
    assert load(file, {"data.path": "b.npz"}).data.path == "b.npz"
