"""How a model says that a kernel may write its result over what it reads."""

from __future__ import annotations

IN_PLACE = "edgec.in_place"
"""Attribute of a PrimFunc with one input and one output of the same type, which nothing else reads."""
