"""What a build leaves behind: its folder, its manifest, and the chat config that engines read.

Read ``layout.py`` first (where things are), then ``assemble.py`` with ``manifest.py`` (writing an
artifact) and ``artifact.py`` (opening one). ``chat_config.py`` makes ``mlc-chat-config.json`` from
``conversation.py`` (chat templates, kept in ``conversations/``), ``recognize.py`` (which of them a
tokenizer wants), ``tokenizer_files.py``, ``tokenizer_info.py`` and ``special_ids.py``.
``library_metadata.py`` is what a library says of itself; ``web_program.py`` is what WebLLM compares.
"""
