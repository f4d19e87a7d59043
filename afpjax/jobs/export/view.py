"""The report of job `export`: who runs what, what is sent, and whether it answers like afpjax."""

from collections.abc import Mapping, Sequence
from typing import Any

from afpjax.jobs.distribute.view_words import SUBSTITUTES, method_name
from afpjax.report.markup import (
    Html,
    details,
    device,
    estimate,
    html,
    join,
    paragraph,
    table,
)
from afpjax.report.render import pieces
from afpjax.report.story import Block, Part, Result, Story
from afpjax.report.wording import GAP, number, percent, scaled, size

__all__ = ["STORY"]

_CHOICES = {
    "given": "The mapping of layers to devices was given.",
    "searched": "AFarePart's search found the mapping of layers to devices.",
    "partition run": "The mapping of layers to devices is that of a run of job partition.",
    "distributed": "Every device has some neurons of every layer, placed by {method}.",
    "distribute run": "Every device has some neurons of every layer, as a run of job distribute "
    "placed them.",
}


def answer(result: Result) -> Html:
    """How many files, and how well they agree with afpjax."""
    if "parts" not in result or "agreement" not in result:
        return html("The network as ONNX files")  # where they could not be run, a note says so
    agreed, files = result["agreement"], len(result["parts"])
    return Html(
        f"<b>{files}</b> ONNX {'file' if files == 1 else 'files'}, one for each device that has "
        f"work: run together by onnxruntime, they name the same class as afpjax for "
        f"<b>{html(percent(agreed['top1']))}</b> of {agreed['images']:,} images."
    )


def lead(result: Result) -> Html:
    if "source" not in result:
        return Html()
    how = _CHOICES[result["source"]].format(method=method_name(result["method"]))
    images = f"{result['batch']:,} images" if result["batch"] > 1 else "1 image"
    number_format = result["format"]
    bits = f" of {number_format['bits']} bits" if number_format["kind"] == "fixed" else ""
    return paragraph(
        f"{how} Each file takes {images} at once, in {number_format['kind']} numbers{bits}; "
        "manifest.json says who sends what to whom, and mapping.json is AutoDiCE's."
    )


def who(result: Result) -> Block:
    """The devices, with their layers or their shares of them."""
    names = result["devices"]
    legend = paragraph(join([device(i, name) for i, name in enumerate(names)], " &ensp; "))
    shown = _layers(result) if "mapping" in result else _neurons(result)
    head = ("device", "file", "layers", "tasks", "weights", "activations at once", "file's size")
    keys = ("weight_bytes", "activation_bytes", "file_bytes")
    rows = [
        (
            device(names.index(row["device"]), row["device"]),
            row["file"],
            row["layers"],
            row["tasks"],
            *(size(row[key]) for key in keys),
        )
        for row in result["parts"]
    ]
    return Block(join([legend, shown, table(head, rows, words=(1,)), _ends(result["parts"])]))


def _layers(result: Result) -> Html:
    macs, few = [layer["macs"] for layer in result["model"]["layers"]], len(result["mapping"]) <= 28
    drawn = pieces().bars("Work (multiply-accumulates, MACs)", macs, "", few)
    drawn += pieces().mapping_strip("Mapping", result["mapping"], len(result["devices"]), few)
    return Html(f'<div class="strip">{drawn}</div>')


def _neurons(result: Result) -> Html:
    """How many of each layer's neurons, or coded sums of them, every device computes."""
    names, rows = result["devices"], result["placement"]
    lines = [(row["layer"], row["neurons"], *row["held"]) for row in rows]
    head = ("layer", "neurons", *(device(i, name) for i, name in enumerate(names)))
    what = "Neurons, or sums of them," if result.get("method") == "cdc" else "Neurons"
    return details(f"{what} of each layer on each device ({len(rows)})", table(head, lines))


def _ends(parts: Sequence[Mapping[str, Any]]) -> Html:
    """The files' checksums, and what enters and leaves them."""
    rows = [
        (row["file"], ", ".join(row["inputs"]), ", ".join(row["outputs"]), row["sha256"])
        for row in parts
    ]
    head = ("file", "tensors that enter", "tensors that leave", "SHA-256")
    return details("Inputs, outputs and checksums", table(head, rows, words=(1, 2, 3)))


def sent(result: Result) -> Block:
    """Bytes from device to device, for one image."""
    names, batch = result["devices"], result["batch"]
    pairs: dict[tuple[str, str], list[int]] = {}
    for send in result["sends"]:
        pairs.setdefault((send["from"], send["to"]), []).append(send["bytes"])
    rows = [
        (
            device(names.index(source), source),
            device(names.index(target), target),
            len(each),
            size(round(sum(each) / batch)),
        )
        for (source, target), each in pairs.items()
    ]
    single = [(s["tensor"], s["from"], s["to"], size(s["bytes"])) for s in result["sends"]]
    head = ("tensor", "from", "to", "bytes for a batch" if batch > 1 else "bytes")
    return Block(
        join(
            [
                table(("from", "to", "tensors", "for one image"), rows, words=(1,)),
                details(f"Tensor by tensor ({len(single)})", table(head, single, words=(1, 2))),
            ]
        )
    )


def agreement(result: Result) -> Block:
    """The same images through onnxruntime and through afpjax."""
    found = result["agreement"]
    rows = [
        ("images", f"{found['images']:,}"),
        ("same class", estimate(found, "top1")),
        ("largest difference, of the range", number(found["largest_difference"])),
        ("images right, onnxruntime", percent(found["accuracy"])),
        ("images right, afpjax", percent(found["afpjax_accuracy"])),
    ]
    return Block(join([table(("logits", ""), rows), _lost(result)]))


def _lost(result: Result) -> Html:
    """What is left when a device is lost, by both."""
    if not result.get("lost"):
        return Html()
    names = result["devices"]
    rows = [
        (
            device(names.index(row["device"]), row["device"]),
            estimate(row, "accuracy"),
            percent(row["afpjax_accuracy"]),
            percent(row["alike"]),
        )
        for row in result["lost"]
    ]
    head = ("device lost", "right, onnxruntime", "afpjax", "alike")
    note = paragraph(
        f"Alike: images that both classify right, or both wrong. A lost neuron gives "
        f"{SUBSTITUTES[result['substitute']]}. {scaled(result['lost'][0]['images'])}{GAP}images.",
        kind="note",
    )
    return join([table(head, rows), note])


STORY = Story(
    answer,
    lead,
    (
        Part("Does it give the same answers?", ("agreement",), agreement),
        Part("Who runs what", ("parts", "devices"), who),
        Part("What is sent", ("sends", "devices", "batch"), sent),
    ),
)
