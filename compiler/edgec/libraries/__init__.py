"""What is inside a compiled model library: read it, write it, without TVM and without a linker.

Read ``open.py`` first: it finds, in a shared object, an archive or a tar, the parts that TVM put
there. Those are the blob (``blob.py``) with the bytecode (``bytecode.py``) and the device module
(``device.py``), and host functions in object files (``objects.py``, of the formats ``elf.py`` and
``macho.py``). ``ar.py`` and ``tarball.py`` write containers whose bytes depend on nothing but their
members. ``facts.py`` sums a library up.

Every reader treats its input as damaged until shown otherwise: it ends, and answers damage with a
``VerificationError``.
"""
