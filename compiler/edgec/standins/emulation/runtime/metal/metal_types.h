// Scalars, vectors, conversions between them, and pointers with an address space.
#pragma once

using half = _Float16;
using uchar = unsigned char;
using ushort = unsigned short;
using uint = unsigned int;
using ulong = unsigned long;

constexpr half operator""h(long double value) { return static_cast<half>(value); }

// There are no vectors of bool: TVM writes none for Metal, and a comparison of clang's vectors
// gives -1 for true, where Metal's converts to 1.
#define METAL_VECTORS(T)                                    \
  typedef T T##2 __attribute__((ext_vector_type(2)));       \
  typedef T T##3 __attribute__((ext_vector_type(3)));       \
  typedef T T##4 __attribute__((ext_vector_type(4)));
METAL_VECTORS(half)
METAL_VECTORS(float)
METAL_VECTORS(char)
METAL_VECTORS(uchar)
METAL_VECTORS(short)
METAL_VECTORS(ushort)
METAL_VECTORS(int)
METAL_VECTORS(uint)
METAL_VECTORS(long)
METAL_VECTORS(ulong)
#undef METAL_VECTORS

namespace metal {

// Elements of a scalar (1) or a vector.
template <class T>
struct Shape {
  using Element = T;
  static constexpr int kLength = 1;
};
template <class T, int N>
struct Shape<T __attribute__((ext_vector_type(N)))> {
  using Element = T;
  static constexpr int kLength = N;
};
template <class T>
concept Scalar = Shape<T>::kLength == 1;
template <class T>
concept Vector = Shape<T>::kLength > 1;

// `To(parts...)` as Metal means it: one scalar fills the vector, one vector is converted element
// by element, several are strung together.
template <Vector To, class From>
EMU_INLINE To construct(From part) {
  if constexpr (Scalar<From>) {
    return To(static_cast<typename Shape<To>::Element>(part));
  } else {
    static_assert(Shape<From>::kLength == Shape<To>::kLength,
                  "a vector can't be converted to one of another length");
    return __builtin_convertvector(part, To);
  }
}
template <Vector To, class... From>
  requires(sizeof...(From) > 1)
EMU_INLINE To construct(From... parts) {
  static_assert((Shape<From>::kLength + ...) == Shape<To>::kLength,
                "a vector needs as many elements as it has");
  To result;
  int next = 0;
  const auto append = [&](auto part) {
    using Element = typename Shape<To>::Element;
    if constexpr (Scalar<decltype(part)>) {
      result[next++] = static_cast<Element>(part);
    } else {
      for (int i = 0; i < Shape<decltype(part)>::kLength; ++i)
        result[next++] = static_cast<Element>(part[i]);
    }
  };
  (append(parts), ...);
  return result;
}

template <class To, class From>
EMU_INLINE To as_type(From value) {
  static_assert(sizeof(To) == sizeof(From), "as_type needs types of one size");
  return __builtin_bit_cast(To, value);
}

// Which memory a pointee lies in.
enum class Space { kThread, kDevice, kThreadgroup, kConstant };
template <class T>
constexpr Space kSpace = Space::kThread;
template <class T>
constexpr Space kSpace<const T> = kSpace<T>;
template <class T>
constexpr Space kSpace<volatile T> = kSpace<T>;
template <class T>
constexpr Space kSpace<const volatile T> = kSpace<T>;
template <class T>
constexpr Space kSpace<__attribute__((opencl_global)) T> = Space::kDevice;
template <class T>
constexpr Space kSpace<const __attribute__((opencl_global)) T> = Space::kDevice;
template <class T>
constexpr Space kSpace<volatile __attribute__((opencl_global)) T> = Space::kDevice;
template <class T>
constexpr Space kSpace<__attribute__((opencl_local)) T> = Space::kThreadgroup;
template <class T>
constexpr Space kSpace<const __attribute__((opencl_local)) T> = Space::kThreadgroup;
template <class T>
constexpr Space kSpace<volatile __attribute__((opencl_local)) T> = Space::kThreadgroup;
template <class T>
constexpr Space kSpace<const __attribute__((opencl_constant)) T> = Space::kConstant;

// `(To)pointer`: clang lets a cast change the address space, Metal doesn't.
template <class To, class From>
EMU_INLINE To cast_pointer(From* pointer) {
  static_assert(kSpace<std::remove_pointer_t<To>> == kSpace<From>,
                "a cast can't move a pointer to another address space");
  return (To)pointer;
}

// A position of one, two or three dimensions, as a kernel's parameter asks for it.
template <class T>
EMU_INLINE T position(emu::Dim at) {
  if constexpr (Scalar<T>)
    return at.x;
  else if constexpr (Shape<T>::kLength == 2)
    return T{at.x, at.y};
  else
    return T{at.x, at.y, at.z};
}

}  // namespace metal
