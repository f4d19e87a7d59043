"""Job `profile`: the layers, and what each costs on every device."""

from afpjax.config.config import Config
from afpjax.config.work import Work
from afpjax.experiment import prepare
from afpjax.jobs.profile.result import ProfileResult
from afpjax.jobs.profile.view import view
from afpjax.jobs.shared import plans, records
from afpjax.jobs.shared.outcome import Outcome


def plan(config: Config, work: Work) -> object:
    """No pass: costs follow from the layers' shapes."""
    return plans.shown(prepare(config, work, images=False), [])


def run(config: Config, work: Work) -> Outcome:
    """Latency, energy and memory of every layer on every device, for one batch."""
    experiment = prepare(config, work, images=False)
    result = ProfileResult(
        records.model(experiment),
        list(experiment.platform.names),
        records.layer_costs(experiment, experiment.tables),
    )
    return Outcome(result, view=view(result))
