// OpenCL C's built-in functions for this CPU, in OpenCL C: the compiler gives each overload the
// name that kernels call it by. What is missing here is named by an error of the linker's.
//
// Compiled without the compiler's own declarations (-cl-no-stdinc), which would make definitions
// of the same names ambiguous.
#pragma OPENCL EXTENSION cl_khr_fp16 : enable

#define OVERLOAD __attribute__((overloadable, always_inline))
// Tells the checker itself what it accesses.
#define UNCHECKED __attribute__((overloadable, no_sanitize("kernel-address")))

typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
typedef __SIZE_TYPE__ size_t;

#define VECTORS(T)                                       \
  typedef T T##2 __attribute__((ext_vector_type(2)));    \
  typedef T T##3 __attribute__((ext_vector_type(3)));    \
  typedef T T##4 __attribute__((ext_vector_type(4)));    \
  typedef T T##8 __attribute__((ext_vector_type(8)));    \
  typedef T T##16 __attribute__((ext_vector_type(16)));
VECTORS(char) VECTORS(uchar) VECTORS(short) VECTORS(ushort) VECTORS(int) VECTORS(uint)
VECTORS(long) VECTORS(ulong) VECTORS(half) VECTORS(float) VECTORS(double)

// ---- Work-items: implemented with the engine's header, in work_items.cc.

ulong emu_global_id(uint), emu_local_id(uint), emu_group_id(uint);
ulong emu_global_size(uint), emu_local_size(uint), emu_num_groups(uint);
uint emu_lane(void), emu_subgroup(void), emu_subgroup_size(void), emu_subgroup_count(void);
__attribute__((convergent)) void emu_barrier(uint line), emu_subgroup_barrier(void);
__attribute__((convergent)) ulong emu_shuffle(ulong value, uint source);
void emu_atomic_access(ulong address, uint size);

OVERLOAD size_t get_global_id(uint d) { return emu_global_id(d); }
OVERLOAD size_t get_local_id(uint d) { return emu_local_id(d); }
OVERLOAD size_t get_group_id(uint d) { return emu_group_id(d); }
OVERLOAD size_t get_global_size(uint d) { return emu_global_size(d); }
OVERLOAD size_t get_local_size(uint d) { return emu_local_size(d); }
OVERLOAD size_t get_num_groups(uint d) { return emu_num_groups(d); }
OVERLOAD size_t get_global_offset(uint d) { return 0; }
OVERLOAD uint get_work_dim(void) { return 3; }
OVERLOAD uint get_sub_group_local_id(void) { return emu_lane(); }
OVERLOAD uint get_sub_group_id(void) { return emu_subgroup(); }
OVERLOAD uint get_sub_group_size(void) { return emu_subgroup_size(); }
OVERLOAD uint get_max_sub_group_size(void) { return emu_subgroup_size(); }
OVERLOAD uint get_num_sub_groups(void) { return emu_subgroup_count(); }

__attribute__((convergent)) OVERLOAD void barrier(uint flags) { emu_barrier(0); }
__attribute__((convergent)) OVERLOAD void work_group_barrier(uint flags) { emu_barrier(0); }
__attribute__((convergent)) OVERLOAD void sub_group_barrier(uint flags) { emu_subgroup_barrier(); }
// Between work-items that take turns on one thread, memory is always in order.
OVERLOAD void mem_fence(uint flags) {}
OVERLOAD void read_mem_fence(uint flags) {}
OVERLOAD void write_mem_fence(uint flags) {}

#define SHUFFLE(T, BITS)                                                                         \
  static ulong emu_to_bits_##T(T value) {                                                        \
    union { T value; BITS bits; } all;                                                           \
    all.value = value;                                                                           \
    return all.bits;                                                                             \
  }                                                                                              \
  static T emu_from_bits_##T(ulong bits) {                                                       \
    union { T value; BITS bits; } all;                                                           \
    all.bits = (BITS)bits;                                                                       \
    return all.value;                                                                            \
  }                                                                                              \
  __attribute__((convergent)) OVERLOAD T sub_group_shuffle(T value, uint lane) {                 \
    return emu_from_bits_##T(emu_shuffle(emu_to_bits_##T(value), lane));                         \
  }                                                                                              \
  __attribute__((convergent)) OVERLOAD T sub_group_shuffle_xor(T value, uint mask) {             \
    return sub_group_shuffle(value, emu_lane() ^ mask);                                          \
  }                                                                                              \
  __attribute__((convergent)) OVERLOAD T sub_group_shuffle_up(T value, uint delta) {             \
    return sub_group_shuffle(value, emu_lane() - delta);                                         \
  }                                                                                              \
  __attribute__((convergent)) OVERLOAD T sub_group_shuffle_down(T value, uint delta) {           \
    return sub_group_shuffle(value, emu_lane() + delta);                                         \
  }                                                                                              \
  __attribute__((convergent)) OVERLOAD T intel_sub_group_shuffle(T value, uint lane) {           \
    return sub_group_shuffle(value, lane);                                                       \
  }                                                                                              \
  __attribute__((convergent)) OVERLOAD T sub_group_broadcast(T value, uint lane) {               \
    return sub_group_shuffle(value, lane);                                                       \
  }
SHUFFLE(char, uchar) SHUFFLE(uchar, uchar) SHUFFLE(short, ushort) SHUFFLE(ushort, ushort)
SHUFFLE(int, uint) SHUFFLE(uint, uint) SHUFFLE(long, ulong) SHUFFLE(ulong, ulong)
SHUFFLE(half, ushort) SHUFFLE(float, uint) SHUFFLE(double, ulong)

// ---- Conversions. convert_<type>_rte and _rtz differ from the default only where the default
// does: to floating point it rounds to nearest even, to integers toward zero.

#define CONVERT(TO, FROM)                                                                          \
  OVERLOAD TO convert_##TO(FROM x) { return (TO)x; }                                               \
  OVERLOAD TO##2 convert_##TO##2(FROM##2 x) { return __builtin_convertvector(x, TO##2); }          \
  OVERLOAD TO##3 convert_##TO##3(FROM##3 x) { return __builtin_convertvector(x, TO##3); }          \
  OVERLOAD TO##4 convert_##TO##4(FROM##4 x) { return __builtin_convertvector(x, TO##4); }          \
  OVERLOAD TO##8 convert_##TO##8(FROM##8 x) { return __builtin_convertvector(x, TO##8); }          \
  OVERLOAD TO##16 convert_##TO##16(FROM##16 x) { return __builtin_convertvector(x, TO##16); }
#define CONVERT_TO(TO)                                                                           \
  CONVERT(TO, char) CONVERT(TO, uchar) CONVERT(TO, short) CONVERT(TO, ushort) CONVERT(TO, int)   \
  CONVERT(TO, uint) CONVERT(TO, long) CONVERT(TO, ulong) CONVERT(TO, half) CONVERT(TO, float)    \
  CONVERT(TO, double)
CONVERT_TO(char) CONVERT_TO(uchar) CONVERT_TO(short) CONVERT_TO(ushort) CONVERT_TO(int)
CONVERT_TO(uint) CONVERT_TO(long) CONVERT_TO(ulong) CONVERT_TO(half) CONVERT_TO(float)
CONVERT_TO(double)

#define CONVERT_NAMED(TO, SUFFIX, FROM)                                                            \
  OVERLOAD TO convert_##TO##SUFFIX(FROM x) { return (TO)x; }                                       \
  OVERLOAD TO##2 convert_##TO##2##SUFFIX(FROM##2 x) { return __builtin_convertvector(x, TO##2); }  \
  OVERLOAD TO##4 convert_##TO##4##SUFFIX(FROM##4 x) { return __builtin_convertvector(x, TO##4); }  \
  OVERLOAD TO##8 convert_##TO##8##SUFFIX(FROM##8 x) { return __builtin_convertvector(x, TO##8); }  \
  OVERLOAD TO##16 convert_##TO##16##SUFFIX(FROM##16 x) { return __builtin_convertvector(x, TO##16); }
CONVERT_NAMED(half, _rte, float) CONVERT_NAMED(float, _rte, half)
CONVERT_NAMED(int, _rtz, float) CONVERT_NAMED(int, _rtz, half)

// ---- Reinterpretations. The types of one size, each as each.

#define AS1(TO, FROM) OVERLOAD TO as_##TO(FROM x) { return __builtin_astype(x, TO); }
#define AS_OF(TO, A, B, C, D) AS1(TO, A) AS1(TO, B) AS1(TO, C) AS1(TO, D)
#define AS_ALL(A, B, C, D) \
  AS_OF(A, A, B, C, D) AS_OF(B, A, B, C, D) AS_OF(C, A, B, C, D) AS_OF(D, A, B, C, D)
AS1(char, uchar) AS1(uchar, char) AS1(char, char) AS1(uchar, uchar)
AS1(short, ushort) AS1(short, half) AS1(ushort, short) AS1(ushort, half) AS1(half, short)
AS1(half, ushort)
AS1(int, uint) AS1(int, float) AS1(uint, int) AS1(uint, float) AS1(float, int) AS1(float, uint)
AS1(int, int) AS1(uint, uint) AS1(float, float)
AS_ALL(half2, ushort2, short2, uchar4) AS_ALL(uint2, int2, float2, half4)
AS_ALL(uint4, int4, float4, half8) AS_ALL(uint8, int8, float8, half16)
AS_OF(uint, half2, uchar4, char4, ushort2) AS_OF(int, half2, uchar4, char4, ushort2)
AS1(half2, uint) AS1(uchar4, uint) AS1(char4, uint) AS1(half2, int) AS1(uchar4, int) AS1(char4, int)
AS1(ushort2, uint) AS1(long, ulong) AS1(ulong, long) AS1(long, double) AS1(double, long)
AS1(ulong, double) AS1(double, ulong)

// ---- Loads and stores of vectors that are aligned like their elements.

#define MOVE_N(T, N, SPACE)                                                                   \
  OVERLOAD T##N vload##N(size_t offset, const SPACE T* p) {                                   \
    typedef T##N loose __attribute__((aligned(sizeof(T))));                                   \
    return *(const SPACE loose*)(p + offset * N);                                             \
  }
#define PUT_N(T, N, SPACE)                                                                    \
  OVERLOAD void vstore##N(T##N value, size_t offset, SPACE T* p) {                            \
    typedef T##N loose __attribute__((aligned(sizeof(T))));                                   \
    *(SPACE loose*)(p + offset * N) = value;                                                  \
  }
// A vector of three is as big as one of four: it has to be moved by its elements.
#define MOVE_3(T, SPACE)                                                                      \
  OVERLOAD T##3 vload3(size_t offset, const SPACE T* p) {                                     \
    p += offset * 3;                                                                          \
    return (T##3)(p[0], p[1], p[2]);                                                          \
  }
#define PUT_3(T, SPACE)                                                                       \
  OVERLOAD void vstore3(T##3 value, size_t offset, SPACE T* p) {                              \
    p += offset * 3;                                                                          \
    p[0] = value.x, p[1] = value.y, p[2] = value.z;                                           \
  }
#define LOADS(T, SPACE)                                                                       \
  MOVE_N(T, 2, SPACE) MOVE_3(T, SPACE) MOVE_N(T, 4, SPACE) MOVE_N(T, 8, SPACE)                \
  MOVE_N(T, 16, SPACE)
#define STORES(T, SPACE)                                                                      \
  PUT_N(T, 2, SPACE) PUT_3(T, SPACE) PUT_N(T, 4, SPACE) PUT_N(T, 8, SPACE) PUT_N(T, 16, SPACE)
#define MOVES(T)                                                                              \
  LOADS(T, __global) LOADS(T, __local) LOADS(T, __private) LOADS(T, __constant)               \
  STORES(T, __global) STORES(T, __local) STORES(T, __private)
MOVES(char) MOVES(uchar) MOVES(short) MOVES(ushort) MOVES(int) MOVES(uint) MOVES(long)
MOVES(ulong) MOVES(half) MOVES(float) MOVES(double)

#define HALF_MOVES(SPACE)                                                                     \
  OVERLOAD float vload_half(size_t offset, const SPACE half* p) { return (float)p[offset]; }  \
  OVERLOAD float2 vload_half2(size_t offset, const SPACE half* p) {                           \
    return __builtin_convertvector(vload2(offset, p), float2);                                \
  }                                                                                           \
  OVERLOAD float4 vload_half4(size_t offset, const SPACE half* p) {                           \
    return __builtin_convertvector(vload4(offset, p), float4);                                \
  }                                                                                           \
  OVERLOAD float8 vload_half8(size_t offset, const SPACE half* p) {                           \
    return __builtin_convertvector(vload8(offset, p), float8);                                \
  }                                                                                           \
  OVERLOAD float16 vload_half16(size_t offset, const SPACE half* p) {                         \
    return __builtin_convertvector(vload16(offset, p), float16);                              \
  }
#define HALF_STORES(SPACE)                                                                    \
  OVERLOAD void vstore_half(float value, size_t offset, SPACE half* p) {                      \
    p[offset] = (half)value;                                                                  \
  }                                                                                           \
  OVERLOAD void vstore_half2(float2 value, size_t offset, SPACE half* p) {                    \
    vstore2(__builtin_convertvector(value, half2), offset, p);                                \
  }                                                                                           \
  OVERLOAD void vstore_half4(float4 value, size_t offset, SPACE half* p) {                    \
    vstore4(__builtin_convertvector(value, half4), offset, p);                                \
  }                                                                                           \
  OVERLOAD void vstore_half8(float8 value, size_t offset, SPACE half* p) {                    \
    vstore8(__builtin_convertvector(value, half8), offset, p);                                \
  }                                                                                           \
  OVERLOAD void vstore_half16(float16 value, size_t offset, SPACE half* p) {                  \
    vstore16(__builtin_convertvector(value, half16), offset, p);                              \
  }
HALF_MOVES(__global) HALF_MOVES(__local) HALF_MOVES(__private) HALF_MOVES(__constant)
HALF_STORES(__global) HALF_STORES(__local) HALF_STORES(__private)

// ---- Mathematics. half is computed in float and rounded once.

// An overload for each length, from the one for scalars.
#define EACH1(R, T, NAME)                                                                        \
  OVERLOAD R##2 NAME(T##2 x) { return (R##2)(NAME(x.s0), NAME(x.s1)); }                          \
  OVERLOAD R##3 NAME(T##3 x) { return (R##3)(NAME(x.s0), NAME(x.s1), NAME(x.s2)); }              \
  OVERLOAD R##4 NAME(T##4 x) { return (R##4)(NAME(x.lo), NAME(x.hi)); }                          \
  OVERLOAD R##8 NAME(T##8 x) { return (R##8)(NAME(x.lo), NAME(x.hi)); }                          \
  OVERLOAD R##16 NAME(T##16 x) { return (R##16)(NAME(x.lo), NAME(x.hi)); }
#define EACH2(T, NAME)                                                                           \
  OVERLOAD T##2 NAME(T##2 x, T##2 y) { return (T##2)(NAME(x.s0, y.s0), NAME(x.s1, y.s1)); }      \
  OVERLOAD T##3 NAME(T##3 x, T##3 y) {                                                           \
    return (T##3)(NAME(x.s0, y.s0), NAME(x.s1, y.s1), NAME(x.s2, y.s2));                         \
  }                                                                                              \
  OVERLOAD T##4 NAME(T##4 x, T##4 y) { return (T##4)(NAME(x.lo, y.lo), NAME(x.hi, y.hi)); }      \
  OVERLOAD T##8 NAME(T##8 x, T##8 y) { return (T##8)(NAME(x.lo, y.lo), NAME(x.hi, y.hi)); }      \
  OVERLOAD T##16 NAME(T##16 x, T##16 y) { return (T##16)(NAME(x.lo, y.lo), NAME(x.hi, y.hi)); }
#define EACH3(T, NAME)                                                                           \
  OVERLOAD T##2 NAME(T##2 x, T##2 y, T##2 z) {                                                   \
    return (T##2)(NAME(x.s0, y.s0, z.s0), NAME(x.s1, y.s1, z.s1));                               \
  }                                                                                              \
  OVERLOAD T##3 NAME(T##3 x, T##3 y, T##3 z) {                                                   \
    return (T##3)(NAME(x.s0, y.s0, z.s0), NAME(x.s1, y.s1, z.s1), NAME(x.s2, y.s2, z.s2));       \
  }                                                                                              \
  OVERLOAD T##4 NAME(T##4 x, T##4 y, T##4 z) {                                                   \
    return (T##4)(NAME(x.lo, y.lo, z.lo), NAME(x.hi, y.hi, z.hi));                               \
  }                                                                                              \
  OVERLOAD T##8 NAME(T##8 x, T##8 y, T##8 z) {                                                   \
    return (T##8)(NAME(x.lo, y.lo, z.lo), NAME(x.hi, y.hi, z.hi));                               \
  }                                                                                              \
  OVERLOAD T##16 NAME(T##16 x, T##16 y, T##16 z) {                                               \
    return (T##16)(NAME(x.lo, y.lo, z.lo), NAME(x.hi, y.hi, z.hi));                              \
  }

#define MATH1_AS(NAME, EXPRESSION, DOUBLE_EXPRESSION)               \
  OVERLOAD float NAME(float x) { return EXPRESSION; }               \
  OVERLOAD double NAME(double x) { return DOUBLE_EXPRESSION; }      \
  OVERLOAD half NAME(half x) { return (half)NAME((float)x); }       \
  EACH1(float, float, NAME) EACH1(double, double, NAME) EACH1(half, half, NAME)
#define MATH1(NAME) \
  float NAME##f(float); \
  MATH1_AS(NAME, NAME##f(x), __builtin_##NAME(x))
MATH1(exp) MATH1(exp2) MATH1(expm1) MATH1(log) MATH1(log2) MATH1(log10) MATH1(log1p)
MATH1(sqrt) MATH1(cbrt) MATH1(sin) MATH1(cos) MATH1(tan) MATH1(asin) MATH1(acos) MATH1(atan)
MATH1(sinh) MATH1(cosh) MATH1(tanh) MATH1(asinh) MATH1(acosh) MATH1(atanh) MATH1(erf)
MATH1(erfc) MATH1(tgamma) MATH1(lgamma) MATH1(floor) MATH1(ceil) MATH1(round) MATH1(rint)
MATH1(trunc) MATH1(fabs)
MATH1_AS(rsqrt, 1.0f / sqrtf(x), 1.0 / __builtin_sqrt(x))
float powf(float, float);
MATH1_AS(exp10, powf(10.0f, x), __builtin_pow(10.0, x))
MATH1_AS(sign, (float)(x > 0) - (float)(x < 0), (double)(x > 0) - (double)(x < 0))
MATH1_AS(degrees, x * 57.295779513082320877f, x * 57.295779513082320877)
MATH1_AS(radians, x * 0.017453292519943295769f, x * 0.017453292519943295769)

#define MATH2_AS(NAME, EXPRESSION, DOUBLE_EXPRESSION)                                   \
  OVERLOAD float NAME(float x, float y) { return EXPRESSION; }                          \
  OVERLOAD double NAME(double x, double y) { return DOUBLE_EXPRESSION; }                \
  OVERLOAD half NAME(half x, half y) { return (half)NAME((float)x, (float)y); }         \
  EACH2(float, NAME) EACH2(double, NAME) EACH2(half, NAME)
#define MATH2(NAME) \
  float NAME##f(float, float); \
  MATH2_AS(NAME, NAME##f(x, y), __builtin_##NAME(x, y))
MATH2(pow) MATH2(atan2) MATH2(fmod) MATH2(fmin) MATH2(fmax) MATH2(copysign) MATH2(hypot)
MATH2(fdim) MATH2(remainder) MATH2(nextafter)
MATH2_AS(powr, powf(x, y), __builtin_pow(x, y))
MATH2_AS(step, y < x ? 0.0f : 1.0f, y < x ? 0.0 : 1.0)

#define MATH3_AS(NAME, EXPRESSION, HALF_EXPRESSION)                                     \
  OVERLOAD float NAME(float x, float y, float z) { return EXPRESSION; }                 \
  OVERLOAD double NAME(double x, double y, double z) { return EXPRESSION; }             \
  OVERLOAD half NAME(half x, half y, half z) { return HALF_EXPRESSION; }                \
  EACH3(float, NAME) EACH3(double, NAME) EACH3(half, NAME)
OVERLOAD float emu_fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
OVERLOAD double emu_fma(double x, double y, double z) { return __builtin_fma(x, y, z); }
// In double the product of two halves and its sum with a third are as good as exact.
MATH3_AS(fma, emu_fma(x, y, z), (half)((double)x * (double)y + (double)z))
MATH3_AS(mad, x * y + z, x * y + z)
MATH3_AS(mix, x + (y - x) * z, x + (y - x) * z)

// native_ and half_ functions may be as exact as the others.
#define FAST1(NAME)                                                       \
  OVERLOAD float native_##NAME(float x) { return NAME(x); }               \
  OVERLOAD half native_##NAME(half x) { return NAME(x); }                 \
  OVERLOAD float half_##NAME(float x) { return NAME(x); }                 \
  EACH1(float, float, native_##NAME) EACH1(half, half, native_##NAME) EACH1(float, float, half_##NAME)
FAST1(exp) FAST1(exp2) FAST1(exp10) FAST1(log) FAST1(log2) FAST1(log10) FAST1(sqrt) FAST1(rsqrt)
FAST1(sin) FAST1(cos) FAST1(tan)
#define RECIPROCAL(NAME)                                          \
  OVERLOAD float NAME(float x) { return 1.0f / x; }               \
  EACH1(float, float, NAME)
RECIPROCAL(native_recip) RECIPROCAL(half_recip)
#define QUOTIENT(NAME)                                            \
  OVERLOAD float NAME(float x, float y) { return x / y; }         \
  EACH2(float, NAME)
QUOTIENT(native_divide) QUOTIENT(half_divide)
#define POWER(NAME)                                               \
  OVERLOAD float NAME(float x, float y) { return powf(x, y); }    \
  EACH2(float, NAME)
POWER(native_powr) POWER(half_powr)

#define ORDER(T)                                                                         \
  OVERLOAD T max(T x, T y) { return x < y ? y : x; }                                     \
  OVERLOAD T min(T x, T y) { return y < x ? y : x; }                                     \
  EACH2(T, max) EACH2(T, min)                                                            \
  OVERLOAD T clamp(T x, T low, T high) { return min(max(x, low), high); }                \
  EACH3(T, clamp)                                                                        \
  OVERLOAD T##2 max(T##2 x, T y) { return max(x, (T##2)y); }                             \
  OVERLOAD T##4 max(T##4 x, T y) { return max(x, (T##4)y); }                             \
  OVERLOAD T##8 max(T##8 x, T y) { return max(x, (T##8)y); }                             \
  OVERLOAD T##16 max(T##16 x, T y) { return max(x, (T##16)y); }                          \
  OVERLOAD T##2 min(T##2 x, T y) { return min(x, (T##2)y); }                             \
  OVERLOAD T##4 min(T##4 x, T y) { return min(x, (T##4)y); }                             \
  OVERLOAD T##8 min(T##8 x, T y) { return min(x, (T##8)y); }                             \
  OVERLOAD T##16 min(T##16 x, T y) { return min(x, (T##16)y); }
ORDER(char) ORDER(uchar) ORDER(short) ORDER(ushort) ORDER(int) ORDER(uint) ORDER(long)
ORDER(ulong) ORDER(half) ORDER(float) ORDER(double)

#define INTEGER(T, U, BITS)                                                                \
  OVERLOAD T popcount(T x) { return (T)__builtin_popcountl((ulong)(U)x); }                 \
  OVERLOAD T clz(T x) { return x ? (T)(__builtin_clzl((ulong)(U)x) - (64 - BITS)) : BITS; } \
  OVERLOAD U abs(T x) { return x < 0 ? (U)0 - (U)x : (U)x; }                               \
  OVERLOAD T rotate(T x, T by) {                                                           \
    U n = (U)by % BITS;                                                                    \
    return n ? (T)(((U)x << n) | ((U)x >> (BITS - n))) : x;                                \
  }                                                                                        \
  EACH1(T, T, popcount) EACH1(T, T, clz) EACH1(U, T, abs) EACH2(T, rotate)
INTEGER(char, uchar, 8) INTEGER(uchar, uchar, 8) INTEGER(short, ushort, 16)
INTEGER(ushort, ushort, 16) INTEGER(int, uint, 32) INTEGER(uint, uint, 32)
INTEGER(long, ulong, 64) INTEGER(ulong, ulong, 64)
OVERLOAD int mul24(int x, int y) { return x * y; }
OVERLOAD uint mul24(uint x, uint y) { return x * y; }
OVERLOAD int mad24(int x, int y, int z) { return x * y + z; }
OVERLOAD uint mad24(uint x, uint y, uint z) { return x * y + z; }
OVERLOAD int mul_hi(int x, int y) { return (int)(((long)x * y) >> 32); }
OVERLOAD uint mul_hi(uint x, uint y) { return (uint)(((ulong)x * y) >> 32); }

// Of scalars a relation is 1 where it holds, of vectors -1, as all comparisons in OpenCL.
#define CLASSIFY(T, I, NAME, EXPRESSION)                               \
  OVERLOAD int NAME(T x) { return EXPRESSION; }                        \
  OVERLOAD I##2 NAME(T##2 x) { return EXPRESSION; }                    \
  OVERLOAD I##3 NAME(T##3 x) { return EXPRESSION; }                    \
  OVERLOAD I##4 NAME(T##4 x) { return EXPRESSION; }                    \
  OVERLOAD I##8 NAME(T##8 x) { return EXPRESSION; }                    \
  OVERLOAD I##16 NAME(T##16 x) { return EXPRESSION; }
#define CLASSIFIES(T, I)                                               \
  CLASSIFY(T, I, isnan, x != x)                                        \
  CLASSIFY(T, I, isinf, (x == x) & (x - x != x - x))                   \
  CLASSIFY(T, I, isfinite, x - x == x - x)
CLASSIFIES(half, short) CLASSIFIES(float, int) CLASSIFIES(double, long)

// Scalars select by the whole condition, vectors by each element's highest bit.
#define SELECT_N(T, C, N, SHIFT)                                                            \
  OVERLOAD T##N select(T##N no, T##N yes, C##N chosen) {                                    \
    return (chosen >> (C##N)SHIFT & (C##N)1) != (C##N)0 ? yes : no;                         \
  }
#define SELECT(T, C, S, SHIFT)                                                              \
  OVERLOAD T select(T no, T yes, C chosen) { return chosen ? yes : no; }                    \
  OVERLOAD T select(T no, T yes, S chosen) { return chosen ? yes : no; }                    \
  SELECT_N(T, C, 2, SHIFT) SELECT_N(T, C, 3, SHIFT) SELECT_N(T, C, 4, SHIFT)                \
  SELECT_N(T, C, 8, SHIFT) SELECT_N(T, C, 16, SHIFT)                                        \
  SELECT_N(T, S, 2, SHIFT) SELECT_N(T, S, 3, SHIFT) SELECT_N(T, S, 4, SHIFT)                \
  SELECT_N(T, S, 8, SHIFT) SELECT_N(T, S, 16, SHIFT)
SELECT(char, char, uchar, 7) SELECT(uchar, char, uchar, 7) SELECT(short, short, ushort, 15)
SELECT(ushort, short, ushort, 15) SELECT(int, int, uint, 31) SELECT(uint, int, uint, 31)
SELECT(long, long, ulong, 63) SELECT(ulong, long, ulong, 63) SELECT(half, short, ushort, 15)
SELECT(float, int, uint, 31) SELECT(double, long, ulong, 63)

#define ANY_ALL(T, SHIFT)                                                                        \
  OVERLOAD int any(T x) { return x < 0; }                                                        \
  OVERLOAD int all(T x) { return x < 0; }                                                        \
  OVERLOAD int any(T##2 x) { return any(x.s0) | any(x.s1); }                                     \
  OVERLOAD int all(T##2 x) { return all(x.s0) & all(x.s1); }                                     \
  OVERLOAD int any(T##3 x) { return any(x.s0) | any(x.s1) | any(x.s2); }                         \
  OVERLOAD int all(T##3 x) { return all(x.s0) & all(x.s1) & all(x.s2); }                         \
  OVERLOAD int any(T##4 x) { return any(x.lo) | any(x.hi); }                                     \
  OVERLOAD int all(T##4 x) { return all(x.lo) & all(x.hi); }                                     \
  OVERLOAD int any(T##8 x) { return any(x.lo) | any(x.hi); }                                     \
  OVERLOAD int all(T##8 x) { return all(x.lo) & all(x.hi); }                                     \
  OVERLOAD int any(T##16 x) { return any(x.lo) | any(x.hi); }                                    \
  OVERLOAD int all(T##16 x) { return all(x.lo) & all(x.hi); }
ANY_ALL(char, 7) ANY_ALL(short, 15) ANY_ALL(int, 31) ANY_ALL(long, 63)

#define DOT(T)                                                                                   \
  OVERLOAD T dot(T x, T y) { return x * y; }                                                     \
  OVERLOAD T dot(T##2 x, T##2 y) { return x.s0 * y.s0 + x.s1 * y.s1; }                           \
  OVERLOAD T dot(T##3 x, T##3 y) { return x.s0 * y.s0 + x.s1 * y.s1 + x.s2 * y.s2; }             \
  OVERLOAD T dot(T##4 x, T##4 y) { return x.s0 * y.s0 + x.s1 * y.s1 + x.s2 * y.s2 + x.s3 * y.s3; }
DOT(half) DOT(float) DOT(double)

// ---- Atomic operations. The old value is the result.

#define ATOMIC(T, NAME, OLD_NAME, SPACE, BUILTIN)                              \
  UNCHECKED T atomic_##NAME(volatile SPACE T* p, T value) {                     \
    emu_atomic_access((ulong)p, sizeof(T));                                    \
    return BUILTIN((volatile SPACE T*)p, value, __ATOMIC_RELAXED);             \
  }                                                                            \
  UNCHECKED T OLD_NAME(volatile SPACE T* p, T value) { return atomic_##NAME(p, value); }
#define ATOMICS(T, SPACE, PREFIX)                                                          \
  ATOMIC(T, add, PREFIX##_add, SPACE, __atomic_fetch_add)                                  \
  ATOMIC(T, sub, PREFIX##_sub, SPACE, __atomic_fetch_sub)                                  \
  ATOMIC(T, and, PREFIX##_and, SPACE, __atomic_fetch_and)                                  \
  ATOMIC(T, or, PREFIX##_or, SPACE, __atomic_fetch_or)                                     \
  ATOMIC(T, xor, PREFIX##_xor, SPACE, __atomic_fetch_xor)                                  \
  ATOMIC(T, min, PREFIX##_min, SPACE, __atomic_fetch_min)                                  \
  ATOMIC(T, max, PREFIX##_max, SPACE, __atomic_fetch_max)                                  \
  ATOMIC(T, xchg, PREFIX##_xchg, SPACE, __atomic_exchange_n)                               \
  UNCHECKED T atomic_inc(volatile SPACE T* p) { return atomic_add(p, (T)1); }               \
  UNCHECKED T atomic_dec(volatile SPACE T* p) { return atomic_sub(p, (T)1); }               \
  UNCHECKED T atomic_cmpxchg(volatile SPACE T* p, T old, T value) {                         \
    emu_atomic_access((ulong)p, sizeof(T));                                                \
    __atomic_compare_exchange_n(p, &old, value, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);    \
    return old;                                                                            \
  }
ATOMICS(int, __global, atom) ATOMICS(uint, __global, atom)
ATOMICS(int, __local, atom) ATOMICS(uint, __local, atom)
