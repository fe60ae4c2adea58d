"""Time of each step from a model's config to a library, for several numbers of layers.

    python benchmarks/compile_time.py benchmarks/shapes/llama-3.2-1b.json --layers 2 16

Every number of layers runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import machine


def measure(config: dict[str, Any], scheme_name: str) -> dict[str, float]:
    """Seconds by step, each including nothing but itself."""
    seconds: dict[str, float] = {}
    clock = time.perf_counter
    started = clock()

    def lap(name: str) -> None:
        nonlocal started
        seconds[name] = clock() - started
        started = clock()

    from edgec.ir.load import load_tvm  # noqa: PLC0415 - loading is the first step

    load_tvm()
    import tvm  # noqa: PLC0415

    from edgec.emitters import cpu  # noqa: PLC0415
    from edgec.emitters.spec import LibrarySpec  # noqa: PLC0415
    from edgec.layouts.find import find_layout  # noqa: PLC0415
    from edgec.models.causal_lm import apply_schemes, parameters_of  # noqa: PLC0415
    from edgec.models.find import load_family  # noqa: PLC0415
    from edgec.passes import pipeline  # noqa: PLC0415
    from edgec.progress import Silent  # noqa: PLC0415
    from edgec.quantization.plan import tensor_schemes  # noqa: PLC0415
    from edgec.quantization.schemes import find_scheme  # noqa: PLC0415
    from edgec.target import load_target  # noqa: PLC0415

    lap("load TVM and edgec")
    family, scheme, profile = load_family(config), find_scheme(scheme_name), load_target("host")
    model = family.build(family.Config.from_hf(config), scheme.dtype)
    parameters = parameters_of(model)
    schemes = tensor_schemes(parameters, scheme, 32)
    apply_schemes(model, schemes)
    mod, _ = model.export_tvm(spec=model.export_spec())
    lap("import")
    whole = find_layout(profile.layout).tensors(parameters, schemes, scheme.dtype)
    stored = {
        index: (spec.shape, spec.dtype)
        for index, spec in enumerate(whole)
        if schemes[spec.parameter] is not None
    }
    target = tvm.target.Target(dict(profile.tvm))
    lowering = pipeline.Lowering(
        cache=model.cache_spec,
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        dtype=model.dtype,
        prefill_chunk=512,
        max_batch_size=4,
        stored_weights=stored,
        vector_bits=profile.vector_bits or 128,
    )
    for name, passes in pipeline.cpu_phases(lowering, target):
        mod = pipeline.apply(mod, passes, target)
        lap(name)
    mod = pipeline.apply(mod, pipeline.plan_passes() + pipeline.machine_passes(), target)
    lap("4-runtime")
    with tempfile.TemporaryDirectory() as folder:
        spec = LibrarySpec("model", profile.library.forms, profile.library.page_bytes)
        cpu.emit(mod, target, Path(folder), spec, Silent())
    lap("machine code and link")
    return seconds


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 16])
    parser.add_argument("--scheme", default="q4f16_1")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    config = json.loads(arguments.config.read_text())
    if arguments.child:
        config["num_hidden_layers"] = arguments.layers[0]
        print(json.dumps(measure(config, arguments.scheme)))
        return
    columns = []
    for layers in arguments.layers:
        command = [sys.executable, __file__, str(arguments.config), "--child"]
        command += ["--layers", str(layers), "--scheme", arguments.scheme]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        columns.append(json.loads(done.stdout.splitlines()[-1]))
    print(machine())
    print(f"{'seconds':24s}" + "".join(f"{n:>6d} layers" for n in arguments.layers))
    for name in columns[0]:
        print(f"{name:24s}" + "".join(f"{column[name]:13.2f}" for column in columns))
    print(f"{'total':24s}" + "".join(f"{sum(column.values()):13.2f}" for column in columns))


if __name__ == "__main__":
    main()
