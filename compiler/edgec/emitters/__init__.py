"""From scheduled IR to a library file, one platform per file; a target's profile names it.

An emitter is a module with ``emit(mod, target, out) -> Path``.
"""
