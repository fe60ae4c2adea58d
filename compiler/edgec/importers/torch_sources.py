"""Torch modules that a user brings: an exported program, or a function that makes a module."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edgec.errors import CheckpointError, UnsupportedModelError, UsageError
from edgec.importers.declared import declared_signature
from edgec.importers.imported import Signature, TensorType
from edgec.importers.pt2_archive import check_archive
from edgec.importers.torch_model import TorchModel, tensor_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def open_program(
    path: Path, *, declared: Sequence[TensorType], bounds: Mapping[str, int]
) -> TorchModel:
    """A ``.pt2`` file of ``torch.export.save``.

    Sizes that were exported as varying are declared with names, or are called ``dim``, ``dim_1``
    and so on in order of their first use.

    Raises:
        CheckpointError: it is missing, damaged, or has anything in it that could run code.
        UsageError: what is declared doesn't fit the program.
    """
    check_archive(path)
    try:
        program = torch.export.load(str(path))
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(
            f"torch can't read it: {type(error).__name__}: {str(error)[:300]}",
            where=str(path),
            remedy="write it with torch.export.save of the same torch version",
        ) from error
    own, symbols = _exported_signature(program, str(path))
    signature = declared_signature(own, declared, bounds)
    for item, before in zip(signature.inputs, own.inputs, strict=True):
        _check_exported(item, before, symbols)
    return TorchModel(
        program.module(check_guards=False), signature, where=str(path), program=program
    )


def open_function(
    source: str, *, declared: Sequence[TensorType], bounds: Mapping[str, int]
) -> TorchModel:
    """A function of a Python file, which is run: ``my_model.py:make``.

    It returns a module and example inputs, and if it likes also which sizes vary: for each input
    a dictionary from axis to ``torch.export.Dim``. Inputs are a dictionary by name or a sequence
    in the order of the module's arguments.

    Raises:
        UsageError: no such file or function, or something else comes back.
    """
    file, _, name = source.rpartition(":")
    where = f"torch:{source}"
    made = _call(Path(file), name, where)
    parts = made if isinstance(made, tuple) else (made,)
    if len(parts) not in (2, 3) or not isinstance(parts[0], torch.nn.Module):
        raise UsageError(
            f"{name} returned {type(made).__name__}",
            where=where,
            remedy="return the module, its example inputs and, if sizes vary, which",
        )
    module, arguments = parts[0], _named(parts[0], parts[1], where)
    varying = parts[2] if len(parts) == 3 else {}
    own = _example_signature(arguments, varying, where)
    signature = declared_signature(own, declared, bounds)
    return TorchModel(module.eval().float(), signature, where=where)


def _call(file: Path, name: str, where: str) -> Any:
    if not file.is_file():
        raise UsageError(
            "the file is missing", where=str(file), remedy="write torch:FILE.py:FUNCTION"
        )
    spec = importlib.util.spec_from_file_location(f"edgec_source_{file.stem}", file)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        function = getattr(module, name, None)
        made = function() if callable(function) else None
    except Exception as error:  # whatever the user's code raises
        raise UsageError(
            f"the code raised {type(error).__name__}: {str(error)[:300]}", where=where
        ) from error
    if not callable(function):
        raise UsageError(f"there is no function {name!r}", where=str(file))
    return made


def _named(module: torch.nn.Module, examples: Any, where: str) -> dict[str, torch.Tensor]:
    names = list(inspect.signature(module.forward).parameters)
    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if isinstance(examples, dict):
        ordered = {name: examples[name] for name in names if name in examples}
        whole = len(ordered) == len(examples) and list(ordered) == names[: len(ordered)]
    else:
        ordered = dict(zip(names, examples, strict=False))
        whole = len(ordered) == len(examples)
    if not whole or not all(isinstance(value, torch.Tensor) for value in ordered.values()):
        raise UsageError(
            "the example inputs aren't tensors for the first arguments of the module's forward",
            where=where,
            remedy=f"its arguments are {', '.join(names)}",
        )
    return ordered


def _example_signature(
    arguments: Mapping[str, torch.Tensor], varying: Any, where: str
) -> Signature:
    if not isinstance(varying, dict):
        varying = dict(zip(arguments, varying, strict=False))
    inputs: list[TensorType] = []
    bounds: dict[str, int] = {}
    for name, tensor in arguments.items():
        own = tensor_type(name, tensor)
        sizes: list[int | str] = list(own.shape)
        for axis, dim in (varying.get(name) or {}).items():
            if not hasattr(dim, "__name__") or not isinstance(getattr(dim, "max", None), int):
                raise UsageError(
                    f"size {axis} of {name} is said to vary by {dim!r}",
                    where=where,
                    remedy='use torch.export.Dim("name", max=...)',
                )
            sizes[axis] = dim.__name__
            bounds[dim.__name__] = int(dim.max)
        inputs.append(TensorType(name, tuple(sizes), _at_interface(own.dtype)))
    return Signature(tuple(inputs), bounds)


def _at_interface(dtype: str) -> str:
    """The type that an input of the compiled model has."""
    return {"int64": "int32", "float64": "float32"}.get(dtype, dtype)


def _exported_signature(program: Any, where: str) -> tuple[Signature, set[str]]:
    users = set(program.graph_signature.user_inputs)
    names: dict[str, str] = {}
    inputs: list[TensorType] = []
    bounds: dict[str, int] = {}
    for node in program.graph.find_nodes(op="placeholder"):
        if node.name not in users:
            continue
        value = node.meta["val"]
        if not isinstance(value, torch.Tensor):
            raise UnsupportedModelError(
                f"the input {node.name} is no tensor", where=where, remedy="make it a constant"
            )
        sizes: list[int | str] = []
        for size in value.shape:
            if not isinstance(size, torch.SymInt):
                sizes.append(int(size))
                continue
            symbol = size.node.expr
            if not symbol.is_symbol:
                raise UnsupportedModelError(
                    f"a size of the input {node.name} is {symbol}",
                    where=where,
                    remedy="export it with sizes that vary by themselves",
                )
            name = names.setdefault(str(symbol), f"dim_{len(names)}" if names else "dim")
            sizes.append(name)
            limit = program.range_constraints[symbol].upper
            if limit.is_integer and limit.is_finite:
                bounds[name] = int(limit)
        dtype = str(value.dtype).removeprefix("torch.")
        inputs.append(TensorType(node.name, tuple(sizes), _at_interface(dtype)))
    return Signature(tuple(inputs), bounds), set(names.values())


def _check_exported(item: TensorType, before: TensorType, symbols: set[str]) -> None:
    for axis, (size, own) in enumerate(zip(item.shape, before.shape, strict=True)):
        if (own in symbols) != isinstance(size, str) or (isinstance(own, int) and own != size):
            raise UsageError(
                f"size {axis} is {size!r}, it was exported as {own!r}",
                where=f"inputs.{item.name}",
                remedy="export the program with the sizes that are to vary",
            )
