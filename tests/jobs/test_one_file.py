"""A device and an environment are one file each: laid in their folder, known by their name."""

import shutil

import pytest

from afpjax.hardware import platform
from afpjax.hardware.platform import shipped_devices
from afpjax.online import environment

DEVICE = (platform._HERE / "devices/simba.toml").read_text().replace('"simba"', '"mine"', 1)
TRACE = """
description = "a storm"
steps = 12

[[change]]
step = 4
device = "mine"
weight_rate = 0.5
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The folders that come with afpjax, and one file more in each."""
    shutil.copytree(platform._HERE, tmp_path / "hardware")
    shutil.copytree(environment._SHIPPED, tmp_path / "traces")
    monkeypatch.setattr(platform, "_HERE", tmp_path / "hardware")
    monkeypatch.setattr(environment, "_SHIPPED", tmp_path / "traces")
    (tmp_path / "hardware/devices/mine.toml").write_text(DEVICE)
    (tmp_path / "traces/storm.toml").write_text(TRACE)


def test_jobs_run_on_a_device_and_in_an_environment_of_one_file_each(installed, outcome_of):
    assert "mine" in shipped_devices() and "storm" in environment.shipped_traces()
    devices = {"platform__devices": ["eyeriss", "mine"]}
    profile = outcome_of("profile", **devices).result
    assert profile.devices == ["eyeriss", "mine"]
    online = outcome_of(
        "online",
        **devices,
        online__trace=["storm"],
        online__policies=["never", "online"],
        online__seeds=1,
        online__population=4,
        online__generations=1,
        search__population=4,
        search__generations=1,
    ).result
    assert [trace.trace for trace in online.traces] == ["storm"]
    worst = [event.rates.weight[1] for event in online.events]
    assert worst[0] == 0.2 and worst[-1] == 0.5 and len(worst) == 12
