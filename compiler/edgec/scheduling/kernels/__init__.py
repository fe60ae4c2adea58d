"""Hand-written TIR, one file per pattern, built from parameters (shapes, layout, vector width)."""

HAND_WRITTEN = "edgec.hand_written"
"""Attribute of the kernels in this folder, by which reports tell them from TVM's."""
