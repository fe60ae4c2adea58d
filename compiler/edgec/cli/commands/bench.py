"""``edgec bench``: measure a built model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgec.artifacts.locate import locate_artifact
from edgec.cli.describe import kv_cache_dtype
from edgec.cli.loading import artifact_argument, context_option, threads_option, title
from edgec.cli.options import example, json_option, out_option
from edgec.cli.output import format_bytes, format_seconds, print_json, say, stdout_table
from edgec.cli.profile_lines import show_profile
from edgec.runtime.bandwidth import Traffic, copy_rate, read_rate
from edgec.runtime.bench import Workload, measure, prompt_ids
from edgec.runtime.devices import device_name
from edgec.runtime.machine import cpu_model, peak_rss
from edgec.runtime.profile import profile
from edgec.runtime.session import open_session
from edgec.runtime.threads import usable_cpus
from edgec.runtime.tvm_runtime import is_cpu

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgec.runtime.bench import Measurement, Spread
    from edgec.runtime.profile import PassProfile
    from edgec.runtime.session import Session

_DEFAULT = Workload()


@click.command(epilog=example("edgec bench tinypy", "edgec bench tinypy --threads 4 --json"))
@artifact_argument
@click.option(
    "--prompt-tokens",
    type=click.IntRange(min=1),
    default=_DEFAULT.prompt_tokens,
    show_default=True,
    metavar="N",
    help="Tokens to prefill.",
)
@click.option(
    "--generate-tokens",
    type=click.IntRange(min=1),
    default=_DEFAULT.generate_tokens,
    show_default=True,
    metavar="N",
    help="Tokens to decode after the first.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=_DEFAULT.repeat,
    show_default=True,
    metavar="N",
    help="Rounds to measure, after one that isn't counted.",
)
@click.option(
    "--profile", "profiled", is_flag=True, help="Show what each kernel takes, per token and prompt."
)
@threads_option
@context_option
@out_option
@json_option
def command(
    *,
    artifact: str,
    prompt_tokens: int,
    generate_tokens: int,
    repeat: int,
    profiled: bool,
    threads: int | None,
    context: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Measure a built model's speed and memory.

    ARTIFACT is the folder of an artifact, or the name of a recipe that was built. The prompt is
    made of the same token ids on every machine, and the most likely token always comes next.
    Libraries for CUDA are measured on the GPU of this machine.

    With --profile, tables follow of the calls of one decode step and of one prefill: their time, what
    they read and write, and how near that is to the limit of the memory.
    """
    workload = Workload(prompt_tokens, generate_tokens, repeat)
    session = open_session(locate_artifact(artifact, out), threads=threads, context=context)
    measured = measure(session.engine, session.vocab_size, workload)
    peak = peak_rss()  # before the block of memory whose reading is timed
    traffic = _traffic(session, workload)
    profiles = _profiles(session, workload) if profiled else []
    if as_json:
        print_json("edgec.bench/v1", _json(session, measured, traffic, profiles, peak))
        return
    threads_text = "1 thread" if session.threads == 1 else f"{session.threads} threads"
    where = f"{threads_text}, {cpu_model()}"
    on_gpu = not is_cpu(session.engine.device)
    if on_gpu:
        where = f"{device_name(session.engine.device)}, {where}"
    say(f"{title(session.artifact)}, {where}")
    say(
        f"{prompt_tokens} prompt tokens, {generate_tokens} generated,"
        f" {repeat} rounds after one that isn't counted"
    )
    latency = "latency per token, "
    stdout_table(
        ("MEASURED", ">MIN", ">MEDIAN", ">MAX"),
        [
            _row("time to first token", measured.time_to_first_token, _milliseconds),
            _row("prefill", measured.prefill_rate, _tokens_per_second),
            _row("decode", measured.decode_rate, _tokens_per_second),
            _row(f"{latency}P50", measured.latency(50), _milliseconds),
            _row(f"{latency}P90", measured.latency(90), _milliseconds),
        ],
    )
    share = f"{100 * traffic.share(measured.decode_rate.median):.1f} %"
    done = "this GPU copies memory" if on_gpu else "this machine reads memory"
    say(
        f"a decode step reads {format_bytes(traffic.step)}: {share} of the"
        f" {traffic.rate / 1e9:.0f} GB/s at which {done}"
    )
    manifest = session.artifact.manifest
    weights = format_bytes(manifest["memory"]["weights_bytes"])
    cache = f"{format_bytes(session.kv_cache_bytes)} in {kv_cache_dtype(manifest)}"
    say(
        f"loaded in {format_seconds(session.load_seconds)}, peak memory {format_bytes(peak)}"
        f" (weights {weights}, KV cache {cache} for {session.context} tokens)"
    )
    for found in profiles:
        show_profile(found, traffic.rate)


def _traffic(session: Session, workload: Workload) -> Traffic:
    """What decoding asks of the memory."""
    middle = workload.prompt_tokens + workload.generate_tokens // 2
    weights, kv_cache = session.decode_weights_bytes, session.kv_bytes_per_token * middle
    device = session.engine.device
    if is_cpu(device):
        return Traffic(weights, kv_cache, read_rate(session.threads), "read")
    return Traffic(weights, kv_cache, copy_rate(device), "copy")


def _profiles(session: Session, workload: Workload) -> list[PassProfile]:
    return profile(
        session.engine,
        prompt_ids(workload.prompt_tokens, session.vocab_size),
        kv_bytes_per_token=session.kv_bytes_per_token,
        steps=workload.generate_tokens,
    )


def _row(name: str, spread: Spread, shown: Callable[[float], str]) -> tuple[str, ...]:
    return (name, shown(spread.min), shown(spread.median), shown(spread.max))


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


def _tokens_per_second(rate: float) -> str:
    return f"{rate:.1f} tok/s"


def _json(
    session: Session,
    measured: Measurement,
    traffic: Traffic,
    profiles: list[PassProfile],
    peak: int,
) -> dict[str, Any]:
    manifest = session.artifact.manifest
    return {
        "artifact": {
            "folder": str(session.artifact.folder),
            "name": manifest["name"],
            "target": manifest["target"],
            "scheme": manifest["quantization"]["scheme"],
            "build": manifest["build"]["digest"],
        },
        "machine": {
            "device": device_name(session.engine.device),
            "cpu": cpu_model(),
            "usable_cpus": usable_cpus(),
            "tvm": manifest["runtime"]["tvm"],
        },
        "threads": session.threads,
        "context": session.context,
        "load_s": float(f"{session.load_seconds:.6g}"),
        **measured.to_json(),
        **traffic.to_json(measured.decode_rate.median),
        "memory": {
            "peak_rss_bytes": peak,
            "weights_bytes": manifest["memory"]["weights_bytes"],
            "kv_cache_bytes": session.kv_cache_bytes,
            "kv_cache_dtype": kv_cache_dtype(manifest),
        },
        **({"profile": {p.name: p.to_json(traffic.rate) for p in profiles}} if profiles else {}),
    }
