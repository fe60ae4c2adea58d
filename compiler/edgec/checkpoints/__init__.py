"""Model weights as they come: where they are, what is in them, and rows of them as float32.

A checkpoint is a ``config.json`` and named tensors. Weights are read by ranges of rows, so that
no model, and no tensor, is ever whole in memory. Only safetensors is read: pickle files can run
code and are refused.

Read in this order: ``checkpoint.py`` (the interface), ``open.py`` (from a recipe's source to a
checkpoint), ``folder.py`` with ``index.py`` (a model folder), ``safetensors_file.py`` with
``safetensors_header.py`` and ``dtypes.py`` (one file), ``hub.py`` with
``hub_digests.py`` and ``hub_patience.py`` (downloads), ``synthetic.py``
(random weights without a file), ``check.py`` (do the tensors fit the model?).
"""

from edgec.checkpoints.check import check_parameters
from edgec.checkpoints.checkpoint import Checkpoint, TensorInfo
from edgec.checkpoints.code_forms import code_forms, expected_forms
from edgec.checkpoints.codes import CodesForm
from edgec.checkpoints.folder import tokenizer_files
from edgec.checkpoints.open import ModelSource, open_checkpoint, open_source

__all__ = [
    "Checkpoint",
    "CodesForm",
    "ModelSource",
    "TensorInfo",
    "check_parameters",
    "code_forms",
    "expected_forms",
    "open_checkpoint",
    "open_source",
    "tokenizer_files",
]
