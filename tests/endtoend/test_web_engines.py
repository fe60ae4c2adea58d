"""The shipped model as browsers run it: its whole library on Dawn, and the artifact in WebLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.artifacts.artifact import Artifact, open_artifact
from edgec.errors import VerificationError
from edgec.standins import Requirements, find_standin
from edgec.standins.webllm import Session
from edgec.verification.paths import path_errors
from edgec.verification.sampling import check_sampling
from edgec.verification.steps import all_logits
from standin_tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgec.runtime.engine import Engine
    from edgec.standins.webllm import Answer

pytestmark = [
    pytest.mark.slow,
    *(needs(name) for name in ("web toolchain", "node", "dawn", "chromium")),
]

TARGET = "webgpu-f32"
PROMPT = "def add(left, right):\n    return"
TOKENS = 8
GREEDY = {"temperature": 0, "top_p": 1}
SCHEMA = {
    "type": "object",
    "properties": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["digit"],
}
# As large as logits of the same weights on two machines may differ.
CLOSE = 1e-3


# In groups that kernels on integers don't take, so that this machine computes with activations as they are and
# logits can be compared to the last digits.
GROUPS = "quantization.group_size=16"


def build(folder: Path, *settings: str) -> dict[str, Artifact]:
    """The shipped model for a browser and for this machine."""
    wanted = (TARGET, "host")
    command = [sys.executable, "-m", "edgec", "build", "tinypy", "--no-verify", "--out", "out"]
    command += [word for target in wanted for word in ("--target", target)]
    command += [word for setting in (GROUPS, *settings) for word in ("-s", setting)]
    done = subprocess.run(
        command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    built = [open_artifact(folder / line) for line in done.stdout.splitlines()]
    return {
        "browser": next(one for one in built if one.library.suffix == ".wasm"),
        "host": next(one for one in built if one.library.suffix != ".wasm"),
    }


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    return build(tmp_path_factory.mktemp("web"))


def opened(artifact: Artifact, standin: str) -> Engine:
    requirements = Requirements(os.uname().machine if standin == "native" else "wasm32")
    return find_standin(standin).open_engine(artifact.library, artifact.model, requirements)


@pytest.fixture(scope="module")
def host(artifacts: dict[str, Artifact]) -> Engine:
    return opened(artifacts["host"], "native")


@pytest.fixture(scope="module")
def dawn(artifacts: dict[str, Artifact]) -> Engine:
    return opened(artifacts["browser"], "dawn")


@pytest.fixture(scope="module")
def webllm(artifacts: dict[str, Artifact]) -> Iterator[Session]:
    with Session(artifacts["browser"].library, artifacts["browser"].model) as session:
        yield session


def greedy(engine: Engine, ids: list[int], count: int) -> list[int]:
    """The most likely tokens after some."""
    engine.add(0)
    logits = engine.prefill(0, ids)
    found = []
    for _ in range(count):
        found.append(int(logits.argmax()))
        logits = engine.decode(0, found[-1])
    engine.remove(0)
    return found


def in_nucleus(
    engine: Engine, ids: list[int], tokens: Sequence[int], temperature: float, top_p: float
) -> None:
    """Is each token among the likeliest, which together have ``top_p``?"""
    engine.add(0)
    logits = engine.prefill(0, ids)
    for token in tokens:
        weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
        likelier = weights[weights > weights[token] * (1 + CLOSE)].sum() / weights.sum()
        assert likelier <= top_p + CLOSE, token
        logits = engine.decode(0, token)
    engine.remove(0)


class TestDawn:
    def test_every_way_gives_the_logits_of_this_machine(self, dawn: Engine, host: Engine) -> None:
        random = np.random.default_rng(0)
        windows = [[int(token) for token in random.integers(1, 4096, n)] for n in (40, 23, 9)]
        errors = path_errors(dawn, windows, lambda ids, parts=(): all_logits(host, ids, parts))
        ways = ("all_logits", "prefill", "chunked_prefill", "decode", "batch")
        assert {way: errors[way] < CLOSE for way in ways} == dict.fromkeys(ways, True), errors

    @pytest.mark.nightly
    def test_functions_on_logits(self, dawn: Engine) -> None:
        logits = np.random.default_rng(1).normal(0, 4, (3, 4096)).astype(np.float32)
        assert "apply_penalty_inplace" in check_sampling(dawn, logits)
        probabilities = dawn.softmax(logits[:1], [1.0])
        ordered, order = dawn.call("argsort_probs", probabilities)
        assert (np.diff(ordered[0]) <= 0).all()
        assert np.array_equal(np.sort(order[0]), np.arange(4096))
        assert np.array_equal(probabilities[0][order[0]], ordered[0])
        sums = np.cumsum(ordered[0].astype(np.float64))
        one = np.zeros(1, np.int32)
        for number in (0.01, 0.5, 0.99):
            drawn = dawn.call(
                "sample_with_top_p",
                ordered,
                order,
                np.asarray([number], np.float32),
                one,
                np.ones(1, np.float32),
            )[0]
            place = int(np.searchsorted(sums / sums[-1], number))
            near = order[0][max(0, place - 1) : place + 2]
            assert int(drawn[0]) in near.tolist()

    def test_a_fork_goes_on_alone(self, dawn: Engine) -> None:
        dawn.add(0)
        dawn.prefill(0, [1, 2, 3])
        dawn.fork(0, 1)
        first = dawn.decode(1, 7)
        dawn.decode(0, 9)
        dawn.pop(1, 1)
        assert np.abs(dawn.decode(1, 7) - first).max() < CLOSE
        dawn.clear()

    def test_a_library_that_throws_says_why(self, artifacts: dict[str, Artifact]) -> None:
        engine = opened(artifacts["browser"], "dawn")
        with pytest.raises(VerificationError, match=r'The sequence "5" cannot be found'):
            engine.decode(5, 1)


class TestWebLLM:
    def check(self, answer: Answer, host: Engine, ids: list[int]) -> None:
        assert list(answer.token_ids) == greedy(host, ids, len(answer.token_ids))
        assert answer.finish_reason == "length"

    def test_a_text_goes_on_as_on_this_machine(self, webllm: Session, host: Engine) -> None:
        answer = webllm.complete(PROMPT, max_tokens=TOKENS, **GREEDY)
        assert len(answer.token_ids) == answer.usage["completion_tokens"] == TOKENS
        self.check(answer, host, list(answer.prompt_ids))

    def test_a_chat_begins_with_the_token_of_its_template(
        self, webllm: Session, host: Engine
    ) -> None:
        ids = list(webllm.complete(PROMPT, max_tokens=1).prompt_ids)
        answer = webllm.chat(PROMPT, max_tokens=TOKENS, stream=True, **GREEDY)
        assert len(answer.pieces) > 1
        self.check(answer, host, [0, *ids])
        webllm.reset()
        assert webllm.chat(PROMPT, max_tokens=TOKENS, **GREEDY).text == answer.text

    def test_a_prompt_longer_than_a_chunk(self, webllm: Session, host: Engine) -> None:
        answer = webllm.complete("value = 12\n" * 80, max_tokens=3, **GREEDY)
        assert len(answer.prompt_ids) > host.metadata["prefill_chunk_size"]
        self.check(answer, host, list(answer.prompt_ids))

    def test_equal_seeds_give_equal_texts_of_likely_tokens(
        self, webllm: Session, host: Engine
    ) -> None:
        def drawn(seed: int) -> tuple[int, ...]:
            options = {"temperature": 1.5, "top_p": 0.9, "max_tokens": TOKENS}
            answer = webllm.complete(PROMPT, seed=seed, **options)
            in_nucleus(host, list(answer.prompt_ids), answer.token_ids, 1.5, 0.9)
            return tuple(answer.token_ids)

        first = drawn(1)
        assert drawn(1) == first
        assert {drawn(seed) for seed in (2, 3)} != {first}

    def test_logits_are_changed_as_asked(self, webllm: Session) -> None:
        plain = webllm.complete(PROMPT, max_tokens=3, **GREEDY)
        biased = webllm.complete(PROMPT, max_tokens=3, logit_bias={"313": 100}, **GREEDY)
        assert biased.token_ids == (313,) * 3
        punished = webllm.complete(
            PROMPT,
            max_tokens=3,
            logit_bias={"313": 50, "314": 49},
            presence_penalty=1.5,
            frequency_penalty=1.5,
            repetition_penalty=2.0,
            **GREEDY,
        )
        # 313 wins until it was said; then 314, and then neither is clearly ahead.
        assert punished.token_ids[:2] == (313, 314)
        assert plain.token_ids != biased.token_ids

    def test_a_text_ends_where_it_is_told(self, webllm: Session) -> None:
        whole = webllm.complete(PROMPT, max_tokens=TOKENS, **GREEDY).text
        end = whole.strip()[2]
        answer = webllm.complete(PROMPT, max_tokens=TOKENS, stop=[end], **GREEDY)
        assert answer.finish_reason == "stop"
        assert whole.startswith(answer.text)
        assert end not in answer.text

    def test_json_keeps_to_its_schema(self, webllm: Session) -> None:
        webllm.reset()
        form = {"type": "json_object", "schema": json.dumps(SCHEMA)}
        answer = webllm.chat("digit", max_tokens=24, response_format=form, **GREEDY)
        assert answer.finish_reason == "stop"
        assert set(json.loads(answer.text)) == {"digit"}
        assert json.loads(answer.text)["digit"] in range(10)

    def test_nothing_is_reported_and_nothing_is_missing(self, webllm: Session) -> None:
        assert not [text for text in webllm.messages if text.startswith("error")]
        assert {status for _, _, status in webllm.requests} <= {200, 206}

    def test_what_webllm_refuses_is_told(self, webllm: Session) -> None:
        with pytest.raises(VerificationError, match="WebLLM: Make sure temperature >= 0"):
            webllm.complete(PROMPT, temperature=-1)


@pytest.mark.nightly
def test_a_text_goes_on_past_a_sliding_window(tmp_path: Path) -> None:
    """The prompt takes two chunks, and the window slides before the answer ends."""
    built = build(
        tmp_path,
        "context.sliding_window=48",
        "context.attention_sinks=4",
        "context.prefill_chunk=16",
    )
    with Session(built["browser"].library, built["browser"].model) as session:
        answer = session.complete(
            "import os\nimport re\nimport sys\n\n\n" + PROMPT, max_tokens=56, **GREEDY
        )
    ids = list(answer.prompt_ids)
    assert 16 < len(ids) < 48 < len(ids) + len(answer.token_ids)
    host = opened(built["host"], "native")
    assert list(answer.token_ids) == greedy(host, ids, len(answer.token_ids))


def test_weights_of_another_build_are_refused(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    """WebLLM finds out when a tensor that the library names isn't there."""
    browser = artifacts["browser"]
    for file in browser.model.iterdir():
        text = file.read_bytes()
        if file.name == "tensor-cache.json":
            text = text.replace(b"model.norm.weight", b"model.nurm.weight")
        (tmp_path / file.name).write_bytes(text)
    with pytest.raises(VerificationError, match=r"Cannot find parameter .* model\.norm\.weight"):
        Session(browser.library, tmp_path).close()
