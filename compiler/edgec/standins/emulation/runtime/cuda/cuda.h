// The part of CUDA C++ that TVM's kernels use, on top of emu.h: what nvcc has built in, and <cuda.h>.
// `threadIdx` and its kin are variables that the translated kernel begins with.
#pragma once

#include <math.h>

#include <utility>

#include "emu.h"

// CUDA 12.6 and Jetson Orin: what the text asks when it decides which functions to define itself.
#define __CUDACC_VER_MAJOR__ 12
#define __CUDACC_VER_MINOR__ 6
#define __CUDA_ARCH__ 870

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static EMU_SHARED
#define __align__(n) __attribute__((aligned(n)))
// nvcc takes alignas after `__shared__`, the standard doesn't.
#define alignas(n) __attribute__((aligned(n)))

#include "cuda_vectors.h"

#include "cuda_math.h"
#include "cuda_warp.h"
#include "sm_61_intrinsics.h"

namespace shim {

// The launch has no more threads than `__launch_bounds__` promised; CUDA refuses it otherwise.
EMU_UNCHECKED void within_launch_bounds(uint32_t threads) {
  const emu::Dim size = emu::group_size();
  if (size.x * size.y * size.z > threads)
    emu::trap("the launch has more threads than the kernel's __launch_bounds__");
}

template <class Declared, class T>
constexpr bool kSameKind = std::is_same_v<Declared, void*>
                               ? std::is_pointer_v<T>
                               : sizeof(Declared) == sizeof(T) &&
                                     std::is_floating_point_v<Declared> ==
                                         std::is_floating_point_v<T>;

// Calls a kernel with a launch's arguments, whose types are those of the module's table.
template <class... Declared, class... Parameter>
EMU_INLINE void call(void (*kernel)(Parameter...), const uint64_t* arguments) {
  static_assert(sizeof...(Declared) == sizeof...(Parameter),
                "the kernel has another number of parameters than the module's table says");
  static_assert((kSameKind<Declared, Parameter> && ...),
                "a parameter's type isn't what the module's table says");
  [&]<size_t... i>(std::index_sequence<i...>) {
    kernel(emu::argument<Parameter>(arguments, i)...);
  }(std::index_sequence_for<Parameter...>());
}

}  // namespace shim
