"""edgec turns one recipe into deployable model libraries for every edge device.

Read in this order: ``recipe`` and ``target`` (what the user writes), ``pipeline`` (stages,
digests, the store), ``stages`` (one file per stage), then what the stages use: ``checkpoints``,
``quantization``, ``models``, ``passes``, ``scheduling``, ``emitters``, ``layouts``,
``verification``, ``artifacts``; and ``runtime`` (runs a finished artifact), ``cli`` (arguments
and printing only).

Importing this package loads neither TVM nor torch.
"""

__version__ = "0.1.0"
