"""What holds of every job's page, on what the golden runs found and on campaigns made by hand."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from afpjax.jobs.campaign.view import view as campaign_view
from afpjax.jobs.distribute.view import view as distribute_view
from afpjax.jobs.export.view import view as export_view
from afpjax.jobs.importance.view import view as importance_view
from afpjax.jobs.online.view import view as online_view
from afpjax.jobs.partition.view import view as partition_view
from afpjax.jobs.profile.view import view as profile_view
from afpjax.jobs.serve.view import view as serve_view
from afpjax.jobs.shared.result import plain, read
from afpjax.report.render import page

from ..conftest import Reader
from . import campaigns
from .kept import KINDS, kept, record

VIEWS: dict[str, Callable[[Any], Any]] = {
    "partition": partition_view,
    "online": online_view,
    "distribute": distribute_view,
    "campaign": campaign_view,
    "importance": importance_view,
    "profile": profile_view,
    "export": export_view,
    "serve": serve_view,
}
MADE = {
    "campaign of two targets": lambda: campaigns.single("weights", "activations"),
    "campaign of masks": lambda: campaigns.masks(("one", "two")),
    "campaign on devices": lambda: campaigns.masks(devices="abc"),
    "campaign beside others": campaigns.published,
}
OUTSIDE = ("<script", "<link", "<img", "http-equiv", 'src="http', 'href="http')


@pytest.mark.parametrize("name", KINDS)
def test_a_result_is_read_back_as_it_was_written(name):
    assert plain(read(KINDS[name], record(name))) == record(name)


@pytest.mark.parametrize("name", [*KINDS, *MADE])
def test_a_page_is_whole_reaches_nowhere_and_takes_names_as_text(name):
    result = MADE[name]() if name in MADE else kept(name, marked="<i>")
    job = re.split("[- ]", name)[0]
    made = page(VIEWS[job](result), job, {"run": {"seed": 0}})
    reader, body = Reader(made.html), made.html[made.html.index("<body>") :]
    assert made.html.count("<svg ") == len(made.figures)
    assert not any(outside in made.html for outside in OUTSIDE)
    assert not re.search(r"\b(nan|inf|None)\b(?! was refused)", reader.text)
    assert not re.search(r"(fill|stroke): #(?!000000)\w{6}", body)  # the page's own colours
    assert not re.search(r"</?(small|br|span|b)\b", reader.text)  # no tag is shown as text
    assert "<i>" not in made.html
    assert ("&lt;i&gt;" in made.html) == (name in KINDS)
