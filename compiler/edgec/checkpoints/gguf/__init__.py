"""GGUF files: the one-file checkpoints of llama.cpp, read as the model that they were made from.

Read in this order: ``checkpoint.py`` (tensors by their Hugging Face names, rows in their order),
``architectures.py`` (what each kind of file does with a model), ``names.py`` and ``orders.py`` (which
tensor is which, and where its rows are), ``config.py`` with ``families.py``, ``rope.py`` and
``fields.py`` (from metadata to ``config.json``),
``tokenizer.py``, ``file.py`` with ``header.py``, ``values.py`` and ``types.py`` (one file),
``blocks.py`` and ``superblocks.py`` (from blocks of codes to float32), ``find.py`` (which file a
path means).
"""
