"""Settings that a job does not use are refused on the command line; in a file they may stand."""

import pytest

from afpjax.config.config import Config, all_settings, load, load_settings, refuse_unused, use_of
from afpjax.config.jobs import job_names, job_settings
from afpjax.inputs.errors import InputError


def config_of(job: str, **changes) -> Config:
    return load(
        None, {name.replace("__", "."): v for name, v in changes.items()} | {"run.job": job}
    )


@pytest.mark.parametrize("job", job_names())
def test_what_no_use_names_is_refused_in_one_line_that_says_who_uses_it(job):
    config = config_of(job)
    for name in all_settings():
        users = {user for user in job_names() if use_of(name, user) is not None}
        assert users
        if job in users:
            continue
        with pytest.raises(InputError, match=f"^--{name}: job {job} does not use it, ") as said:
            refuse_unused(config, [name])
        assert all(user in str(said.value) for user in users)


@pytest.mark.parametrize("job", job_names())
def test_every_use_is_of_a_setting(job):
    sections = {name.partition(".")[0] for name in all_settings()}
    own = job_settings()[job]
    assert {*own.uses, *own.sources} <= sections | {*all_settings()}


@pytest.mark.parametrize(
    ("job", "changes", "refused", "said"),
    [
        ("campaign", {}, "campaign.sites", "campaign.design is listed"),
        ("campaign", {}, "campaign.mapping", "campaign.targets names link"),
        ("campaign", {}, "faults.weight_rate", "campaign.design is bernoulli"),
        ("campaign", {"campaign__design": "exhaustive"}, "campaign.count", "single or neyman"),
        ("partition", {"format__scale": "tensor"}, "format.frac", "format.scale is global"),
        ("partition", {"format__kind": "float32"}, "format.bits", "format.kind is fixed"),
        ("partition", {}, "data.path", "data.name is npz"),
        ("partition", {}, "train.fault_epochs", "train.faults is true"),
        ("partition", {"model__name": "a.onnx"}, "model.width", "model.name is of the zoo"),
        ("distribute", {}, "distribute.objective", "distribute.search is not 0"),
        ("export", {"export__source": "x"}, "export.kind", "export.source is empty"),
        ("export", {"export__kind": "placement"}, "export.mapping", "export.kind is mapping"),
        ("serve", {}, "serve.listen_s", "serve.port is given"),
        ("serve", {"serve__export": "x"}, "online.budget_ms", "serve.export is empty"),
    ],
)
def test_what_another_setting_makes_useless_is_refused(job, changes, refused, said):
    with pytest.raises(InputError, match=f"^--{refused}: job {job} uses it only where .*{said}"):
        refuse_unused(config_of(job, **changes), [refused])


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("campaign", {"campaign.design": "bernoulli", "campaign.rates": [0.1], "faults.bits": [1]}),
        ("partition", {"train.faults": True, "train.fault_epochs": 3, "search.effort": 100000}),
        ("distribute", {"distribute.search": -1, "distribute.flips": True, "faults.bits": [2]}),
        ("profile", {"model.name": "vgg16_bn", "model.width": 1.0, "platform.batch": 2}),
        ("serve", {"serve.kill": ["simba@1"], "export.kind": "placement"}),
    ],
)
def test_what_is_used_is_taken(job, words):
    refuse_unused(load(None, words | {"run.job": job}), words)


def test_an_earlier_runs_settings_are_its_own(tmp_path):
    """export --export.source RUN trained the default network and then refused the run."""
    (tmp_path / "config.toml").write_text(
        'run.seed = 3\nrun.cluster = "auto"\nmodel.classes = 7\nsearch.population = 9\n'
    )
    given = {"run.job": "export", "export.source": str(tmp_path), "export.batch": 2}
    config = load_settings(None, given)
    assert (config.run.seed, config.model.classes, config.search.population) == (3, 7, 9)
    assert (config.run.job, config.export.batch, config.run.cluster) == ("export", 2, "")
    with pytest.raises(InputError, match=r"made with model\.classes = 7, and --model\.classes"):
        load_settings(None, given | {"model.classes": 8})
    assert load_settings(None, given | {"model.classes": 7}) == config
    file = tmp_path / "other.toml"
    file.write_text("model.classes = 9\n")
    assert load_settings(file, given).model.classes == 9


def test_an_earlier_runs_network_is_no_function_unless_it_is_named(tmp_path):
    (tmp_path / "config.toml").write_text('model.name = "somebodys:code"\n')
    given = {"run.job": "serve", "serve.export": str(tmp_path)}
    with pytest.raises(InputError, match=r"`somebodys:code` is a function, .*: --model\.name"):
        load_settings(None, given)
    assert load_settings(None, given | {"model.name": "somebodys:code"})


def test_no_earlier_run_is_refused_at_once(tmp_path):
    for job, name in (("export", "export.source"), ("online", "online.front")):
        with pytest.raises(InputError, match=f"{name}: .* has no config.toml; name a run folder"):
            load_settings(None, {"run.job": job, name: str(tmp_path)})
