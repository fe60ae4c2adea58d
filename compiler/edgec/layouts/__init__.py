"""Weights in the form that a runtime reads: packing, and the files of a weight folder.

Read in this order: ``specs`` (the tensors of a folder, as data), ``find`` (what a layout is), ``mlc``
(codes to 32-bit words, row by row, and back) and ``dot4`` (tiles of rows for CPUs), ``parts`` (tables
larger than a device's buffers), ``shards`` (which tensor lies where), ``shard_writer`` and
``tensor_cache`` (writing and reading a folder), ``pack`` (a quantized checkpoint into a folder) and
``unpack`` (back to floats).

A layout is a pure function of codes and scales with an exact inverse: every runtime gets the same
numbers.
"""
