"""From a checkpoint's floats to codes and scales, once for all targets.

Read in this order: ``schemes`` (how a tensor is stored, as data), ``plan`` (which tensor gets
which scheme), ``tensors`` (what a quantizer returns), ``methods`` (one file per quantizer),
``nibbles`` and ``store`` (the form on disk), ``writer`` and ``reader``, and ``run``, which
streams a whole checkpoint through a method.
"""
