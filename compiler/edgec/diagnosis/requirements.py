"""The packages that edgec needs, as ``pyproject.toml`` declares them; a test compares the two.

They are repeated here because a checkout that was never installed has no metadata to ask.
"""

from __future__ import annotations

PYTHON = (3, 10)

RUNTIME = {
    "apache-tvm": "==0.27.0.post1",
    "apache-tvm-ffi": "==0.1.14.post0",
}
"""Exactly these, as they were tested together."""

LIBRARIES = {
    "click": ">=8.1.7",
    "huggingface_hub": ">=0.30",
    "jinja2": ">=3.1",
    "ml_dtypes": ">=0.5",
    "numpy": ">=1.26",
    "platformdirs": ">=4.2",
    "psutil": ">=5.9",
    "pydantic": ">=2.9",
    "pyyaml": ">=6.0.1",
    "rich": ">=13.7",
    "tokenizers": ">=0.21",
}
"""What the rest of edgec stands on."""

REFERENCE = {
    "torch": ">=2.5",
    "transformers": ">=5.0",
    "safetensors": ">=0.5",
}
"""The extra that artifacts are compared with."""
