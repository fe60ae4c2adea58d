"""A library of hand-written host functions, and the module through which TVM would call them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.ir.load import load_tvm
from edgec.libraries.device import DeviceModule, KernelInfo
from edgec.standins import toolbox
from edgec.standins.device.hosting import HostFunctions
from edgec.standins.device.launching import Launcher
from edgec.standins.device.sidecar import DeviceMemory, host_functions, stand_in_for
from edgec.standins.guest.process import Guest, Hosting
from edgec.standins.guest.program import guest_program, is_native, runner, wheel_headers

load_tvm()

import tvm  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgec.standins.device.hosting import Observer

SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/runtime/c_backend_api.h>

/* As TVM's generated code reaches the runtime from a shared object. */
__attribute__((weak)) int (*__TVMFFIEnvModLookupFromImports)(void*, const char*, void**);
__attribute__((weak)) void* __tvm_ffi__library_ctx;

#define FUNCTION(name) \
  int __tvm_ffi_##name(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result)
#define TENSOR(i) TVMFFITensorOf(&args[i])

static DLTensor* TVMFFITensorOf(const TVMFFIAny* value) {
  if (value->type_index == kTVMFFITensor) return (DLTensor*)((char*)value->v_ptr + sizeof(TVMFFIObject));
  return value->type_index == kTVMFFIDLTensorPtr ? (DLTensor*)value->v_ptr : NULL;
}
static float* floats(DLTensor* tensor) { return (float*)((char*)tensor->data + tensor->byte_offset); }

FUNCTION(fails) {
  const char* parts[] = {"Mismatched ", NULL, "x.shape[0]"};
  TVMFFIErrorSetRaisedFromCStrParts("ValueError", parts, 3);
  return -1;
}
FUNCTION(fails_silently) { return -1; }
FUNCTION(reads_null) { return *(volatile int*)(intptr_t)(count - 1); }
FUNCTION(leaves) { exit(7); }
FUNCTION(loops) { for (;;) __asm__ volatile("" ::: "memory"); }
FUNCTION(prints) { return printf("printed\n") != 8; }
FUNCTION(overflows) {
  volatile char room[4096];
  room[0] = 1;
  return __tvm_ffi_overflows(self, args, count, result) + room[0];
}
FUNCTION(adds) {
  result->type_index = kTVMFFIInt;
  result->v_int64 = args[0].v_int64 + args[1].v_int64;
  return 0;
}
FUNCTION(halves) {
  result->type_index = kTVMFFIFloat;
  result->v_float64 = args[0].v_float64 / 2;
  return 0;
}
FUNCTION(doubles) {
  DLTensor *x = TENSOR(0), *y = TENSOR(1);
  int64_t n = 1;
  for (int i = x->ndim - 1; i >= 0; --i) {
    if (x->strides && x->strides[i] != n) return -1;
    n *= x->shape[i];
  }
  for (int64_t i = 0; i < n; ++i) floats(y)[i] = 2 * floats(x)[i];
  return 0;
}
FUNCTION(describes) {
  DLTensor* x = TENSOR(0);
  result->type_index = kTVMFFIInt;
  result->v_int64 = x->device.device_type * 1000 + x->device.device_id * 100 + x->dtype.bits;
  return 0;
}
FUNCTION(launches) {
  void* kernels[2];
  TVMFFIAny values[6], none;
  memset(values, 0, sizeof values);
  if (__TVMFFIEnvModLookupFromImports(__tvm_ffi__library_ctx, "scale", &kernels[0])) return -1;
  if (__TVMFFIEnvModLookupFromImports(__tvm_ffi__library_ctx, "shift", &kernels[1])) return -1;
  values[0] = (TVMFFIAny){.type_index = kTVMFFIOpaquePtr, .v_ptr = TENSOR(0)->data};
  values[1] = (TVMFFIAny){.type_index = kTVMFFIOpaquePtr, .v_ptr = TENSOR(1)->data};
  values[2] = (TVMFFIAny){.type_index = kTVMFFIFloat, .v_float64 = 1.5};
  values[3] = (TVMFFIAny){.type_index = kTVMFFIInt, .v_int64 = -3};
  values[4] = (TVMFFIAny){.type_index = kTVMFFIInt, .v_int64 = args[2].v_int64};
  values[5] = (TVMFFIAny){.type_index = kTVMFFIInt, .v_int64 = 64};
  for (int i = 0; i < 2; ++i) {
    if (TVMFFIFunctionCall(kernels[i], values, 6, &none)) return -1;
  }
  return 0;
}
FUNCTION(launches_one) { /* name, address or tensor, extra values */
  void* kernel;
  TVMFFIAny values[8], none;
  const char* names[] = {"unknown", "one"};
  memset(values, 0, sizeof values);
  if (TVMFFIEnvModLookupFromImports(__tvm_ffi__library_ctx, names[args[0].v_int64], &kernel)) return -1;
  values[0].type_index = kTVMFFIOpaquePtr;
  values[0].v_ptr = (char*)TENSOR(1)->data + args[2].v_int64;
  values[1] = args[3];
  values[2] = args[4];
  return TVMFFIFunctionCall(kernel, values, count - 2, &none);
}
FUNCTION(works) { /* device workspace, given to a kernel; host workspace, summed up */
  void* kernel;
  TVMFFIAny values[3], none;
  memset(values, 0, sizeof values);
  unsigned char* bytes = TVMBackendAllocWorkspace(kDLCPU, 0, 1000, kDLUInt, 8);
  result->type_index = kTVMFFIInt;
  result->v_int64 = (intptr_t)bytes % 64 + (bytes[500] == 0);
  TVMBackendFreeWorkspace(kDLCPU, 0, bytes);
  void* memory = TVMBackendAllocWorkspace(kDLOpenCL, 0, 4096, kDLFloat, 32);
  values[0] = (TVMFFIAny){.type_index = kTVMFFIOpaquePtr, .v_ptr = memory};
  values[1] = (TVMFFIAny){.type_index = kTVMFFIInt, .v_int64 = 1};
  values[2] = values[1];
  if (TVMFFIEnvModLookupFromImports(__tvm_ffi__library_ctx, "one", &kernel)) return -1;
  if (TVMFFIFunctionCall(kernel, values, 3, &none)) return -1;
  return TVMBackendFreeWorkspace(kDLOpenCL, 0, memory);
}
static int task(int id, TVMParallelGroupEnv* group, void* data) {
  float* out = data;
  for (int i = id; i < 8; i += group->num_task) out[i] = (float)(10 * group->num_task + id);
  return 0;
}
static int waits(int id, TVMParallelGroupEnv* group, void* data) {
  return TVMBackendParallelBarrier(id, group);
}
FUNCTION(tasks) { return TVMBackendParallelLaunch(task, floats(TENSOR(0)), (int)args[1].v_int64); }
FUNCTION(barrier) { return TVMBackendParallelLaunch(waits, NULL, (int)args[0].v_int64); }
static int made;
static int make(void** out) { *out = &made; return 0; }
FUNCTION(initializes) {
  static void* handle;
  result->type_index = kTVMFFIInt;
  if (TVMFFIHandleInitOnce(&handle, make) || TVMFFIHandleInitOnce(&handle, NULL)) return -1;
  result->v_int64 = handle == &made;
  return 0;
}
#ifdef __aarch64__
FUNCTION(dots) { /* an instruction of the dotprod extension */
  __asm__ volatile(".inst 0x4e829420 /* sdot v0.4s, v1.16b, v2.16b */" ::: "v0");
  return 0;
}
FUNCTION(multiplies) { /* one of the i8mm extension */
  __asm__ volatile(".inst 0x4e82a420 /* smmla v0.4s, v1.16b, v2.16b */" ::: "v0");
  return 0;
}
#endif
"""
KERNELS = {
    "scale": KernelInfo(
        "scale",
        ("handle", "handle", "float32", "int32"),
        ("blockIdx.x", "threadIdx.x"),
    ),
    "shift": KernelInfo(
        "shift",
        ("handle", "handle", "float32", "int32"),
        ("blockIdx.x", "threadIdx.x"),
    ),
    "one": KernelInfo("one", ("handle",), ("blockIdx.x", "threadIdx.x")),
}
CPU = 1
_ONLY_ARM = ("FUNCTION(dots)", "FUNCTION(multiplies)")


@dataclass(frozen=True)
class HandMade:
    """What is used of a library here."""

    path: Path
    machine: str
    prefix: str
    host_functions: tuple[str, ...]

    @staticmethod
    def host_symbol(function: str) -> str:
        return f"__tvm_ffi_{function}"


class Recorder:
    """Notes launches instead of executing them."""

    def __init__(self) -> None:
        self.launches: list[tuple[str, tuple[int | float, ...], list[int], dict[int, int]]] = []

    def launch(
        self,
        name: str,
        arguments: Sequence[int | float],
        extents: Sequence[int],
        sizes: Mapping[int, int],
    ) -> None:
        self.launches.append((name, tuple(arguments), list(extents), dict(sizes)))


def build(folder: Path, machine: str) -> HandMade:
    """Compile the functions for a machine."""
    compiler = toolbox.cxx() if is_native(machine) else toolbox.cross_cxx(machine)
    source, library = folder / f"{machine}.c", folder / f"{machine}.so"
    source.write_text(SOURCE)
    headers = [f"-I{path}" for path in wheel_headers()]
    flags = ["-x", "c", "-std=gnu11", "-O1", "-fno-optimize-sibling-calls", "-fPIC", "-c"]
    objects = str(library.with_suffix(".o"))
    subprocess.run([compiler, *flags, *headers, str(source), "-o", objects], check=True)
    subprocess.run([compiler, "-shared", objects, "-o", str(library)], check=True)
    names = [
        line.partition("(")[2].partition(")")[0]
        for line in SOURCE.splitlines()
        if line.startswith("FUNCTION(") and (machine == "aarch64" or not line.startswith(_ONLY_ARM))
    ]
    return HandMade(library, machine, "", tuple(names))


class Hosted:
    """A module of the hand-written functions."""

    def __init__(
        self,
        library: HandMade,
        kind: str = "opencl",
        cpu: str | None = None,
        observer: Observer | None = None,
        limits: Mapping[str, int] | None = None,
        poisoned: bool = False,
    ) -> None:
        self.library = library
        self.memory = DeviceMemory()
        self.program = Recorder()
        self.device = stand_in_for(kind, poisoned=poisoned)
        shared = kind == "ext_dev"
        number = self.device.dlpack_device_type()
        seen_as = CPU if shared else number
        arena = (self.memory.descriptor, self.memory.start) if shared else None
        self.guest = Guest(
            guest_program(library.machine),
            runner(library.machine, cpu, ()),
            Hosting(library.path, library.path, "", seen_as, 3, arena),
        )
        module = DeviceModule("opencl" if shared else kind, "", KERNELS, {"": b""})
        functions: Any = HostFunctions(
            library,  # type: ignore[arg-type]
            self.guest,
            self.memory,
            Launcher(module, self.program, limits or {}),
            observer,
        )
        self._module = host_functions(
            library.host_functions, "m_", functions.answer, number, seen_as
        )

    def __call__(self, name: str, *arguments: Any) -> Any:
        return self._module.get_function(name)(*arguments)

    def tensor(self, array: Any) -> Any:
        return tvm.runtime.tensor(array, self.device)
