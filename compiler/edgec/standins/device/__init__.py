"""The rest of a device, in this process: its memory, and TVM's virtual machine on it.

``src/`` is compiled against the headers in TVM's wheels: memory in which a device's tensors live
(the arena), and functions of the library that Python answers. ``hosting.py`` puts both together
with a guest: bytecode runs here, host functions run in the guest, kernels where a launcher runs
them.
"""
