"""Job `profile`: the layers, and what each costs on every device."""

from afpjax.config import Config
from afpjax.experiment import prepare
from afpjax.jobs import records, summary
from afpjax.outcome import Outcome, Work


def run(config: Config, work: Work) -> Outcome:
    """Latency, energy and memory of every layer on every device, for one batch."""
    experiment = prepare(config, work, images=False)
    costs = records.layer_costs(experiment, experiment.tables)
    result = {
        "model": records.model(experiment),
        "devices": list(experiment.platform.names),
        "costs": costs,
    }
    return Outcome(result, summary.costs(costs, experiment.platform.names))
