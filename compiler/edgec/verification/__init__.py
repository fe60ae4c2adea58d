"""Does the artifact compute what the model says, and how much does quantization cost?

Three models are compared on the same text: the original one and the one with the shipped weights,
both run by transformers in float32, and the artifact. The difference of the last two is the
compiler's, of the first two the quantizer's.

Read in this order: ``interfaces`` (what is compared), ``text`` (on what), ``figures`` and
``statistics`` (how), ``tolerance`` (how much rounding explains), ``reference`` (transformers),
``steps`` and ``paths`` (prefill, decode and batches must agree), ``run`` (all of it, as a report),
``verdict`` (is that good enough?) and ``golden`` with ``golden_file`` (a check that needs no torch).

Of libraries for other devices each kernel is checked alone too: ``built`` (a library and its stand-in),
``kernels`` beside ``kernel_references`` while ``exercise`` calls all of them, ``sampling``. ``repeat``
does all of this again for a finished artifact, and ``machine_code`` ties CUDA's to its text.
"""
