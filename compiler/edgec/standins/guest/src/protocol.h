/* What the verifying process and the guest say to each other over a socket.
 *
 * One request, one reply; while a call runs the guest may ask for device memory in between. Both
 * sides are little endian and 64 bits wide, so structures travel as they lie in memory. Records
 * begin at multiples of 8 bytes from the start of a message.
 */
#ifndef EDGEC_GUEST_PROTOCOL_H_
#define EDGEC_GUEST_PROTOCOL_H_

#include <stdint.h>

enum edgec_request { EDGEC_RESOLVE = 1, EDGEC_CALL = 2, EDGEC_MEMORY = 3 };
enum edgec_status {
  EDGEC_OK = 0,
  EDGEC_RAISED = 1,      /* body: two strings, kind and message */
  EDGEC_FAULT = 2,       /* body: struct edgec_fault; the guest ends */
  EDGEC_WANT_MEMORY = 3, /* value: bytes wanted; answered by EDGEC_MEMORY */
};

/* RESOLVE: body is a name with its terminating zero; the reply's value is the function's number.
 * CALL: `count` arguments. `limit` is the end of the device memory in use.
 * MEMORY: `limit` is the address of what was asked for. */
struct edgec_request_header {
  uint32_t size; /* of the message, header included */
  uint32_t kind;
  uint32_t function;
  uint32_t count;
  uint64_t limit;
};

/* As a TVMFFIAny. A tensor's record is followed by struct edgec_tensor. */
struct edgec_value {
  int32_t type_index;
  uint32_t extra;
  uint64_t bits;
};

/* Followed by the shape, the strides (int64 each) and `inline_size` bytes, padded to 8: the content
 * of a tensor in host memory, which the guest can't see otherwise. It comes back in the reply. */
struct edgec_tensor {
  uint64_t data;
  uint64_t byte_offset;
  int32_t device_type;
  int32_t device_id;
  int32_t ndim;
  uint8_t dtype_code;
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  uint64_t inline_size;
};

/* OK, CALL: `launches` launches, then the contents of host tensors, each padded to 8. */
struct edgec_reply_header {
  uint32_t size;
  uint32_t status;
  uint32_t launches;
  uint32_t padding;
  struct edgec_value value;
};

/* Followed by the kernel's name, padded with zeros to 8, and its `count` arguments. */
struct edgec_launch {
  uint32_t name_size;
  uint32_t count;
};

/* `library_offset` is where in the library's image the instruction lies, ~0 if outside. */
struct edgec_fault {
  uint64_t signal;
  uint64_t address;
  uint64_t instruction;
  uint64_t library_offset;
};

#endif
