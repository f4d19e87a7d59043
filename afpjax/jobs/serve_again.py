"""A mapping made anew for the devices that are left: AFarePart's search on them, and its export."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from afpjax.config import Config
from afpjax.deploy.exported import FromManifest
from afpjax.deploy.manifest import Manifest, read
from afpjax.hardware.platform import load_platform
from afpjax.jobs import JOBS
from afpjax.outcome import Work
from afpjax.progress import SILENT

_IMAGES = 1  # that the new export is checked on: others wait for it


def export(config: Config, work: Work, folder: Path) -> Manifest:
    """Job `export`, its files written to a folder."""
    outcome = JOBS["export"](replace(config, run=replace(config.run, job="export")), work)
    for name, content in outcome.files.items():
        (folder / name).write_bytes(content)
    return read(folder)


def replanner(
    config: Config, names: Sequence[str], limit_bytes: Mapping[str, float], setting: str
) -> Callable[[tuple[str, ...]], FromManifest]:
    """What makes an export for some of the devices `names`, by their names.

    It is job `export` with only these devices on the platform, after a search that is as short as
    online.population and online.generations say, since images wait for it. It runs beside the
    service, so it has no part in the run's progress bars and memory.
    """

    def replan(left: tuple[str, ...]) -> FromManifest:
        restricted = among(config, [names.index(name) for name in left])
        given = restricted.platform
        own = load_platform(given.devices, given.link).names
        with TemporaryDirectory(prefix="afpjax-") as folder:
            manifest = export(restricted, Work({}, SILENT), Path(folder))
            exported = FromManifest.of_folder(manifest, Path(folder), names)
        named = renamed(manifest, dict(zip(own, left, strict=True)))
        return replace(exported, manifest=named).check_room(limit_bytes, setting)

    return replan


def among(config: Config, kept: Sequence[int]) -> Config:
    """The experiment with some devices of its platform, and a mapping yet to be found for them.

    A single device needs no search.
    """
    given, faults = config.platform, config.faults
    devices = tuple(given.devices[device] for device in kept)

    def rates(of: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(of[device] for device in kept) if len(of) == len(given.devices) else of

    online = config.online
    return replace(
        config,
        platform=replace(given, devices=devices),
        faults=replace(
            faults,
            weight_rate=rates(faults.weight_rate),
            activation_rate=rates(faults.activation_rate),
        ),
        search=replace(config.search, population=online.population, generations=online.generations),
        export=replace(config.export, source="", kind="mapping", mapping=(), images=_IMAGES),
    )


def renamed(manifest: Manifest, names: Mapping[str, str]) -> Manifest:
    """The same export on devices with other names."""
    return replace(
        manifest,
        devices=tuple(replace(each, device=names[each.device]) for each in manifest.devices),
        tasks=tuple(replace(each, device=names[each.device]) for each in manifest.tasks),
        sends=tuple(
            replace(each, source=names[each.source], target=names[each.target])
            for each in manifest.sends
        ),
    )
