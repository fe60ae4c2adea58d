// A module of functions that Python answers: each call arrives there as the message that the guest
// reads, and what comes back is the function's value and the new content of tensors on the host.
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/reflection/registry.h>

#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>

#include "arena.h"
#include "protocol.h"

namespace edgec {
namespace {

namespace ffi = tvm::ffi;

// Which tensors lie in the arena, and as what the library expects them.
struct Placement {
  int32_t arena_kind;   // device type of the arena's tensors in this process
  int32_t device_type;  // of the library's tensors
};

class Message {
 public:
  template <typename T>
  void Add(const T& record) {
    bytes_.append(reinterpret_cast<const char*>(&record), sizeof record);
  }
  void Add(const void* data, size_t size) {
    bytes_.append(static_cast<const char*>(data), size);
    bytes_.append(-size % 8, '\0');
  }
  edgec_request_header* header() {
    return reinterpret_cast<edgec_request_header*>(bytes_.data());
  }
  std::string& bytes() { return bytes_; }

 private:
  std::string bytes_;
};

// Bytes of a host tensor from its data pointer on; 0 for one in device memory.
uint64_t InlineSize(const DLTensor& tensor) {
  if (tensor.device.device_type != kDLCPU) return 0;
  if (!ffi::IsContiguous(tensor)) {
    TVM_FFI_THROW(ValueError) << "a tensor on the host isn't contiguous";
  }
  const uint64_t size = ffi::GetDataSize(tensor);
  return size ? tensor.byte_offset + size : 0;
}

void AddTensor(const DLTensor& tensor, const Placement& placement, Message* message) {
  edgec_tensor record{};
  record.data = reinterpret_cast<uint64_t>(tensor.data);
  record.byte_offset = tensor.byte_offset;
  record.device_type = tensor.device.device_type;
  record.device_id = tensor.device.device_id;
  if (record.device_type == placement.arena_kind) {
    record.device_type = placement.device_type;
    record.device_id = 0;
  }
  record.ndim = tensor.ndim;
  record.dtype_code = tensor.dtype.code;
  record.dtype_bits = tensor.dtype.bits;
  record.dtype_lanes = tensor.dtype.lanes;
  record.inline_size = InlineSize(tensor);
  message->Add(record);
  for (int i = 0; i < tensor.ndim; ++i) message->Add(tensor.shape[i]);
  int64_t stride = 1;
  std::string strides(tensor.ndim * sizeof stride, '\0');
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    const int64_t value = tensor.strides ? tensor.strides[i] : stride;
    std::memcpy(&strides[i * sizeof value], &value, sizeof value);
    stride *= tensor.shape[i];
  }
  message->Add(strides.data(), strides.size());
  if (record.inline_size) message->Add(tensor.data, record.inline_size);
}

const DLTensor* AsTensor(const ffi::AnyView& value) {
  const TVMFFIAny raw = value.CopyToTVMFFIAny();
  if (raw.type_index == kTVMFFITensor) return TVMFFITensorGetDLTensorPtr(raw.v_obj);
  if (raw.type_index == kTVMFFIDLTensorPtr) return static_cast<const DLTensor*>(raw.v_ptr);
  return nullptr;
}

void AddArgument(const ffi::AnyView& value, const Placement& placement, Message* message) {
  const TVMFFIAny raw = value.CopyToTVMFFIAny();
  edgec_value record{raw.type_index, raw.zero_padding, raw.v_uint64};
  if (const DLTensor* tensor = AsTensor(value)) {
    record.bits = 0;
    message->Add(record);
    AddTensor(*tensor, placement, message);
    return;
  }
  const bool address = raw.type_index == kTVMFFIOpaquePtr && raw.v_ptr != nullptr;
  const bool plain = raw.type_index <= kTVMFFIDevice || raw.type_index == kTVMFFISmallStr;
  if (address || !plain) {
    TVM_FFI_THROW(TypeError) << "an argument of type " << value.GetTypeKey()
                             << " can't be handed to another process";
  }
  message->Add(record);
}

void TakeResult(ffi::PackedArgs args, const ffi::Bytes& answer, ffi::Any* result) {
  const char* at = answer.data();
  const char* const end = at + answer.size();
  edgec_value value;
  TVM_FFI_ICHECK_GE(answer.size(), sizeof value);
  std::memcpy(&value, at, sizeof value);
  at += sizeof value;
  for (int i = 0; i < args.size(); ++i) {
    const DLTensor* tensor = AsTensor(args[i]);
    const uint64_t size = tensor ? InlineSize(*tensor) : 0;
    if (!size) continue;
    TVM_FFI_ICHECK_LE(size, static_cast<uint64_t>(end - at));
    std::memcpy(static_cast<char*>(tensor->data) + tensor->byte_offset, at + tensor->byte_offset,
                size - tensor->byte_offset);
    at += (size + 7) / 8 * 8;
  }
  TVM_FFI_ICHECK(at == end);
  switch (value.type_index) {
    case kTVMFFINone: return;
    case kTVMFFIInt: *result = static_cast<int64_t>(value.bits); return;
    case kTVMFFIBool: *result = value.bits != 0; return;
    case kTVMFFIFloat: {
      double number;
      std::memcpy(&number, &value.bits, sizeof number);
      *result = number;
      return;
    }
    default: TVM_FFI_THROW(TypeError) << "a host function returned a value of an unknown type";
  }
}

class HostFunctions final : public ffi::ModuleObj {
 public:
  HostFunctions(const ffi::Array<ffi::String>& names, std::string prefix, ffi::Function handler,
                Placement placement)
      : prefix_(std::move(prefix)), handler_(std::move(handler)), placement_(placement) {
    for (const ffi::String& name : names) {
      numbers_.emplace(std::string(name), static_cast<uint32_t>(numbers_.size()));
    }
  }

  const char* kind() const final { return "edgec.host_functions"; }
  int GetPropertyMask() const final { return ffi::Module::kRunnable; }

  ffi::Optional<ffi::Function> GetFunction(const ffi::String& name) final {
    auto found = numbers_.find(std::string(name));
    // As the runtime does: bytecode names some functions with the library's prefix.
    if (found == numbers_.end() && !prefix_.empty() && std::string(name).rfind(prefix_, 0) == 0) {
      found = numbers_.find(std::string(name).substr(prefix_.size()));
    }
    if (found == numbers_.end()) return std::nullopt;
    return ffi::Function::FromPacked([handler = handler_, placement = placement_,
                                      number = found->second](ffi::PackedArgs args,
                                                              ffi::Any* result) {
      Message message;
      message.Add(edgec_request_header{0, EDGEC_CALL, number, static_cast<uint32_t>(args.size()),
                                       Arena::Global().limit()});
      for (int i = 0; i < args.size(); ++i) AddArgument(args[i], placement, &message);
      message.header()->size = static_cast<uint32_t>(message.bytes().size());
      ffi::Bytes request(std::move(message.bytes()));
      TakeResult(args, handler(static_cast<int64_t>(number), request).cast<ffi::Bytes>(), result);
    });
  }

 private:
  std::unordered_map<std::string, uint32_t> numbers_;
  std::string prefix_;
  ffi::Function handler_;
  Placement placement_;
};

TVM_FFI_STATIC_INIT_BLOCK() {
  tvm::ffi::reflection::GlobalDef().def(
      "edgec.device.host_functions",
      [](const ffi::Array<ffi::String>& names, const ffi::String& prefix, ffi::Function handler,
         int arena_kind, int device_type) {
        return ffi::Module(ffi::make_object<HostFunctions>(names, std::string(prefix),
                                                           std::move(handler),
                                                           Placement{arena_kind, device_type}));
      });
}

}  // namespace
}  // namespace edgec
