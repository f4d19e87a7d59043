"""What settings of an experiment must be together, with errors that say how to mend them."""

from afpjax.config.deploy_sections import Online
from afpjax.config.job_sections import Campaign, Distribute
from afpjax.config.sections import Config, Data, Format
from afpjax.config.settings import toml_value
from afpjax.inputs.errors import InputError
from afpjax.inputs.image_size import rows_columns

_WIDTHS = {"float32": 32, "bfloat16": 16}  # bits; a fixed format has format.bits


def check_sections(config: Config) -> None:
    """Raise `InputError` where two values of one section, or of two, cannot be together."""
    _check_format(config.format)
    _check_faults(config)
    _check_campaign(config.campaign)
    _check_distribute(config.distribute)
    if config.run.job == "distribute":
        _check_losses(config.distribute)
    _check_online(config.online)
    _check_data(config.data)


def _check_format(form: Format) -> None:
    if form.kind == "fixed" and form.frac >= form.bits:
        raise InputError(
            f"format.frac: {form.frac} fraction bits do not fit a signed number of "
            f"{form.bits} bits, use {form.bits - 1} or fewer"
        )


def _check_faults(config: Config) -> None:
    faults = config.faults
    width = _WIDTHS.get(config.format.kind, config.format.bits)
    if not faults.bits:
        raise InputError("faults.bits: name one bit or more; for no faults set the rates to 0")
    if list(faults.bits) != sorted(set(faults.bits)):
        raise InputError(f"faults.bits: list each bit once, lowest first, got {list(faults.bits)}")
    if len(faults.bits) > width:
        raise InputError(
            f"faults.bits: {len(faults.bits)} faulty bits are more than the format has ({width})"
        )
    if faults.bits[-1] >= width:
        raise InputError(
            f"faults.bits: there is no bit {faults.bits[-1]} in a format of {width} bits, "
            f"the highest is {width - 1}"
        )
    if faults.bit_profile and len(faults.bit_profile) != len(faults.bits):
        raise InputError(
            f"faults.bit_profile: {len(faults.bit_profile)} factors for {len(faults.bits)} "
            "faulty bits; give one for each of faults.bits, or none"
        )
    _check_rates(config)
    _check_layers(faults.layers)


def _check_rates(config: Config) -> None:
    devices = len(config.platform.devices)
    for name in ("weight_rate", "activation_rate"):
        rates = getattr(config.faults, name)
        if len(rates) not in (0, 1, devices):
            raise InputError(
                f"faults.{name}: {len(rates)} rates for {devices} devices; give one number, one "
                "per device, or none for the devices' own"
            )


def _check_layers(layers: tuple[int | str, ...]) -> None:
    counts = [layer for layer in layers if isinstance(layer, int)]
    if not layers or (len(layers) > 1 and (counts or "all" in layers)):
        raise InputError(
            f"faults.layers: give `all`, one count of first layers, or names, got {list(layers)}"
        )


def _check_campaign(campaign: Campaign) -> None:
    if not campaign.targets:
        raise InputError("campaign.targets: name one or more of weights, activations and link")
    _check_once("campaign", campaign, "targets", "bits", "rates", "sites")


def _check_distribute(given: Distribute) -> None:
    for name in ("devices", "thresholds", "scores", "methods"):
        if not getattr(given, name):
            raise InputError(f"distribute.{name}: give one or more")
    _check_once("distribute", given, "devices", "scores", "lost", "methods", "curve")
    if len(given.failure) not in (0, 1, given.devices[0]):
        raise InputError(
            f"distribute.failure: {len(given.failure)} probabilities for {given.devices[0]} "
            "devices; give one number, one per device, or none"
        )
    if len(given.weights) != 4 or not any(given.weights):
        raise InputError(
            "distribute.weights: give four, of accuracy, memory, energy and time, not all 0"
        )


def _check_losses(given: Distribute) -> None:
    """What job distribute runs; others place neurons by one method and lose nothing."""
    most = max(given.devices)
    if given.lost and max(given.lost) >= most:
        raise InputError(
            f"distribute.lost: {max(given.lost)} of {most} devices leave none; lose "
            f"{most - 1} or fewer"
        )
    if "cdc" in given.methods and most < 3:
        raise InputError(
            "distribute.methods: cdc needs 3 devices, one of them the spare; give "
            "distribute.devices = 3 or more, or leave cdc out"
        )


def _check_online(given: Online) -> None:
    for name in ("trace", "policies"):
        if not getattr(given, name):
            raise InputError(f"online.{name}: give one or more")
    _check_once("online", given, "trace", "policies")
    if "online" not in given.policies:
        raise InputError("online.policies: the others are compared with `online`; name it too")


def _check_once(section: str, given: object, *names: str) -> None:
    for name in names:
        values = getattr(given, name)
        if len(set(values)) < len(values):
            raise InputError(f"{section}.{name}: list each once, got {toml_value(values)}")


def _check_data(data: Data) -> None:
    if data.name != "digits" and not data.path:
        raise InputError(f"data.path: say where the {data.name} images lie")
    if data.mean and data.std and len(data.mean) != len(data.std):
        raise InputError(
            f"data.std: {len(data.std)} values for {len(data.mean)} of data.mean; give as many"
        )
    shorter = min(rows_columns(data.crop))
    if data.resize and shorter > data.resize:
        raise InputError(f"data.crop: {shorter} pixels do not fit data.resize = {data.resize}")
