// CUDA's vector types, with its alignments.
#pragma once

#define CUDA_VECTOR1(NAME, T)           \
  struct NAME##1 {                      \
    T x;                                \
  };                                    \
  inline NAME##1 make_##NAME##1(T x) { return {x}; }
#define CUDA_VECTOR2(NAME, T, ALIGN)    \
  struct alignas(ALIGN) NAME##2 {       \
    T x, y;                             \
  };                                    \
  inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }
#define CUDA_VECTOR3(NAME, T)           \
  struct NAME##3 {                      \
    T x, y, z;                          \
  };                                    \
  inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }
#define CUDA_VECTOR4(NAME, T, ALIGN)    \
  struct alignas(ALIGN) NAME##4 {       \
    T x, y, z, w;                       \
  };                                    \
  inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define CUDA_VECTORS(NAME, T, ALIGN2, ALIGN4) \
  CUDA_VECTOR1(NAME, T)                       \
  CUDA_VECTOR2(NAME, T, ALIGN2)               \
  CUDA_VECTOR3(NAME, T)                       \
  CUDA_VECTOR4(NAME, T, ALIGN4)

CUDA_VECTORS(char, signed char, 2, 4)
CUDA_VECTORS(uchar, unsigned char, 2, 4)
CUDA_VECTORS(short, short, 4, 8)
CUDA_VECTORS(ushort, unsigned short, 4, 8)
CUDA_VECTORS(int, int, 8, 16)
CUDA_VECTORS(uint, unsigned int, 8, 16)
CUDA_VECTORS(long, long, 16, 16)
CUDA_VECTORS(ulong, unsigned long, 16, 16)
CUDA_VECTORS(longlong, long long, 16, 16)
CUDA_VECTORS(ulonglong, unsigned long long, 16, 16)
CUDA_VECTORS(float, float, 8, 16)
CUDA_VECTORS(double, double, 16, 16)

#undef CUDA_VECTORS
#undef CUDA_VECTOR4
#undef CUDA_VECTOR3
#undef CUDA_VECTOR2
#undef CUDA_VECTOR1
