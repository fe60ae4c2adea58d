"""Where kernels come from: hand-written TIR for a pattern (``kernels``), else a rule (``rules``).

``report`` counts which source each kernel of a build came from.
"""
