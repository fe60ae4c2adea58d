"""What a model is, and what it would take, before any of its weights is read.

Read ``find.py`` (what the user means: a model, an artifact or a library), then ``model.py`` (the
report on a model), which puts together ``facts.py`` (its config), ``sizes.py`` (every quantization
scheme) and ``weights.py`` (headers and index). ``library.py`` is the report on a library.
"""
