"""Is everything there that builds and runs need? What ``edgec doctor`` prints.

Each check says what was found, what is needed and what to do. Read ``check.py`` (the form of a
check), then ``diagnose.py`` (all of them, in order), then one file per subject: ``packages.py``
with ``requirements.py``, ``toolchain.py``, ``machine.py``, ``storage.py`` and ``hub.py``.
"""
