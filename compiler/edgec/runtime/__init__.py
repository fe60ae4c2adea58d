"""Run a finished artifact on this machine: the reference consumer of what edgec emits.

``weights`` maps the shards, ``engine`` holds a loaded library with its KV cache, ``sampling``
and ``generate`` turn logits into text, ``tokenizer`` wraps the tokenizer and the chat template.
"""
