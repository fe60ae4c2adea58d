#!/bin/sh
# Installs what the tests of device libraries need, where that can be done without asking: on Debian
# and Ubuntu as root. Elsewhere it says what to install; the tests that need it are then skipped by
# name. Nothing is printed when everything is there.
set -eu

# Compilers from newest to oldest; one version of clang and lld is enough.
versions="22 21 20 19 18 17 16 15 14"

has() { command -v "$1" >/dev/null 2>&1; }

has_versioned() {
  has "$1" && return 0
  for version in $versions; do has "$1-$version" && return 0; done
  return 1
}

has_opencl() {
  ls /etc/OpenCL/vendors/*.icd >/dev/null 2>&1 && ldconfig -p 2>/dev/null | grep -q 'libOpenCL\.so\.1'
}

packages=""
if ! has_versioned clang || ! has_versioned ld.lld; then packages="$packages clang lld"; fi
has qemu-aarch64 || packages="$packages qemu-user"
has aarch64-linux-gnu-gcc || packages="$packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
has g++ || packages="$packages g++"
has_opencl || packages="$packages pocl-opencl-icd ocl-icd-libopencl1"
[ -n "$packages" ] || exit 0

if ! has apt-get || [ "$(id -u)" != 0 ]; then
  echo "tests of device libraries will be skipped; to run them: apt-get install$packages" >&2
  exit 0
fi

echo "installing stand-ins for devices:$packages" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null
case "$packages" in
  *clang*)
    for version in $versions; do
      if apt-cache show "clang-$version" "lld-$version" >/dev/null 2>&1; then
        packages=$(echo "$packages" | sed "s/ clang lld/ clang-$version lld-$version/")
        break
      fi
    done
    ;;
esac
# shellcheck disable=SC2086 - a list of words
apt-get install -qq -y --no-install-recommends $packages >/dev/null
