#!/bin/sh
# Installs what the tests of device libraries need, where that can be done without asking: on Debian
# and Ubuntu as root. Elsewhere it says what to install; the tests that need it are then skipped by
# name. Nothing is printed when everything is there.
set -eu

# LLVM from newest to oldest; one version is enough. Debian 12's `clang` is 14, which lacks what kernels
# need.
versions="22 21 20 19 18 17 16"

has() { command -v "$1" >/dev/null 2>&1; }

# Is all of LLVM here that kernels and browsers need, in one version? Libraries for WebAssembly are of
# clang's own version.
has_llvm() {
  for version in $versions; do
    has "clang-$version" && has "ld.lld-$version" && has "wasm-ld-$version" &&
      [ -f "/usr/lib/llvm-$version/lib/wasm32-wasi/libc++.a" ] &&
      ls "/usr/lib/llvm-$version/lib/clang/"*/lib/wasi/libclang_rt.builtins-wasm32.a >/dev/null 2>&1 &&
      return 0
  done
  return 1
}

has_vulkan() {
  ls /usr/share/vulkan/icd.d/lvp_icd*.json >/dev/null 2>&1 && ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'
}

has_opencl() {
  ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 && ldconfig -p 2>/dev/null | grep -q 'libOpenCL\.so\.1'
}

packages=""
has_llvm || packages="$packages llvm"
[ -f /usr/lib/wasm32-wasi/libc.a ] || packages="$packages wasi-libc"
has qemu-aarch64 || packages="$packages qemu-user"
has aarch64-linux-gnu-g++ || packages="$packages g++-aarch64-linux-gnu"
has g++ || packages="$packages g++"
has_vulkan || packages="$packages mesa-vulkan-drivers libvulkan1"
has chromium || packages="$packages chromium"
has node || packages="$packages nodejs"
has npm || packages="$packages npm"
has_opencl || packages="$packages pocl-opencl-icd ocl-icd-libopencl1"
[ -n "$packages" ] || exit 0

# Debian's packages of LLVM, by version.
of_version() {
  echo "$packages" | sed "s/ llvm/ clang-$1 lld-$1 libclang-rt-$1-dev-wasm32 libc++-$1-dev-wasm32 libc++abi-$1-dev-wasm32/"
}

if ! has apt-get || [ "$(id -u)" != 0 ]; then
  echo "tests of device libraries will be skipped; to run them: apt-get install$(of_version 19)" >&2
  exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
case "$packages" in
  *" llvm"*)
    # First the version that the tests were written with.
    for version in 19 $versions; do
      if apt-cache show "clang-$version" >/dev/null 2>&1 &&
        apt-cache show "libc++-$version-dev-wasm32" >/dev/null 2>&1; then
        packages=$(of_version "$version")
        break
      fi
    done
    case "$packages" in
      *" llvm"*)
        echo "this system's packages hold no clang of version ${versions##* } or newer with libraries for" \
          "WebAssembly: tests of libraries for browsers will be skipped" >&2
        packages=$(echo "$packages" | sed 's/ llvm/ clang lld/')
        ;;
    esac
    ;;
esac
[ -n "$packages" ] || exit 0
echo "installing stand-ins for devices:$packages" >&2
# shellcheck disable=SC2086 - a list of words
apt-get install -qq -y --no-install-recommends $packages >/dev/null
