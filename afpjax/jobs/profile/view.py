"""What job `profile` says: what every layer costs on every device."""

from markupsafe import Markup

from afpjax.jobs.profile.result import ProfileResult
from afpjax.jobs.shared import view as shared
from afpjax.report.view import Column, Part, Table, View
from afpjax.report.wording import number, scaled


def view(result: ProfileResult) -> View:
    """The whole network on each device, then layer by layer."""
    layers = result.model.layers
    macs = sum(layer.macs for layer in layers)
    weights = sum(layer.weights for layer in layers if layer.stored_in is None)
    count = f"{len(layers)} layers" if len(layers) > 1 else "1 layer"
    whole = devices(result)
    return View(
        headline=headline(result),
        lead=[
            f"{count}, {scaled(macs)} multiply-accumulates (MACs) for an image, "
            f"{scaled(weights)} weights. Costs are the device model's, for one batch; moving data "
            "between devices is not included."
        ],
        parts=[
            Part("The whole network on each device", [whole]),
            Part("Layer by layer", shared.cost_charts(result.costs, result.devices)),
            Part("The network", [shared.layer_table(result.model)]),
        ],
        summary=[whole],
        subject=shared.subject(result.model),
        remarks=shared.coverage(result.model),
    )


def headline(result: ProfileResult) -> Markup:
    """Which device is quickest and which spends least, the whole network on one."""
    latency = shared.device_totals(result.costs, result.devices, "latency_ms")
    energy = shared.device_totals(result.costs, result.devices, "energy_mj")
    quick = min(result.devices, key=latency.__getitem__)
    frugal = min(result.devices, key=energy.__getitem__)
    return Markup(
        "Run whole on one device, the network is quickest on <b>{}</b> ({}\u00a0ms) and spends the "
        "least energy on <b>{}</b> ({}\u00a0mJ)."
    ).format(quick, number(latency[quick]), frugal, number(energy[frugal]))


def devices(result: ProfileResult) -> Table[str]:
    """The whole network on each device, layers summed."""
    latency, energy = (
        shared.device_totals(result.costs, result.devices, key)
        for key in ("latency_ms", "energy_mj")
    )
    columns = [
        Column("device", lambda name: shared.device(result.devices.index(name), name)),
        Column("latency, ms", lambda name: number(latency[name])),
        Column("energy, mJ", lambda name: number(energy[name])),
    ]
    return Table(columns, result.devices)
