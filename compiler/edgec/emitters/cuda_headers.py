"""The two headers of libcu++ that TVM's CUDA text includes when NVRTC compiles it.

TVM asks libcu++ for the integers of fixed width and eight type traits. The library itself is a
package of its own with a thousand headers, which take longer to read than the kernels; this is
what TVM's text uses of it.
"""

from __future__ import annotations

_CSTDINT = """\
#pragma once
namespace cuda { namespace std {
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
} }
"""

_TYPE_TRAITS = """\
#pragma once
namespace cuda { namespace std {

// No static member: with device code as the default that would be a variable of the GPU.
template <bool Value> struct bool_constant { enum : bool { value = Value }; };

template <class A, class B> struct is_same : bool_constant<false> {};
template <class A> struct is_same<A, A> : bool_constant<true> {};
template <class A, class B> inline constexpr bool is_same_v = is_same<A, B>::value;

template <class T> struct remove_cv { using type = T; };
template <class T> struct remove_cv<const T> { using type = T; };
template <class T> struct remove_cv<volatile T> { using type = T; };
template <class T> struct remove_cv<const volatile T> { using type = T; };

template <class T, class... Others>
inline constexpr bool is_one_of = (is_same_v<typename remove_cv<T>::type, Others> || ...);

template <class T> struct is_integral : bool_constant<is_one_of<
    T, bool, char, signed char, unsigned char, wchar_t, char16_t, char32_t, short, unsigned short,
    int, unsigned int, long, unsigned long, long long, unsigned long long>> {};
template <class T>
struct is_floating_point : bool_constant<is_one_of<T, float, double, long double>> {};

template <bool Condition, class True, class False> struct conditional { using type = True; };
template <class True, class False> struct conditional<false, True, False> { using type = False; };

template <bool Condition, class T = void> struct enable_if {};
template <class T> struct enable_if<true, T> { using type = T; };

template <class T, bool = is_integral<T>::value || is_floating_point<T>::value>
struct is_signed : bool_constant<false> {};
template <class T> struct is_signed<T, true> : bool_constant<(T(-1) < T(0))> {};
template <class T, bool = is_integral<T>::value || is_floating_point<T>::value>
struct is_unsigned : bool_constant<false> {};
template <class T> struct is_unsigned<T, true> : bool_constant<(T(0) < T(-1))> {};

} }
"""

STANDARD_HEADERS = {"cuda/std/cstdint": _CSTDINT, "cuda/std/type_traits": _TYPE_TRAITS}
"""Text of each header, by the name under which it is included."""
