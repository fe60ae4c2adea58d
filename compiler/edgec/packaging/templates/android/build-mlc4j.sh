#!/bin/sh
# Builds mlc4j, MLC's Android binding, with the models of this package linked in. It does what the
# last part of `mlc_llm package` does, and needs MLC's sources but not its Python package.
#
#   MLC_LLM_SOURCE_DIR=~/mlc-llm ANDROID_NDK=~/Android/Sdk/ndk/27.2.12479018 sh build-mlc4j.sh FOLDER
#
# FOLDER/mlc4j is then a Gradle module; FOLDER/build is CMake's and can be deleted.
set -eu

fail() {
    echo "build-mlc4j.sh: $1" >&2
    exit 2
}

[ $# -eq 1 ] || fail "name the folder to build in: sh build-mlc4j.sh FOLDER"
package=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
[ -n "${MLC_LLM_SOURCE_DIR:-}" ] ||
    fail "set MLC_LLM_SOURCE_DIR to a checkout of mlc-llm with its submodules"
[ -n "${ANDROID_NDK:-}" ] || fail "set ANDROID_NDK to the folder of an Android NDK"
source=$(CDPATH='' cd -- "$MLC_LLM_SOURCE_DIR" && pwd)
toolchain=$ANDROID_NDK/build/cmake/android.toolchain.cmake
[ -f "$source/android/mlc4j/CMakeLists.txt" ] || fail "$source is not a checkout of mlc-llm"
[ -f "$source/3rdparty/tvm/CMakeLists.txt" ] ||
    fail "run in $source: git submodule update --init --recursive"
[ -f "$toolchain" ] || fail "there is no $toolchain; install the NDK with Android Studio's SDK Manager"
for tool in cmake rustup javac; do
    command -v "$tool" >/dev/null || fail "$tool is not installed"
done

mkdir -p "$1"
folder=$(CDPATH='' cd -- "$1" && pwd)
case "$folder/" in
    "$package"/*)
        rmdir "$folder" 2>/dev/null || :
        fail "build outside of the package, or the next edgec package won't replace it"
        ;;
esac
rustup target add aarch64-linux-android

# mlc4j's CMakeLists.txt takes this archive whole (--whole-archive) into its shared library.
mkdir -p "$folder/build/lib"
cp "$package/lib/libmodel_android.a" "$folder/build/lib/libmodel_android.a"
cmake -S "$source/android/mlc4j" -B "$folder/build" \
    -DCMAKE_TOOLCHAIN_FILE="$toolchain" \
    -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CXX_FLAGS=-O3 \
    -DCMAKE_INSTALL_PREFIX="$folder/build" \
    -DCMAKE_SKIP_INSTALL_ALL_DEPENDENCY=ON \
    -DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=ON \
    -DCMAKE_SHARED_LINKER_FLAGS=-Wl,-z,max-page-size=16384 \
    -DANDROID_ABI=arm64-v8a \
    -DANDROID_PLATFORM=android-24 \
    -DANDROID_NATIVE_API_LEVEL=android-24 \
    -DANDROID_STL=c++_static \
    -DMLC_LLM_INSTALL_STATIC_LIB=ON \
    -DUSE_OPENCL=ON \
    -DUSE_OPENCL_ENABLE_HOST_PTR=ON \
    -DUSE_HEXAGON_SDK=OFF \
    -DUSE_CUSTOM_LOGGING=ON
cmake --build "$folder/build" --target tvm4j_runtime_packed --config release --parallel
cmake --build "$folder/build" --target install --config release --parallel

module=$folder/mlc4j
rm -rf "$module"
mkdir -p "$module"
cp -R "$source/android/mlc4j/src" "$module/src"
cp "$source/android/mlc4j/build.gradle" "$module/build.gradle"
cp -R "$folder/build/output" "$module/output"
echo "$module"
