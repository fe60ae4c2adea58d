"""From scheduled IR to the files of a library, one platform per module; a target's profile names it.

A platform's module has ``emit(mod, target, out, spec, progress) -> Emitted`` (``spec.py``). They
share ``machine_code.py`` (TVM's code generation, once for all forms), ``elf.py`` (the files of Linux
and Android) and ``linking.py``. ``toolchain.py`` finds the programs, without loading TVM.
"""
