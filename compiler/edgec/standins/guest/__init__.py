"""A library's host code, run as it ships by a small program that speaks to this process.

The program (C, ``src/``) loads the library with the system's dynamic linker, calls one function at
a time as TVM's runtime would, and sends back what the function did: kernels it launched, its
result, or the error it raised. ``src/protocol.h`` defines the messages. ``program.py`` compiles it
for the library's processor, ``image.py`` makes a shared object of libraries that aren't one.
"""
