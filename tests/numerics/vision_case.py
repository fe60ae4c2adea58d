"""A small Qwen2.5-VL with random weights, built by the real stages, beside transformers' model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.runtime.embedded_images import ImageToken
from numerics.family_case import FLOAT32, Comparison
from numerics.tiny_models import build

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.runtime.embedded_images import EmbeddedImage, Token
    from numerics.tiny_models import Built

# Five tokens along each side: windows of two by two tokens, at the edges smaller ones.
SIZE, SIDE = 140, 5
PATCH = 14
START, IMAGE, END = 312, 310, 313
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def config() -> Any:
    """Sections of three sizes, layers with and without windows, an MLP that no group divides."""
    from transformers import Qwen2_5_VLConfig  # noqa: PLC0415 - only these tests need it

    return Qwen2_5_VLConfig(
        vocab_size=320,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_scaling={"type": "mrope", "mrope_section": [4, 7, 5]},
        rope_theta=10000.0,
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 84,
            "num_heads": 2,
            "out_hidden_size": 128,
            "patch_size": PATCH,
            "spatial_merge_size": 2,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "temporal_patch_size": 2,
        },
        image_token_id=IMAGE,
        video_token_id=311,
        vision_start_token_id=START,
        vision_end_token_id=END,
        bos_token_id=1,
        eos_token_id=2,
    )


def save_model(folder: Path) -> Any:
    """The model with random weights, also as safetensors in ``folder``."""
    import torch  # noqa: PLC0415 - only these tests need it
    from transformers import Qwen2_5_VLForConditionalGeneration  # noqa: PLC0415

    torch.manual_seed(5)
    settings = config()
    settings._attn_implementation = "eager"
    model = Qwen2_5_VLForConditionalGeneration(settings).eval()
    for name, parameter in model.named_parameters():
        if ("norm" in name or "ln_q" in name) and name.endswith("weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        else:
            torch.nn.init.normal_(parameter, std=0.05 if parameter.ndim > 1 else 0.2)
    model.save_pretrained(folder)
    return model


def picture(seed: int) -> np.ndarray:
    """A disc, stripes and a gradient; uint8 ``(SIZE, SIZE, 3)``."""
    y, x = np.indices((SIZE, SIZE))
    center = np.random.default_rng(seed).integers(SIZE // 4, 3 * SIZE // 4, 2)
    disc = np.hypot(y - center[0], x - center[1]) < SIZE / 5
    stripes = (x + (seed + 2) * y) // 9 % 2 == 0
    channels = (255 * disc, 200 * stripes + 20 * (seed % 3), 255 * y / (SIZE - 1))
    return np.stack(channels, axis=2).astype(np.uint8)


def pixel_values(image: np.ndarray) -> np.ndarray:
    """What transformers' processor makes of an image: one row for each patch, by squares of four."""
    scaled = (image.astype(np.float32) / 255 - _MEAN) / _DEVIATION
    rows = [
        np.repeat(scaled[y : y + PATCH, x : x + PATCH].transpose(2, 0, 1)[:, None], 2, axis=1)
        for top in range(0, SIZE, 2 * PATCH)
        for left in range(0, SIZE, 2 * PATCH)
        for y in (top, top + PATCH)
        for x in (left, left + PATCH)
    ]
    return np.stack(rows).reshape(len(rows), -1)


class VisionCase(Comparison):
    """A built model and its reference, which has the weights that are shipped."""

    def __init__(self, built: Built, model: Any) -> None:
        import torch  # noqa: PLC0415

        super().__init__(FLOAT32)
        self._torch = torch
        self.engine = built.engine
        self._model = model
        self._pictures: dict[int, EmbeddedImage] = {}
        state = model.state_dict()
        with torch.no_grad():
            for name, values in built.weights.items():
                state[_wrapped(name)].copy_(torch.from_numpy(values))

    def image(self, seed: int) -> EmbeddedImage:
        """The embeddings of a picture, by the library."""
        if seed not in self._pictures:
            self._pictures[seed] = self.engine.embed_image(picture(seed))
        return self._pictures[seed]

    def reference_image(self, seed: int) -> np.ndarray:
        """The embeddings of a picture, by the reference; ``(tokens, hidden)``."""
        torch = self._torch
        with torch.inference_mode():
            found = self._model.model.get_image_features(
                torch.from_numpy(pixel_values(picture(seed))), self._grid(1)
            )
        array: np.ndarray = found.pooler_output[0].numpy()
        return array

    def tokens(self, prompt: list[int | str]) -> list[Token]:
        """Ids as they are; ``"7"`` is the picture with this number between its two tokens."""
        made: list[Token] = []
        for item in prompt:
            if isinstance(item, int):
                made.append(item)
            else:
                made += [START, *self.image(int(item)).tokens(), END]
        return made

    def reference(self, prompt: list[int | str]) -> np.ndarray:
        """Logits after every token."""
        torch = self._torch
        seeds = [int(item) for item in prompt if isinstance(item, str)]
        tokens = self.tokens(prompt)
        ids = torch.tensor([[IMAGE if isinstance(t, ImageToken) else t for t in tokens]])
        images: dict[str, Any] = {}
        if seeds:
            pixels = np.concatenate([pixel_values(picture(seed)) for seed in seeds])
            images = {
                "pixel_values": torch.from_numpy(pixels),
                "image_grid_thw": self._grid(len(seeds)),
                "mm_token_type_ids": (ids == IMAGE).int(),
            }
        self._model.model.rope_deltas = None
        with torch.inference_mode():
            logits = self._model(ids, use_cache=False, **images).logits[0]
        array: np.ndarray = logits.numpy()
        return array

    def _grid(self, count: int) -> Any:
        return self._torch.tensor([[1, 2 * SIDE, 2 * SIDE]] * count)


def built_case(folder: Path, out: Path, scheme: str) -> VisionCase:
    """Build a model of random weights in a scheme."""
    model = save_model(folder)
    return VisionCase(build(folder, out, scheme=scheme, image_size=SIZE), model)


def _wrapped(name: str) -> str:
    """What transformers calls a checkpoint's tensor once it is loaded."""
    if name.startswith("visual."):
        return f"model.{name}"
    return name.replace("model.", "model.language_model.", 1)
