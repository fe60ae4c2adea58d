"""Settings of the Hugging Face hub. Values of tokens are never shown."""

from __future__ import annotations

import os

from edgec.diagnosis.check import Check

_TRUE = {"1", "ON", "YES", "TRUE"}


def check_hub() -> Check:
    """May models be fetched, and private ones too?"""
    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
    needed = "HF_TOKEN only for private and gated models"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        return Check(
            "hub",
            "warning",
            f"HF_HUB_OFFLINE forbids downloads; {token}",
            needed,
            "unset HF_HUB_OFFLINE to fetch models that aren't in the local cache",
        )
    endpoint = os.environ.get("HF_ENDPOINT")
    mirror = f"; HF_ENDPOINT is {endpoint}" if endpoint else ""
    return Check("hub", "ok", f"{token}{mirror}", needed)
