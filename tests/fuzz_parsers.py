"""Damaged checkpoints by the thousand: every one must end in an answer or in a clear error.

    python tests/fuzz_parsers.py [--cases 10000] [--seed 0] [PARSER ...]

A parser reads sound files whose bytes were changed: overwritten, cut, repeated, put in from elsewhere, and
numbers in JSON replaced by absurd ones. For each parser it prints how many cases there were, how many
ended in an answer, seconds, the slowest case, the process's peak memory and by how much damaged files made
it grow, and the longest error message. Any other exception or warning, an error without a file or a remedy, a case of
ten seconds, or a growth of half a gigabyte ends the run with code 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gguf_bytes as g
import quantized_forms as forms
from edgec.checkpoints.codes import HasCodes
from edgec.checkpoints.gguf.checkpoint import GgufCheckpoint
from edgec.checkpoints.gguf.tokenizer import tokenizer_contents
from edgec.checkpoints.quantized import open_folder
from edgec.errors import EdgecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.checkpoints import Checkpoint

SECONDS = 10
GROWTH = 512  # MiB
_ROWS = 4
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_WORDS = (b"\0" * 8, b"\xff" * 8, b"\xff" * 4, b"\x7f", b"\x80", b"\1", b"\0\0\0\x80")
_NUMBERS = ("0", "-1", "1e308", "4294967296", "9223372036854775807", "1" + "0" * 40, "null", "[]")
_DIGITS = re.compile(rb"\d+")


class HangError(BaseException):
    """A case that takes too long; no parser catches it."""


Files = dict[str, bytes]
"""A checkpoint's files by their names."""


@dataclass(frozen=True)
class Parser:
    """One kind of checkpoint.

    Attributes:
        seeds: sound checkpoints.
        read: all of a checkpoint in a folder.
        damaged: the files that are changed.
    """

    seeds: Callable[[], list[Files]]
    read: Callable[[Path], object]
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What a run found; ``failure`` is empty if all is well."""

    cases: int
    answers: int
    seconds: float
    slowest: float
    growth: float
    peak: float
    worst: str
    failure: str = ""


def read_gguf(folder: Path) -> None:
    """Header, names, rows, codes and tokenizer."""
    checkpoint = GgufCheckpoint(folder / "model.gguf")
    try:
        _read_tensors(checkpoint)
        tokenizer_contents(checkpoint.file.metadata, checkpoint.where)
    finally:
        checkpoint.file.close()


def read_folder(folder: Path) -> None:
    """Config, index, headers, rows and codes."""
    _read_tensors(open_folder(folder))


def _read_tensors(checkpoint: Checkpoint) -> None:
    for name in checkpoint.names():
        shape = checkpoint.info(name).shape
        if not shape:
            continue
        for start in {0, max(0, shape[0] - _ROWS)}:
            stop = min(start + _ROWS, shape[0])
            checkpoint.rows(name, start, stop)
            if isinstance(checkpoint, HasCodes) and checkpoint.codes(name) is not None:
                checkpoint.code_rows(name, start, stop)


def _gguf_seeds() -> list[Files]:
    chance = np.random.default_rng(0)
    f16 = np.full((1, 1), 0.5, "<f2").view(np.uint8)

    def blocks(count: int, size: int) -> bytes:
        raw = chance.integers(0, 256, (count, size), np.uint8)
        raw[:, :2] = f16
        return raw.tobytes()

    tokens = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{n:02X}>" for n in range(256)),
        "\u2581",
        "a",
        "\u2581a",
    ]
    kinds = [2, 3, 3, *[6] * 256, 1, 1, 1]
    spm = [
        g.pair("tokenizer.ggml.model", g.STRING, g.text("llama")),
        g.pair(
            "tokenizer.ggml.tokens",
            g.ARRAY,
            struct.pack("<IQ", g.STRING, len(tokens)) + b"".join(map(g.text, tokens)),
        ),
        g.pair(
            "tokenizer.ggml.token_type",
            g.ARRAY,
            struct.pack(f"<IQ{len(kinds)}i", 5, len(kinds), *kinds),
        ),
        g.pair(
            "tokenizer.ggml.scores",
            g.ARRAY,
            struct.pack(f"<IQ{len(kinds)}f", g.F32, len(kinds), *range(len(kinds))),
        ),
        g.number("tokenizer.ggml.bos_token_id", 1),
        g.number("tokenizer.ggml.eos_token_id", 2),
    ]
    f32 = np.ones(64, "<f4").tobytes()
    # Llama 3's rule with factor 8 and an original length of 1,024.
    turns = 1024 * 10000.0 ** -(np.arange(8) / 8) / (2 * np.pi)
    smooth = np.clip((turns - 1) / 3, 0, 1)
    rope = (1 / ((1 - smooth) / 8 + smooth)).astype("<f4").tobytes()
    entries = {
        "token_embd.weight": ((8, 64), 2, blocks(16, 18)),
        "output_norm.weight": ((64,), 0, f32),
        "blk.0.attn_q.weight": ((64, 64), 8, blocks(128, 34)),
        "blk.0.attn_k.weight": ((32, 64), 6, blocks(64, 22)),
        "blk.0.ffn_down.weight": ((2, 256), 14, blocks(2, 210)),
        "blk.0.ffn_up.weight": ((2, 32), 1, f32[:128]),
        "rope_freqs.weight": ((8,), 0, rope),
    }
    experts = {
        "token_embd.weight": ((8, 64), 3, blocks(16, 20)),
        "blk.0.ffn_up_exps.weight": ((2, 4, 64), 2, blocks(16, 18)),
        "blk.1.ffn_gate_inp.weight": ((2, 64), 0, f32 * 2),
    }
    counts = [g.number("llama.expert_count", 2), g.number("llama.expert_used_count", 1)]
    plain = {name: entry for name, entry in entries.items() if name != "rope_freqs.weight"}
    return [
        {"model.gguf": _gguf(plain, [*g.llama_pairs(), *spm])},
        {"model.gguf": _gguf(entries, g.llama_pairs())},
        {"model.gguf": _gguf(experts, [*g.llama_pairs(), *counts])},
    ]


def _gguf(entries: dict[str, tuple[tuple[int, ...], int, bytes]], pairs: list[bytes]) -> bytes:
    headers, data = [], b""
    for name, (shape, kind, raw) in entries.items():
        headers.append(g.tensor(name, shape, kind, len(data)))
        data += raw + b"\0" * (-len(raw) % 32)
    return g.Raw(pairs=pairs, tensors=headers, data=data).build()


def _folder_seed(config: dict[str, Any], tensors: dict[str, Any]) -> list[Files]:
    with tempfile.TemporaryDirectory() as folder:
        forms.save(Path(folder), config, tensors)
        return [{name: (Path(folder) / name).read_bytes() for name in (_CONFIG, _WEIGHTS)}]


def _plain_seeds() -> list[Files]:
    chance = np.random.default_rng(1)
    tensors = {
        "a.weight": chance.standard_normal((5, 8)).astype(np.float32),
        "b.weight": chance.standard_normal((3, 4)).astype(np.float16),
        "c": np.arange(6, dtype=np.float64),
    }
    return [{**files, _CONFIG: b'{"model_type": "llama"}'} for files in _folder_seed({}, tensors)]


def _index_seeds() -> list[Files]:
    (whole,) = _plain_seeds()
    shards = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        for shard, name in zip(shards, ("a.weight", "b.weight"), strict=True):
            values = np.ones((2, 3), np.float32)
            forms.save(Path(folder) / shard, {}, {name: values})
        parts = {shard: (Path(folder) / shard / _WEIGHTS).read_bytes() for shard in shards}
    index = {
        "metadata": {"total_size": 48},
        "weight_map": {"a.weight": shards[0], "b.weight": shards[1]},
    }
    return [
        {
            **parts,
            _CONFIG: whole[_CONFIG],
            "model.safetensors.index.json": json.dumps(index).encode(),
        }
    ]


def _gptq_seeds() -> list[Files]:
    found = []
    for act_order in (False, True):
        matrix = forms.random_matrix(1, (16, 64), act_order=act_order)
        found += _folder_seed(forms.GPTQ, forms.gptq("a", matrix))
    return found


def _awq_seeds() -> list[Files]:
    return _folder_seed(forms.AWQ, forms.awq("a", forms.random_matrix(2, (16, 64))))


def _bitsandbytes_seeds() -> list[Files]:
    weight = np.random.default_rng(3).standard_normal((8, 64)).astype(np.float32)
    four = forms.four_bits("a.weight", weight, nested=256)
    return [
        *_folder_seed(forms.NF4_CONFIG, four),
        *_folder_seed(forms.INT8, forms.int8("a", weight)),
    ]


def _fp8_seeds() -> list[Files]:
    weight = np.random.default_rng(4).standard_normal((8, 64)).astype(np.float32)
    return _folder_seed(forms.FP8, forms.fp8("a", weight))


_BOTH = (_CONFIG, _WEIGHTS)
PARSERS = {
    "gguf": Parser(_gguf_seeds, read_gguf, ("model.gguf",)),
    "safetensors": Parser(_plain_seeds, read_folder, (_WEIGHTS,)),
    "index": Parser(_index_seeds, read_folder, ("model.safetensors.index.json",)),
    "gptq": Parser(_gptq_seeds, read_folder, _BOTH),
    "awq": Parser(_awq_seeds, read_folder, _BOTH),
    "bitsandbytes": Parser(_bitsandbytes_seeds, read_folder, _BOTH),
    "fp8": Parser(_fp8_seeds, read_folder, _BOTH),
}


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """A file of which one place was changed, or up to five; most of them near its start."""
    data = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 3, 5))):
        if not data:
            break
        place = int(len(data) * chance.random() ** chance.choice((1, 3)))
        how = chance.randrange(12)
        if how < 4:
            word = chance.choice(_WORDS)
            data[place : place + len(word)] = word
        elif how < 7:
            data[place] = chance.randrange(256)
        elif how < 9:
            numbers = list(_DIGITS.finditer(data))
            if numbers:
                found = chance.choice(numbers)
                data[found.start() : found.end()] = chance.choice(_NUMBERS).encode()
        elif how == 9:
            del data[place : place + chance.randint(1, 64)]
        elif how == 10:
            piece = data[chance.randrange(len(data)) :][: chance.randint(1, 64)]
            data[place:place] = piece
        else:
            del data[place:]
    return bytes(data)


def _alarm(_number: int, _frame: object) -> None:
    raise HangError


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


def fuzz(name: str, cases: int, seed: int) -> Outcome:
    """Run a parser's cases in this process."""
    parser = PARSERS[name]
    seeds = parser.seeds()
    chance = random.Random(f"{name} {seed}")
    answers, slowest, worst = 0, 0.0, ""
    signal.signal(signal.SIGALRM, _alarm)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        for files in seeds:
            _write(Path(folder), files)
            parser.read(Path(folder))  # sound files are read, or the run shows nothing
        before, started = _peak(), time.perf_counter()
        for case in range(cases):
            files = dict(chance.choice(seeds))
            target = chance.choice(parser.damaged)
            files[target] = damaged(files[target], chance)
            _write(Path(folder), files)
            begun, problem = time.perf_counter(), ""
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                parser.read(Path(folder))
                answers += 1
            except EdgecError as error:
                worst = max(worst, str(error).replace(folder, "FOLDER"), key=len)
                if not (error.where and error.remedy) and "\n  " not in str(error):
                    problem = f"an error without a file or a remedy: {error}"
            except HangError:
                problem = f"no answer after {SECONDS} s"
            except Exception as error:  # noqa: BLE001 - whatever a parser lets through is a finding
                problem = f"{type(error).__name__}: {error}"
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            slowest = max(slowest, time.perf_counter() - begun)
            if problem or _peak() - before > GROWTH:
                problem = problem or f"memory grew by {_peak() - before:.0f} MiB"
                kept = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
                _write(kept, files)
                failure = f"case {case}: {problem}; its files are in {kept}"
                seconds = time.perf_counter() - started
                growth = _peak() - before
                return Outcome(
                    *(case + 1, answers, seconds, slowest, growth, _peak(), worst), failure
                )
        seconds = time.perf_counter() - started
    growth = _peak() - before
    return Outcome(cases, answers, seconds, slowest, growth, _peak(), worst)


def _write(folder: Path, files: Files) -> None:
    for name, content in files.items():
        (folder / name).write_bytes(content)


def main() -> int:
    """See the module's docstring."""
    options = argparse.ArgumentParser(description="Read damaged checkpoints by the thousand.")
    options.add_argument("parsers", nargs="*", metavar="PARSER", help=", ".join(PARSERS))
    options.add_argument("--cases", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    unknown = set(chosen.parsers) - PARSERS.keys()
    if unknown:
        options.error(f"there is no parser {', '.join(sorted(unknown))}")
    print(
        f"{'parser':13}{'cases':>7}{'answers':>9}{'seconds':>9}{'slowest':>11}{'memory':>11}{'growth':>12}"
    )
    failed = False
    spawn = multiprocessing.get_context("spawn")
    for name in chosen.parsers or PARSERS:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            found = pool.submit(fuzz, name, chosen.cases, chosen.seed).result()
        print(
            f"{name:13}{found.cases:7,}{found.answers:9,}{found.seconds:9.1f}"
            f"{1000 * found.slowest:8.0f} ms{found.peak:7.0f} MiB{found.growth:+8.1f} MiB",
            flush=True,
        )
        print(f"  longest message, {len(found.worst):,} characters: {found.worst[:300]!r}")
        if found.failure:
            failed = True
            print(f"  FAILED: {found.failure}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
