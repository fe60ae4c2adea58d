/* libcudart.so.13 of a GPU that isn't there, as far as TVM uses it. All is done at once, so streams
 * and events have nothing to do.
 *
 * The GPU's memory is a range of this process that can be touched only while a kernel runs or a copy
 * is made: host code that takes it for its own ends by a signal, as it would beside a real GPU. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  NO_MEMORY = 2,
  INVALID_DIRECTION = 21,
  INVALID_DEVICE = 101,
  NOT_SUPPORTED = 801,
};
enum { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, ANY };

#define RESERVED (UINT64_C(8) << 30)
#define LARGE (UINT64_C(1) << 24)
static const uint64_t PAGE = 4096;
static unsigned char *memory;
static uint64_t used, live;
static uint64_t copied[ANY];

/* Kernels may run now. */
void fake_cuda_open(void) {
  if (used) mprotect(memory, used, PROT_READ | PROT_WRITE);
}

void fake_cuda_close(void) {
  if (used) mprotect(memory, used, PROT_NONE);
}

/* Bytes that were copied in one of the directions above. */
uint64_t fake_cuda_copied(int direction) { return copied[direction]; }

static int on_device(const void *address) {
  return (const unsigned char *)address >= memory && (const unsigned char *)address < memory + used;
}

/* The first page of every allocation; its other bytes are a gap between neighbours. */
struct block {
  uint64_t taken;
  struct block *next;
};
static struct block *free_blocks;

/* A block that was freed, or a new one. Memory is open. */
static struct block *find_block(uint64_t taken) {
  for (struct block **at = &free_blocks; *at; at = &(*at)->next) {
    struct block *found = *at;
    if (found->taken != taken) continue;
    *at = found->next;
    return found;
  }
  if (used + taken > RESERVED) return NULL;
  struct block *made = (struct block *)(memory + used);
  used += taken;
  fake_cuda_open();
  made->taken = taken;
  return made;
}

int cudaMalloc(void **address, size_t size) {
  if (!memory) {
    void *got = mmap(NULL, RESERVED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) return NO_MEMORY;
    memory = got;
  }
  uint64_t taken = PAGE + (size + PAGE - 1) / PAGE * PAGE;
  fake_cuda_open();
  struct block *block = find_block(taken);
  if (block) {
    *address = (unsigned char *)block + PAGE;
    /* New memory holds anything: NaNs show what is read too early. TVM's workspace of 128 MiB is
     * left as it is: whatever was touched makes opening and closing slower. */
    memset(*address, 0xff, size < LARGE ? size : 0);
    live += taken;
  }
  fake_cuda_close();
  return block ? SUCCESS : NO_MEMORY;
}

int cudaFree(void *address) {
  if (!address) return SUCCESS;
  if (!on_device(address)) return INVALID_VALUE;
  struct block *block = (struct block *)((unsigned char *)address - PAGE);
  fake_cuda_open();
  block->next = free_blocks;
  free_blocks = block;
  live -= block->taken;
  fake_cuda_close();
  return SUCCESS;
}

int cudaMallocHost(void **address, size_t size) {
  *address = malloc(size);
  return *address ? SUCCESS : NO_MEMORY;
}

int cudaFreeHost(void *address) {
  free(address);
  return SUCCESS;
}

int cudaMemcpyAsync(void *to, const void *from, size_t size, int direction, void *stream) {
  (void)stream;
  int actual = (on_device(from) ? DEVICE_TO_HOST : HOST_TO_HOST) + on_device(to);
  if (direction != ANY && direction != actual) return INVALID_DIRECTION;
  fake_cuda_open();
  memmove(to, from, size);
  fake_cuda_close();
  copied[actual] += size;
  return SUCCESS;
}

int cudaMemGetInfo(size_t *available, size_t *total) {
  *total = RESERVED;
  *available = RESERVED - live;
  return SUCCESS;
}

int cudaGetDeviceCount(int *count) {
  *count = 1;
  return SUCCESS;
}

int cudaGetDevice(int *device) {
  *device = 0;
  return SUCCESS;
}

int cudaSetDevice(int device) { return device == 0 ? SUCCESS : INVALID_DEVICE; }

/* What an A100 says, by the numbers of the runtime's headers. */
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  static const struct {
    int attribute, value;
  } known[] = {
      {1, 1024},                                 /* threads per block */
      {2, 1024},       {3, 1024},  {4, 64},      /* block in x, y, z */
      {5, 2147483647}, {6, 65535}, {7, 65535},   /* grid in x, y, z */
      {8, 49152},                                /* shared memory per block */
      {10, 32},                                  /* warp */
      {12, 65536},                               /* registers per block */
      {13, 1410000},                             /* kHz */
      {16, 108},                                 /* multiprocessors */
      {38, 41943040},                            /* second-level cache */
      {75, 8},         {76, 0},                  /* compute capability */
  };
  if (device != 0) return INVALID_DEVICE;
  for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
    if (known[i].attribute != attribute) continue;
    *value = known[i].value;
    return SUCCESS;
  }
  return INVALID_VALUE;
}

/* Streams, events and graphs, and what nothing asks for. */
static int token;
#define NOTHING(name) \
  int name(void) { return SUCCESS; }
#define MAKES(name) \
  int name(void **made) { \
    *made = &token; \
    return SUCCESS; \
  }
#define LACKS(name) \
  int name(void) { return NOT_SUPPORTED; }

MAKES(cudaStreamCreate)
MAKES(cudaStreamCreateWithFlags)
NOTHING(cudaStreamDestroy)
NOTHING(cudaStreamSynchronize)
NOTHING(cudaStreamWaitEvent)
MAKES(cudaEventCreate)
NOTHING(cudaEventDestroy)
NOTHING(cudaEventRecord)
NOTHING(cudaEventSynchronize)
NOTHING(cudaGetLastError)
NOTHING(cudaPeekAtLastError)
LACKS(cudaEventElapsedTime)
LACKS(cudaGetDeviceProperties)
LACKS(cudaMemcpyPeerAsync)
LACKS(cudaStreamBeginCapture)
LACKS(cudaStreamEndCapture)
LACKS(cudaGraphInstantiate)
LACKS(cudaGraphLaunch)
LACKS(cudaGraphDestroy)
LACKS(cudaGraphExecDestroy)

const char *cudaGetErrorName(int error) {
  (void)error;
  return "FakeCudaRuntimeError";
}

const char *cudaGetErrorString(int error) { return cudaGetErrorName(error); }
