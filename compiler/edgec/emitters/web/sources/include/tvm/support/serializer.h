// How TVM stores values: numbers as little-endian bytes, everything else as a count (8 bytes) and
// its elements. WebAssembly is little-endian, so numbers are copied as they are.
#ifndef TVM_SUPPORT_SERIALIZER_H_
#define TVM_SUPPORT_SERIALIZER_H_

#include <dlpack/dlpack.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <cstdint>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

namespace tvm {
namespace support {

static_assert(TVM_FFI_IO_NO_ENDIAN_SWAP, "numbers are stored as this processor has them");

// Values that are stored as the bytes they have in memory.
template <typename T>
constexpr bool kStoredAsBytes = std::is_arithmetic_v<T> || std::is_enum_v<T> ||
                                std::is_same_v<T, DLDataType> || std::is_same_v<T, DLDevice>;

// A count is never believed: memory is taken in steps, so that a damaged one ends the file first.
constexpr size_t kStep = size_t{1} << 16;

inline void WriteCount(Stream* stream, size_t count) {
  uint64_t stored = count;
  stream->Write(&stored, sizeof(stored));
}

inline bool ReadCount(Stream* stream, size_t* count) {
  uint64_t stored;
  if (stream->Read(&stored, sizeof(stored)) != sizeof(stored)) return false;
  *count = static_cast<size_t>(stored);
  return *count == stored;
}

inline void WriteText(Stream* stream, const char* text, size_t size) {
  WriteCount(stream, size);
  if (size != 0) stream->Write(text, size);
}

inline bool ReadText(Stream* stream, std::string* text) {
  size_t size;
  if (!ReadCount(stream, &size)) return false;
  text->clear();
  while (text->size() < size) {
    size_t have = text->size(), more = size - have < kStep ? size - have : kStep;
    text->resize(have + more);
    if (stream->Read(text->data() + have, more) != more) return false;
  }
  return true;
}

// Keys and values in turn; `insert` takes one of each.
template <typename K, typename V, typename Insert>
bool ReadPairs(Stream* stream, Insert insert) {
  size_t count;
  if (!ReadCount(stream, &count)) return false;
  for (size_t i = 0; i < count; ++i) {
    K key;
    V value;
    if (!Serializer<K>::Read(stream, &key) || !Serializer<V>::Read(stream, &value)) return false;
    insert(std::move(key), std::move(value));
  }
  return true;
}

template <typename T>
struct Serializer {
  static constexpr bool enabled = kStoredAsBytes<T>;
  static_assert(enabled, "values of this type have no stored form");

  static void Write(Stream* stream, const T& value) { stream->Write(&value, sizeof(T)); }
  static bool Read(Stream* stream, T* value) {
    return stream->Read(value, sizeof(T)) == sizeof(T);
  }
};

template <>
struct Serializer<std::string> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::string& text) {
    WriteText(stream, text.data(), text.size());
  }
  static bool Read(Stream* stream, std::string* text) { return ReadText(stream, text); }
};

template <>
struct Serializer<ffi::String> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const ffi::String& text) {
    WriteText(stream, text.data(), text.size());
  }
  static bool Read(Stream* stream, ffi::String* text) {
    std::string read;
    if (!ReadText(stream, &read)) return false;
    *text = ffi::String(std::move(read));
    return true;
  }
};

template <typename A, typename B>
struct Serializer<std::pair<A, B>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::pair<A, B>& pair) {
    Serializer<A>::Write(stream, pair.first);
    Serializer<B>::Write(stream, pair.second);
  }
  static bool Read(Stream* stream, std::pair<A, B>* pair) {
    return Serializer<A>::Read(stream, &pair->first) && Serializer<B>::Read(stream, &pair->second);
  }
};

template <typename T>
struct Serializer<std::vector<T>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::vector<T>& values) {
    WriteCount(stream, values.size());
    if constexpr (kStoredAsBytes<T>) {
      if (!values.empty()) stream->Write(values.data(), values.size() * sizeof(T));
    } else {
      for (const T& value : values) Serializer<T>::Write(stream, value);
    }
  }

  static bool Read(Stream* stream, std::vector<T>* values) {
    size_t count;
    if (!ReadCount(stream, &count)) return false;
    values->clear();
    while (values->size() < count) {
      size_t have = values->size();
      if constexpr (kStoredAsBytes<T>) {
        size_t more = count - have < kStep ? count - have : kStep;
        values->resize(have + more);
        if (stream->Read(values->data() + have, more * sizeof(T)) != more * sizeof(T)) return false;
      } else {
        values->emplace_back();
        if (!Serializer<T>::Read(stream, &values->back())) return false;
      }
    }
    return true;
  }
};

template <typename K, typename V>
struct Serializer<std::unordered_map<K, V>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const std::unordered_map<K, V>& map) {
    WriteCount(stream, map.size());
    for (const auto& [key, value] : map) {
      Serializer<K>::Write(stream, key);
      Serializer<V>::Write(stream, value);
    }
  }
  static bool Read(Stream* stream, std::unordered_map<K, V>* map) {
    map->clear();
    return ReadPairs<K, V>(
        stream, [map](K key, V value) { map->insert_or_assign(std::move(key), std::move(value)); });
  }
};

template <typename T>
struct Serializer<ffi::Array<T>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const ffi::Array<T>& values) {
    WriteCount(stream, values.size());
    for (const T& value : values) Serializer<T>::Write(stream, value);
  }
  static bool Read(Stream* stream, ffi::Array<T>* values) {
    size_t count;
    if (!ReadCount(stream, &count)) return false;
    ffi::Array<T> read;
    for (size_t i = 0; i < count; ++i) {
      T value;
      if (!Serializer<T>::Read(stream, &value)) return false;
      read.push_back(std::move(value));
    }
    *values = std::move(read);
    return true;
  }
};

template <typename K, typename V>
struct Serializer<ffi::Map<K, V>> {
  static constexpr bool enabled = true;

  static void Write(Stream* stream, const ffi::Map<K, V>& map) {
    WriteCount(stream, map.size());
    for (const auto& [key, value] : map) {
      Serializer<K>::Write(stream, key);
      Serializer<V>::Write(stream, value);
    }
  }
  static bool Read(Stream* stream, ffi::Map<K, V>* map) {
    ffi::Map<K, V> read;
    bool all = ReadPairs<K, V>(stream, [&read](K key, V value) { read.Set(key, value); });
    *map = std::move(read);
    return all;
  }
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_SERIALIZER_H_
