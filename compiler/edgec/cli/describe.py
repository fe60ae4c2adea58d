"""Results of a build as short lines for people: a label and a text each."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from edgec.cli.kernel_lines import kernels_text
from edgec.cli.output import format_bytes, format_seconds
from edgec.quantization.schemes import find_scheme
from edgec.verification.rounding import ALL, CACHE, all_rounding

if TYPE_CHECKING:
    from collections.abc import Mapping

Line = tuple[str, str]
_MINUTE = 60


def artifact_lines(manifest: Mapping[str, Any]) -> list[Line]:
    """Size and memory of an artifact, from its manifest."""
    files: Mapping[str, Mapping[str, Any]] = manifest["files"]
    size = sum(entry["bytes"] for entry in files.values())
    bits = manifest["quantization"]["bits_per_weight"]
    weights = format_bytes(manifest["memory"]["weights_bytes"])
    random = [("weights", "random ones: for trying speed and size")]
    return [
        *(random if manifest.get("model", {}).get("weights") == "synthetic" else []),
        ("size", f"{format_bytes(size)}, of which weights {weights} ({bits:.2f} bits per weight)"),
        ("memory", memory_text(manifest["memory"], _activations(manifest))),
    ]


def _activations(manifest: Mapping[str, Any]) -> str:
    return find_scheme(str(manifest["quantization"]["scheme"])).dtype


def kv_cache_dtype(manifest: Mapping[str, Any]) -> str:
    """What an artifact holds keys and values as."""
    return str(manifest["memory"].get("kv_cache_dtype") or _activations(manifest))


def memory_text(memory: Mapping[str, Any], activations: str) -> str:
    """A memory plan: the total and its parts; the workspace may be unknown (None).

    Args:
        memory: what :meth:`~edgec.artifacts.memory_plan.MemoryPlan.to_json` made.
        activations: their type; a KV cache of another type is said to be.
    """
    workspace = memory["workspace_bytes"]
    parts = [f"weights {format_bytes(memory['weights_bytes'])}"]
    if memory["context_length"]:
        dtype = memory.get("kv_cache_dtype") or activations
        other = "" if dtype == activations else f" in {dtype}"
        parts.append(f"KV cache {format_bytes(memory['kv_cache_bytes'])}{other}")
    if workspace is not None:
        parts.append(f"workspace {format_bytes(workspace)}")
    least = "" if workspace is not None else "at least "
    total, window = format_bytes(memory["total_bytes"]), memory.get("sliding_window")
    where = f"at {memory['context_length']} tokens"
    if not memory["context_length"]:
        where = "at the largest sizes"
    if window is not None:
        where = f"with a window of {window} tokens"
    return f"{least}{total} {where}: {', '.join(parts)}"


def quality_lines(report: Mapping[str, Any]) -> list[Line]:
    """What verification found; sections that a report doesn't have are passed over."""
    lines = []
    run = report.get("verification", {})
    if run.get("ran") is False:
        lines.append(("verified", f"no: {run.get('reason', 'no reason was given')}"))
    if emulated := run.get("emulated"):
        lines.append(("verified", f"with {', '.join(emulated)} emulated"))
    text = report.get("text", {})
    tokens = text.get("tokens")
    run_on = text.get("artifact_tokens") or tokens
    total, quantizer = report.get("total"), report.get("quantizer")
    if quality := total or quantizer:
        lines.append(("quality", quality_text(quality) + _on(run_on if total else tokens)))
    if total and quantizer:
        # The same loss without the compiler: what PyTorch says of the weights as they are stored.
        on = "" if run_on == tokens else _on(tokens)
        lines.append(
            ("quantizer", f"{quality_text(quantizer)} with the stored weights in PyTorch{on}")
        )
    if compiler := report.get("compiler"):
        limit = f" (limit {compiler['tolerance']:.1g})" if "tolerance" in compiler else ""
        lines.append(("compiler", f"max |Δlogit| {compiler['max_logit_error']:.1e}{limit}"))
    lines += _rounding_lines(report)
    lines += [("output", output_text(name, errors)) for name, errors in _outputs(report)]
    if paths := report.get("paths"):
        lines.append(("paths", paths_text(paths)))
    if images := report.get("images"):
        error, limit = images["max_error"], images["tolerance"]
        lines.append(
            (
                "images",
                f"embeddings {error:.1e} of the largest from the reference (limit {limit:g})",
            )
        )
    if kernels := report.get("kernels"):
        lines.append(("kernels", kernels_text(kernels, run.get("standin", "?"))))
    return lines


def _outputs(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, float]]]:
    return sorted(report.get("outputs", {}).items())


def output_text(name: str, errors: Mapping[str, float]) -> str:
    """Relative errors of a generic model's output: all of it, and the compiler's part."""
    total = errors.get("total", errors["quantizer"])
    compiler = f", of which the compiler {errors['compiler']:.1e}" if "compiler" in errors else ""
    if "activations" in errors:
        compiler += f" (rounding activations to 8 bits: {errors['activations']:.1e})"
    return f"{name} within {total:.1e} of the original{compiler}"


def _on(tokens: int | None) -> str:
    return "" if tokens is None else f" on {tokens} tokens"


def quality_text(figures: Mapping[str, Any]) -> str:
    """Divergence, agreement and perplexity ratio of two models."""
    return (
        f"KL {figures['kl']:.4f} nats, top-1 {100 * figures['top1']:.1f} %, perplexity ratio"
        f" {figures['perplexity_ratio']:.4f} ± {figures['perplexity_ratio_error']:.4f}"
    )


def _rounding_lines(report: Mapping[str, Any]) -> list[Line]:
    lines = []
    if rounding := all_rounding(report):
        text = rounding_text(rounding, report.get("compiler"), _what_is_rounded(report))
        lines.append(("rounding", text))
    if cache := report.get(CACHE):
        lines.append(("KV cache", cache_text(cache, _cache(report))))
    return lines


def _what_is_rounded(report: Mapping[str, Any]) -> str:
    parts = [] if ALL not in report and CACHE in report else ["activations in 8 bits"]
    if CACHE in report:
        parts.append(f"a KV cache in {_cache(report)}")
    return " and ".join(parts)


def _cache(report: Mapping[str, Any]) -> str:
    """The type of a cache that isn't as the model computes keys and values."""
    return str(report.get("verification", {}).get("kv_cache_dtype", "fewer bits"))


def rounding_text(figures: Mapping[str, Any], compiler: Mapping[str, Any] | None, what: str) -> str:
    """What rounding loses, of the library and in PyTorch.

    Args:
        figures: of PyTorch with all that is rounded, against PyTorch without.
        compiler: of the library; None if it wasn't run.
        what: is rounded.
    """
    loss = figures["kl"] if compiler is None else compiler["kl"]
    return (
        f"KL {loss:.1e} nats of {what}, in PyTorch {figures['kl']:.1e} and"
        f" max |Δlogit| {figures['max_logit_error']:.1e}"
    )


def cache_text(figures: Mapping[str, Any], dtype: str) -> str:
    """What rounding keys and values loses, and nothing else, in PyTorch."""
    return (
        f"in {dtype}, alone in PyTorch: KL {figures['kl']:.1e} nats, perplexity ratio"
        f" {figures['perplexity_ratio']:.5f}, max |Δlogit| {figures['max_logit_error']:.1e}"
    )


def paths_text(paths: Mapping[str, Any]) -> str:
    """How far prefill, decode and batches are apart."""
    names = {"prefill": "prefill", "chunked_prefill": "chunks", "decode": "decode"}
    names["batch"] = f"batch of {paths.get('batch_size', '?')}"
    found = [f"{label} {paths[name]:.1e}" for name, label in names.items() if name in paths]
    return f"max |Δlogit| {', '.join(found)}"


def age_text(seconds: float) -> str:
    """``"just now"``, ``"5 min ago"``, ``"3 h ago"``, ``"2 days ago"``."""
    if seconds < _MINUTE:
        return "just now"
    hours = round(seconds / 3600)
    if hours < 1:
        return f"{round(seconds / _MINUTE)} min ago"
    return f"{hours} h ago" if hours < 48 else f"{hours // 24} days ago"


def time_text(time: str) -> str:
    """A time in ISO 8601, as a local time and how long ago that was."""
    then = dt.datetime.fromisoformat(time)
    ago = dt.datetime.now(dt.timezone.utc) - then
    return f"{then.astimezone():%Y-%m-%d %H:%M} ({age_text(ago.total_seconds())})"


def up_to_date_text(recipe: str, target: str, seconds: float) -> str:
    """The one line of a build that had nothing to do."""
    return f"{recipe} for {target} is up to date ({format_seconds(seconds)})"
