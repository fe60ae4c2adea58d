"""A report on a model as short lines for people: a label and a text each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.cli.output import format_bytes, format_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.inspection.model import ModelReport
    from edgec.inspection.weights import Weights

Line = tuple[str, str]


def model_lines(report: ModelReport) -> list[Line]:
    """What a model is; what its config doesn't say is passed over."""
    lines = [("model", report.where)]
    if report.commit:
        lines.append(("commit", report.commit))
    lines.append(("supported", _supported(report)))
    if report.nearest is not None:
        lines.append(("nearest", str(report.nearest)))
    lines += _fact_lines(report.facts)
    if report.parameters is not None:
        count = report.parameters
        lines.append(("parameters", f"{format_count(count)} ({count:,})"))
    if report.kv_bytes:
        sizes = [f"{format_bytes(size)} in {dtype}" for dtype, size in report.kv_bytes.items()]
        lines.append(("KV cache", f"of a token {', '.join(sizes)}"))
    if report.weights is not None:
        lines.append(("weights", _weights(report.weights)))
    return lines


def _supported(report: ModelReport) -> str:
    if report.unsupported is None:
        return f"yes, family {report.family}"
    return f"no: {report.unsupported}"


def _fact_lines(facts: Mapping[str, Any]) -> list[Line]:
    texts = {
        "layers": _joined(facts, layers="{}"),
        "hidden": _joined(facts, hidden_size="{}", intermediate_size="MLP {}"),
        "attention": _joined(
            facts, heads="{} heads", kv_heads="{} key-value heads", head_dim="{} wide"
        ),
        "vocabulary": _joined(facts, vocab_size="{} tokens", tied_embeddings="{}"),
        "context": _joined(facts, context_length="{} tokens"),
        "rope": _joined(facts, rope_type="{}", rope_theta="theta {}"),
        "quantized": _joined(facts, quantization="already, by {}", quantized_form="{}"),
    }
    return [(label, text) for label, text in texts.items() if text]


def _joined(facts: Mapping[str, Any], **forms: str) -> str:
    return ", ".join(
        form.format(_shown(name, facts[name]))
        for name, form in forms.items()
        if facts.get(name) is not None
    )


def _shown(name: str, value: Any) -> str:
    if name == "tied_embeddings":
        return "head tied to the embedding" if value is True else "a head of its own"
    if isinstance(value, float):
        return f"{value:g}" if value < 1e5 else f"{value:,.0f}"
    # A config can hold anything.
    return f"{value:,}" if isinstance(value, int) else str(value)[:80]


def _weights(weights: Weights) -> str:
    if weights.checked == "nothing":
        return str(weights.problem) if weights.problem else "not looked at: they aren't downloaded"
    files = "1 file" if weights.files == 1 else f"{weights.files} files"
    parts = [f"{weights.tensors} tensors in {files}"]
    if weights.nbytes is not None:
        parts.append(format_bytes(weights.nbytes))
    parts += [f"{count} {dtype}" for dtype, count in weights.dtypes.items()]
    fits = "they fit the model" if weights.checked == "headers" else "their names fit the model"
    return f"{', '.join(parts)}: {weights.problem or fits}"
