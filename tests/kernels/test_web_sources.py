"""The headers that stand for those TVM's wheel lacks, compiled for this machine."""

from __future__ import annotations

import base64
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm_ffi.libinfo

from edgec.emitters.web import tree
from edgec.standins import toolbox
from standin_tools import needs

pytestmark = needs("cxx")

SOURCE = r"""
#include <tvm/ffi/dtype.h>
#include <tvm/support/serializer.h>
#include "src/support/base64.h"
#include "src/support/bytes_io.h"
#include "3rdparty/compiler-rt/builtin_fp16.h"
#include <cstdio>
#include <iterator>
#include <iostream>

using namespace tvm;
using namespace tvm::support;

template <typename T>
T Read(const std::string& bytes, bool* good) {
  BytesInStream in(bytes);
  T value;
  *good = in.Read(&value);
  return value;
}

// The bytes of a value; read and written again they are the same, and none of them can be missing.
template <typename T>
std::string Stored(const T& value) {
  std::string bytes, again;
  bool good;
  BytesOutStream(&bytes).Write(value);
  BytesOutStream(&again).Write(Read<T>(bytes, &good));
  if (!good || again != bytes) std::cerr << "not read back: " << typeid(T).name() << "\n";
  for (size_t size = 0; size < bytes.size(); ++size) {
    Read<T>(bytes.substr(0, size), &good);
    if (good) std::cerr << "read though " << size << " bytes are left: " << typeid(T).name() << "\n";
  }
  return bytes;
}

int main(int argc, char** argv) {
  std::string input{std::istreambuf_iterator<char>(std::cin), {}}, out;
  switch (*argv[1]) {
    case 'h':
      for (int bits = 0; bits < 65536; ++bits) {
        float value = __extendXfYf2__<uint16_t, uint16_t, 10, float, uint32_t, 23>(bits);
        out.append(reinterpret_cast<char*>(&value), 4);
      }
      break;
    case 'e': {
      BytesOutStream bytes(&out);
      Base64OutStream encoded(&bytes);
      for (char byte : input) encoded.Write(&byte, 1);
      encoded.Finish();
      break;
    }
    case 'd': {
      BytesInStream bytes(input);
      Base64InStream decoded(&bytes);
      decoded.InitPosition();
      char buffer[7];
      for (size_t n; (n = decoded.Read(buffer, 7)) != 0;) out.append(buffer, n);
      break;
    }
    case 's':
      out += Stored<int32_t>(-2) + Stored<double>(0.5) + Stored<bool>(true);
      out += Stored(DLDataType{2, 16, 4}) + Stored(DLDevice{kDLWebGPU, 3});
      out += Stored<std::string>("text") + Stored(ffi::String("a longer text than fits inside"));
      out += Stored(std::vector<int64_t>{1, -1}) + Stored(std::vector<std::string>{"a", ""});
      out += Stored(std::unordered_map<std::string, std::string>{{"k", "v"}});
      out += Stored(ffi::Array<DLDataType>{DLDataType{0, 8, 1}});
      out += Stored(ffi::Map<ffi::String, ffi::Array<ffi::String>>{{"m", {"x", "y"}}});
      break;
    case 'c': {  // counts that no file can hold
      std::string huge(8, '\xff');
      bool good;
      Read<std::string>(huge, &good);
      bool any = good;
      Read<std::vector<int64_t>>(huge, &good);
      any |= good;
      Read<std::vector<std::string>>(huge, &good);
      out = any | good ? "read" : "refused";
      break;
    }
  }
  fwrite(out.data(), 1, out.size(), stdout);
}
"""


@pytest.fixture(scope="module")
def program() -> Path:
    def build(target: Path) -> None:
        source, folder = target.with_suffix(".cc"), target.parent / "tree"
        source.write_text(SOURCE)
        tree.make_tree(folder)
        library = Path(tvm_ffi.libinfo.find_libtvm_ffi())
        paths = (folder, folder / "include", folder / "3rdparty/tvm-ffi/include")
        command = [toolbox.cxx(), "-std=c++17", "-O1", "-w", *(f"-I{path}" for path in paths)]
        command += [str(source), str(library), f"-Wl,-rpath,{library.parent}", "-o", str(target)]
        subprocess.run(command, check=True)

    return toolbox.compiled([SOURCE, tree.sources_digest(), toolbox.cxx()], build, "headers")


def _run(program: Path, what: str, data: bytes = b"") -> bytes:
    done = subprocess.run([str(program), what], input=data, capture_output=True, check=True)
    assert not done.stderr, done.stderr.decode()
    return done.stdout


def test_half_precision(program: Path) -> None:
    found = np.frombuffer(_run(program, "half"), np.float32)
    wanted = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    numbers = ~np.isnan(wanted)
    np.testing.assert_array_equal(found.view(np.uint32)[numbers], wanted.view(np.uint32)[numbers])
    assert np.isnan(found[~numbers]).all()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 300])
def test_base64(program: Path, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    text = base64.b64encode(data)
    assert _run(program, "encode", data) == text
    assert _run(program, "decode", base64.encodebytes(data)) == data


def test_values_are_stored_as_tvm_stores_them(program: Path) -> None:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def count(number: int) -> bytes:
        return struct.pack("<Q", number)

    wanted = (
        struct.pack("<id?", -2, 0.5, True)
        + struct.pack("<BBH", 2, 16, 4)
        + struct.pack("<ii", 15, 3)
        + text("text")
        + text("a longer text than fits inside")
        + count(2)
        + struct.pack("<qq", 1, -1)
        + (count(2) + text("a") + text(""))
        + (count(1) + text("k") + text("v"))
        + (count(1) + struct.pack("<BBH", 0, 8, 1))
        + (count(1) + text("m") + count(2) + text("x") + text("y"))
    )
    assert _run(program, "stored") == wanted


def test_a_damaged_count_is_refused(program: Path) -> None:
    assert _run(program, "counts") == b"refused"
