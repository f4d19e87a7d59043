"""What job `export` says: who runs what, what is sent, and whether it answers like afpjax."""

from collections.abc import Sequence

from markupsafe import Markup

from afpjax.jobs.distribute.charts import look
from afpjax.jobs.distribute.parts import SUBSTITUTES
from afpjax.jobs.distribute.view import stability_note
from afpjax.jobs.export.result import Agreement, ExportResult, FileResult, LostDevice, SendResult
from afpjax.jobs.shared import view as shared
from afpjax.report.render import pieces
from afpjax.report.view import Block, Column, Details, Paragraph, Part, Table, View
from afpjax.report.wording import number, percent, scaled, size

_CHOICES = {
    "given": "The mapping of layers to devices was given.",
    "searched": "AFarePart's search found the mapping of layers to devices.",
    "partition run": "The mapping of layers to devices is that of a run of job partition.",
    "distributed": "Every device has some neurons of every layer, placed by {method}.",
    "distribute run": "Every device has some neurons of every layer, as a run of job distribute "
    "placed them.",
}


def view(result: ExportResult) -> View:
    """Agreement with afpjax, the files, and what is sent between devices."""
    return View(
        headline=headline(result),
        lead=[lead(result)],
        parts=[
            Part("Does it give the same answers?", agreement(result)),
            Part("Who runs what", who(result)),
            Part("What is sent", sent(result)),
        ],
        summary=[_files(result), *summary(result)],
        subject=shared.subject(result.model, result.data.name),
        warnings=shared.warnings(result.notes),
        remarks=shared.coverage(result.model),
    )


def headline(result: ExportResult) -> Markup:
    """How many files, and how well they agree with afpjax."""
    files, agreed = len(result.parts), result.agreement
    if agreed is None:  # where they could not be run, a note says so
        return Markup("The network as ONNX files")
    return Markup(
        "<b>{}</b> ONNX {}, one for each device that has work: run together by onnxruntime, they "
        "name the same class as afpjax for <b>{}</b> of {:,} images."
    ).format(files, "file" if files == 1 else "files", percent(agreed.top1.value), agreed.images)


def lead(result: ExportResult) -> str:
    how = _CHOICES[result.source].format(method=look(result.method).name)
    images = f"{result.batch:,} images" if result.batch > 1 else "1 image"
    bits = f" of {result.format.bits} bits" if result.format.kind == "fixed" else ""
    return (
        f"{how} Each file takes {images} at once, in {result.format.kind} numbers{bits}; "
        "manifest.json says who sends what to whom, and mapping.json is AutoDiCE's."
    )


def _device(result: ExportResult, name: str) -> Markup:
    return shared.device(list(result.devices).index(name), name)


def _files(result: ExportResult) -> Table[FileResult]:
    """Every device's file, and what it takes."""
    columns = [
        Column("device", lambda file: _device(result, file.device)),
        Column("file", lambda file: file.file, left=True),
        Column("layers", lambda file: file.layers),
        Column("tasks", lambda file: file.tasks),
        Column("weights", lambda file: size(file.weight_bytes)),
        Column("activations at once", lambda file: size(file.activation_bytes)),
        Column("file's size", lambda file: size(file.file_bytes)),
    ]
    return Table(columns, result.parts)


def who(result: ExportResult) -> list[Block]:
    """The devices, with their layers or their shares of them."""
    names = result.devices
    legend = Markup(" &ensp; ").join(shared.device(i, name) for i, name in enumerate(names))
    columns = [
        Column("file", lambda file: file.file),
        Column("tensors that enter", lambda file: ", ".join(file.inputs), left=True),
        Column("tensors that leave", lambda file: ", ".join(file.outputs), left=True),
        Column("SHA-256", lambda file: file.sha256, left=True),
    ]
    ends = Details("Inputs, outputs and checksums", [Table(columns, result.parts)])
    return [Paragraph(legend), _shares(result), _files(result), ends]


def _shares(result: ExportResult) -> Block:
    """Which layers, or how many neurons of each, every device has."""
    if result.mapping is not None:
        macs, few = [layer.macs for layer in result.model.layers], len(result.mapping) <= 28
        bars = pieces().bars("Work (multiply-accumulates, MACs)", macs, "", few)
        strip = pieces().mapping_strip("Mapping", result.mapping, len(result.devices), few)
        return Markup('<div class="strip">{}{}</div>').format(bars, strip)
    rows = result.placement or ()
    columns = [Column("layer", lambda row: row.layer), Column("neurons", lambda row: row.neurons)]
    for index, name in enumerate(result.devices):
        columns.append(Column(shared.device(index, name), lambda row, i=index: row.held[i]))
    what = "Neurons, or sums of them," if result.method == "cdc" else "Neurons"
    return Details(f"{what} of each layer on each device ({len(rows)})", [Table(columns, rows)])


def sent(result: ExportResult) -> list[Block]:
    """Bytes from device to device, for one image."""
    pairs: dict[tuple[str, str], list[SendResult]] = {}
    for send in result.sends:
        pairs.setdefault((send.source, send.target), []).append(send)
    if not pairs:
        return []

    def for_one_image(pair: tuple[str, str]) -> str:
        return size(round(sum(send.bytes for send in pairs[pair]) / result.batch))

    columns = [
        Column("from", lambda pair: _device(result, pair[0])),
        Column("to", lambda pair: _device(result, pair[1]), left=True),
        Column("tensors", lambda pair: len(pairs[pair])),
        Column("for one image", for_one_image),
    ]
    each = [
        Column("tensor", lambda send: send.tensor),
        Column("from", lambda send: send.source, left=True),
        Column("to", lambda send: send.target, left=True),
        Column("bytes for a batch" if result.batch > 1 else "bytes", lambda send: size(send.bytes)),
    ]
    tensors = Details(f"Tensor by tensor ({len(result.sends)})", [Table(each, result.sends)])
    return [Table(columns, list(pairs)), tensors]


def agreement(result: ExportResult) -> list[Block]:
    """The same images through onnxruntime and through afpjax."""
    if result.agreement is None:
        return []
    return [_logits(result.agreement), *_lost(result)]


def _logits(agreed: Agreement) -> Table[tuple[str, object]]:
    rows = [
        ("images", f"{agreed.images:,}"),
        ("same class", shared.estimated(agreed.top1)),
        ("largest difference, of the range", number(agreed.largest_difference)),
        ("images right, onnxruntime", percent(agreed.accuracy)),
        ("images right, afpjax", percent(agreed.afpjax_accuracy)),
    ]
    return Table([Column("logits", lambda row: row[0]), Column("", lambda row: row[1])], rows)


def _lost(result: ExportResult) -> list[Block]:
    """What is left when a device is lost, by both."""
    if not result.lost or result.substitute is None:
        return []
    columns = [
        Column("device lost", lambda row: _device(result, row.device)),
        Column("right, onnxruntime", lambda row: shared.estimated(row.accuracy)),
        Column("afpjax", lambda row: percent(row.afpjax_accuracy)),
        Column("alike", lambda row: percent(row.alike)),
    ]
    note = (
        "Alike: images that both classify right, or both wrong. A lost neuron gives "
        f"{SUBSTITUTES[result.substitute]}. {scaled(result.lost[0].images)}\u00a0images."
    )
    return [Table(columns, result.lost), Paragraph(note, "note")]


def summary(result: ExportResult) -> list[str]:
    """What the command prints below the files."""
    agreed, notes = result.agreement, []
    if agreed is not None:
        notes.append(
            f"onnxruntime on {agreed.images:,} test images: the same class as afpjax for "
            f"{100 * agreed.top1.value:.2f} %, logits differ by at most "
            f"{agreed.largest_difference:.1e} of their range; {percent(agreed.accuracy)} right, "
            f"afpjax {percent(agreed.afpjax_accuracy)}."
        )
    notes += map(stability_note, result.stability or ())
    return notes + ([_worst(result.lost)] if result.lost else [])


def _worst(rows: Sequence[LostDevice]) -> str:
    worst = min(rows, key=lambda row: row.accuracy.value)
    return (
        "With one device lost, onnxruntime is right or wrong where afpjax is for at least "
        f"{100 * min(row.alike for row in rows):.2f} % of the images; "
        f"{percent(worst.accuracy.value)} right without {worst.device}, the worst to lose."
    )
