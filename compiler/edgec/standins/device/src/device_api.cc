// A device of any kind whose memory is the arena. Kernels reach it through the host functions.
// Memory of the second device of a kind holds NaNs until it is written.
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>
#include <tvm/runtime/device_api.h>

#include <cstring>
#include <new>
#include <string>

#include "arena.h"

namespace edgec {
namespace {

using tvm::Device;
using tvm::runtime::DeviceAPI;
namespace ffi = tvm::ffi;

class ArenaDevice final : public DeviceAPI {
 public:
  void SetDevice(Device) final {}
  void StreamSync(Device, TVMStreamHandle) final {}
  void SyncStreamFromTo(Device, TVMStreamHandle, TVMStreamHandle) final {}

  void GetAttr(Device, tvm::runtime::DeviceAttrKind kind, ffi::Any* value) final {
    if (kind == tvm::runtime::kExist) *value = 1;
  }

  void* AllocDataSpace(Device device, size_t size, size_t alignment, DLDataType) final {
    try {
      return Arena::Global().Allocate(size, alignment, device.device_id == 1);
    } catch (const std::bad_alloc&) {
      TVM_FFI_THROW(RuntimeError) << "there is no room for " << size << " bytes of device memory";
    }
    return nullptr;
  }

  void FreeDataSpace(Device, void* memory) final { Arena::Global().Free(memory); }

 protected:
  void CopyDataFromTo(const void* from, size_t from_offset, void* to, size_t to_offset,
                      size_t size, Device, Device, DLDataType, TVMStreamHandle) final {
    // Either side may be this process's own memory, and both may be parts of one tensor.
    std::memmove(static_cast<char*>(to) + to_offset, static_cast<const char*>(from) + from_offset,
                 size);
  }
};

// Make every device of a kind one of ours; false if the runtime already uses another one.
bool Register(int kind) {
  static ArenaDevice* device = new ArenaDevice();
  Arena::Global();
  ffi::Function::SetGlobal(
      std::string("device_api.") + tvm::runtime::DLDeviceType2Str(kind),
      ffi::Function::FromTyped([]() -> void* { return static_cast<DeviceAPI*>(device); }), true);
  return DeviceAPI::Get(Device{static_cast<DLDeviceType>(kind), 0}) == device;
}

TVM_FFI_STATIC_INIT_BLOCK() {
  namespace refl = tvm::ffi::reflection;
  refl::GlobalDef()
      .def("edgec.device.register", Register)
      .def("edgec.device.descriptor", []() { return Arena::Global().descriptor(); })
      .def("edgec.device.start",
           []() { return static_cast<int64_t>(Arena::Global().start()); })
      .def("edgec.device.used", []() { return static_cast<int64_t>(Arena::Global().used()); })
      .def("edgec.device.allocate",
           [](int64_t size) {
             return reinterpret_cast<int64_t>(Arena::Global().Allocate(size, 0, true));
           })
      .def("edgec.device.free",
           [](int64_t address) { Arena::Global().Free(reinterpret_cast<void*>(address)); });
}

}  // namespace
}  // namespace edgec
