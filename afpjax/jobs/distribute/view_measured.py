"""Job `distribute`: what its numbers rest on."""

from afpjax.jobs.distribute.view_words import SUBSTITUTES, scores_words, thresholds
from afpjax.report.markup import Html, html, join
from afpjax.report.story import Block, Part, Result
from afpjax.report.wording import GAP

__all__ = ["MEASURED", "speed"]

_TARGETS = {
    "winner": "the winning logit",
    "label": "the label's logit",
    "loss": "the cross-entropy loss",
}
_SCALES = {
    "minmax": "scaled to between 0 and 1 within each layer",
    "zscore": "scaled to mean 0 and deviation 1 within each layer",
    "rank": "replaced by their ranks within each layer, from 0 to 1",
    "raw": "as they are",
}


def method(result: Result) -> Block:
    """Everything that stands behind the numbers, as a list."""
    items = [*_scored(result), *_placed(result), *_counted(result)]
    items.append("Every number is in result.json and, table by table, in the CSV files beside it.")
    return Block(Html(f"<ul>{join(Html(f'<li>{html(item)}</li>') for item in items)}</ul>"))


def _scored(result: Result) -> list[str]:
    scores = result["scores"]
    earlier = scores.get("from") == "importance run"
    kind = "" if earlier else f"{scores.get('from', '')} "
    images = f" on {scores['images']:,} {kind}images" if "images" in scores else ""
    images += " by an earlier run of job importance" * earlier
    text = f"Importance: {scores_words(scores['names'])}{images}, "
    text += f"{_SCALES.get(scores['normalise'], scores['normalise'])}."
    found = [text]
    if "jsd" in scores["names"] and "divergence" in scores:
        how = "every neuron was left out in turn"
        if scores["divergence"] != "exact":
            how = "estimated from the first-order change of the logits"
        found.append(f"Divergence (Jensen-Shannon): {how}.")
    if "taylor" in scores["names"] and scores.get("target") in _TARGETS:
        found.append(f"The Taylor score is that of {_TARGETS[scores['target']]}.")
    return found


def _placed(result: Result) -> list[str]:
    found = []
    if values := result.get("thresholds"):
        found.append(
            f"Neurons are in one cluster where their scores' distance is below {thresholds(values)}"
            f"{', a threshold for each layer' if len(set(values)) > 1 else ''}; clusters are "
            "padded with replicas and dealt out in turn (RobustDiCE, Algorithm 1)."
        )
    given = SUBSTITUTES.get(result.get("substitute", ""), result.get("substitute"))
    if given:
        found.append(
            f"A neuron without a living copy gives {given}, after its layer's folded bias and "
            "before the activation."
        )
    if result.get("classifier") == "whole":
        found.append("Every device computes the last layer whole.")
    elif result.get("classifier"):
        found.append("The last layer is distributed like the others.")
    return found


def _counted(result: Result) -> list[str]:
    found, form, speed_ = [], result.get("format", {}), result.get("throughput", {})
    drawn = any(record.get("sampled") for record in result.get("methods", ()))
    sampled = ", and for new sets where these are a sample" * drawn
    if "images" in result.get("data", {}):
        found.append(
            f"Accuracies are of {result['data']['images']:,} held-out images, the same for all "
            f"methods and all sets of lost devices; intervals (95{GAP}%) are for new images"
            f"{sampled}."
        )
    if "bits" in form:
        found.append(f"Numbers are {form['kind']}, {form['bits']} bits.")
    if "passes" in speed_:
        found.append(f"{speed_['passes']:,} passes of an image.{speed(result)}")
    return found


def speed(result: Result) -> str:
    """How many images × sets of lost devices a second, beside what is usual."""
    found = result.get("throughput", {})
    failing, clean = (found.get(f"{kind}inferences_per_second") for kind in ("", "clean_"))
    if not failing:
        return ""
    beside = f"; with no device lost, {clean:,.0f} images a second" if clean else ""
    return f" Speed: {failing:,.0f} images × sets of lost devices a second{beside}."


MEASURED = (Part("How this was measured", ("scores",), method),)
