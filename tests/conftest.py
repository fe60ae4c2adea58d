"""What all tests share."""

from __future__ import annotations

import os

import pytest


# Last, because pytest's own plugin then has a folder for temporary files.
@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let torch's threads sleep while they wait, and name a cache of the run's own where none is named.

    Threads that spin take the processors from other tests, and those of small models do little else.
    edgec says the same before it loads torch; some tests load it first.

    Tests don't write into the user's cache. It is named before tests are collected, which looks for
    tools and installs packages, and before the workers of pytest-xdist are started, so that what one
    of them compiles is there for all.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not os.environ.get("EDGEC_CACHE"):
        os.environ["EDGEC_CACHE"] = str(config._tmp_path_factory.mktemp("cache", numbered=False))  # type: ignore[attr-defined]
        config.add_cleanup(lambda: os.environ.pop("EDGEC_CACHE"))
