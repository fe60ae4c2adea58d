"""Qwen2.5-VL against transformers: images alone and among text, in every way to append tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.checkpoints import open_checkpoint
from edgec.verification.reference import from_checkpoint
from numerics.family_case import FLOAT32
from numerics.family_cases import FamilyCase
from numerics.tiny_models import CHUNK
from numerics.vision_case import (
    SIDE,
    SIZE,
    VisionCase,
    built_case,
    config,
    picture,
    pixel_values,
    save_model,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

ONE_IMAGE: list[int | str] = [1, 7, 9, "0", 12, 40, 33, 5, 8, 91, 17]
TWO_IMAGES: list[int | str] = ["1", 60, 61, 62, "2", 12, 40, 33, 5]
TEXT: list[int | str] = [3, 8, 1, 9, 27, 31, 200, 11, 4]


@pytest.fixture(scope="module", params=["q0f32", "q4f32_1"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VisionCase:
    folder, out = (tmp_path_factory.mktemp(name) for name in ("model", "stages"))
    return built_case(folder, out, request.param)


@pytest.fixture
def case(built: VisionCase) -> VisionCase:
    built.engine.clear()
    return built


def family_cases() -> list[FamilyCase]:
    model = config()
    features = {
        "num_key_value_heads": model.text_config.num_key_value_heads,
        "rope_scaling": {"type": "mrope"},
        "tie_word_embeddings": True,
        **{
            f"vision_config.{name}": getattr(model.vision_config, name)
            for name in ("depth", "fullatt_block_indexes", "window_size")
        },
    }
    return [
        FamilyCase(
            name=f"qwen2_5_vl, images, {scheme}",
            family="qwen2_5_vl",
            settings=features,
            quantization={"scheme": scheme, "image_size": SIZE},
            make=lambda folder, stages, scheme=scheme: built_case(folder, stages, scheme),
            prefill=_prompts,
            decode=(_chunks, test_batches_with_text_alone),
        )
        for scheme in ("q0f32", "q4f32_1")
    ]


def _prompts(case: VisionCase) -> None:
    for prompt in (ONE_IMAGE, TWO_IMAGES, TEXT):
        case.engine.clear()
        test_every_position_of_a_prompt(case, prompt)


def _chunks(case: VisionCase) -> None:
    test_chunks_that_cut_images_then_decoding(case, 7)


def expect(found: np.ndarray, reference: np.ndarray) -> None:
    error = np.abs(found - reference).max() / np.abs(reference).max()
    print(f"relative error {error:.1e}")
    assert error < FLOAT32


def test_embeddings_of_an_image(case: VisionCase) -> None:
    rows = case.image(0).rows
    expect(rows[:, :-4], case.reference_image(0))
    numbers = np.arange(SIDE * SIDE)
    last = numbers == SIDE * SIDE - 1
    markers = [numbers // SIDE, numbers % SIDE, last, np.zeros(len(numbers))]
    np.testing.assert_array_equal(rows[:, -4:], np.stack(markers, axis=1))


@pytest.mark.parametrize("prompt", [ONE_IMAGE, TWO_IMAGES, TEXT], ids=["one", "two", "text"])
def test_every_position_of_a_prompt(case: VisionCase, prompt: list[int | str]) -> None:
    """Two images are longer than a chunk, so that one of them is cut."""
    case.engine.add(0)
    case.expect(case.engine.all_logits(0, case.tokens(prompt)), case.reference(prompt))


@pytest.mark.parametrize("size", [1, 3, 7, CHUNK])
def test_chunks_that_cut_images_then_decoding(case: VisionCase, size: int) -> None:
    prompt = TWO_IMAGES
    tokens, reference = case.tokens(prompt), case.reference(prompt)
    behind = len(tokens) - 4
    case.engine.add(0)
    for start in range(0, behind, size):
        chunk = tokens[start : min(start + size, behind)]
        found = case.engine.prefill(0, chunk)
        case.expect(found, reference[start + len(chunk) - 1])
    for position in range(behind, len(tokens)):
        token = tokens[position]
        assert isinstance(token, int)
        case.expect(case.engine.decode(0, token), reference[position])


def test_batches_with_text_alone(case: VisionCase) -> None:
    prompts = {4: TEXT, 7: ONE_IMAGE}
    tokens = {number: case.tokens(prompt) for number, prompt in prompts.items()}
    references = {number: case.reference(prompt) for number, prompt in prompts.items()}
    # The first tokens of both, a part of the image among them, in one call; then the rest of it.
    firsts = {4: 3, 7: 20}
    for number in prompts:
        case.engine.add(number)
    logits = case.engine.batch_prefill(
        list(prompts), [tokens[number][: firsts[number]] for number in prompts]
    )
    for row, number in enumerate(prompts):
        case.expect(logits[row], references[number][firsts[number] - 1])
    behind = len(tokens[7]) - 5
    case.engine.prefill(7, tokens[7][20:behind])
    for step in range(5):
        steps = [tokens[4][3 + step], tokens[7][behind + step]]
        ids = [token for token in steps if isinstance(token, int)]
        found = case.engine.batch_decode([4, 7], ids)
        case.expect(found[0], references[4][3 + step])
        case.expect(found[1], references[7][behind + step])


def test_forks_and_tokens_taken_back(case: VisionCase) -> None:
    """The number of images before a token belongs to the sequence, whatever happens to that."""
    tokens, reference = case.tokens(ONE_IMAGE), case.reference(ONE_IMAGE)
    case.engine.add(0)
    case.engine.prefill(0, tokens[:-3])
    case.engine.fork(0, 1)
    case.engine.prefill(1, case.tokens(["3"]))
    expect(case.engine.prefill(0, tokens[-3:]), reference[-1])
    longer: list[int | str] = [*ONE_IMAGE[:-3], "3", 5]
    expect(case.engine.decode(1, 5), case.reference(longer)[-1])
    case.engine.pop(1, SIDE * SIDE + 3)
    expect(case.engine.prefill(1, tokens[-3:]), reference[-1])


def test_the_reference_of_verification_is_the_same_model(tmp_path: Path) -> None:
    """Checkpoints, and configs, have other names than transformers' model."""
    import torch  # noqa: PLC0415 - only these tests need it

    model = save_model(tmp_path)
    found = from_checkpoint(open_checkpoint(str(tmp_path), tmp_path))
    tokens = [7, 8, 9, 12]
    expected = model(torch.tensor([tokens]), use_cache=False).logits[0].detach().numpy()
    expect(found.logits(tokens), expected)
    grid = torch.tensor([[1, 2 * SIDE, 2 * SIDE]])
    with torch.inference_mode():
        pixels = torch.from_numpy(pixel_values(picture(0)))
        rows = model.model.get_image_features(pixels, grid).pooler_output[0].numpy()
    expect(found.image_rows(picture(0)), rows)
