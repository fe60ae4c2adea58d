#!/bin/sh
# Installs what the tests of device libraries need, where that can be done without asking: on Debian
# and Ubuntu as root. Elsewhere it says what to install; the tests that need it are then skipped by
# name. Nothing is printed when everything is there.
set -eu

# Compilers from newest to oldest; one version of clang and lld is enough. Debian 12's `clang` is 14,
# which lacks what kernels need.
versions="22 21 20 19 18 17 16"

has() { command -v "$1" >/dev/null 2>&1; }

has_versioned() {
  for version in $versions; do
    has "$1-$version" && return 0
    # The name without a number is of some version.
    has "$1" && "$1" --version 2>/dev/null | grep -Eq "(clang version|LLD) $version\." && return 0
  done
  return 1
}

has_opencl() {
  ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 && ldconfig -p 2>/dev/null | grep -q 'libOpenCL\.so\.1'
}

packages=""
if ! has_versioned clang || ! has_versioned ld.lld; then packages="$packages clang lld"; fi
has qemu-aarch64 || packages="$packages qemu-user"
has aarch64-linux-gnu-g++ || packages="$packages g++-aarch64-linux-gnu"
has g++ || packages="$packages g++"
has_opencl || packages="$packages pocl-opencl-icd ocl-icd-libopencl1"
[ -n "$packages" ] || exit 0

# Debian's packages of LLVM, by version.
of_version() { echo "$packages" | sed "s/ clang lld/ clang-$1 lld-$1/"; }

if ! has apt-get || [ "$(id -u)" != 0 ]; then
  echo "tests of device libraries will be skipped; to run them: apt-get install$(of_version 19)" >&2
  exit 0
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
case "$packages" in
  *" clang lld"*)
    # First the version that the tests were written with.
    for version in 19 $versions; do
      if apt-cache show "clang-$version" >/dev/null 2>&1 && apt-cache show "lld-$version" >/dev/null 2>&1; then
        packages=$(of_version "$version")
        break
      fi
    done
    case "$packages" in
      *" clang lld"*)
        echo "this system's packages hold no clang of version ${versions##* } or newer:" \
          "tests of device libraries will be skipped" >&2
        packages=$(echo "$packages" | sed 's/ clang lld//')
        ;;
    esac
    ;;
esac
[ -n "$packages" ] || exit 0
echo "installing stand-ins for devices:$packages" >&2
# shellcheck disable=SC2086 - a list of words
apt-get install -qq -y --no-install-recommends $packages >/dev/null
