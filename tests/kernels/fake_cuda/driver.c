/* libcuda.so.1 of a GPU that isn't there, as far as TVM uses it. Modules and launches are answered
 * by whoever installs himself: that is Python, which has the kernels' text and can run it. */
#include <stdint.h>
#include <string.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, NOT_SUPPORTED = 801 };

/* As the driver's headers have it; Python reads it, too. */
struct config {
  uint32_t grid[3], block[3], shared_bytes;
  void *stream, *attributes;
  uint32_t attribute_count;
};

/* Each answers with the driver's own numbers of errors. */
struct answers {
  int (*load)(const void *code, void **module);
  int (*find)(void *module, const char *name, void **function);
  int (*launch)(const struct config *config, void *function, void **values);
};

static struct answers answers;

void fake_cuda_install(const struct answers *given) { answers = *given; }

int cuDeviceGetName(char *name, int size, int device) {
  static const char ours[] = "Fake GPU";
  if (device != 0 || size < (int)sizeof ours) return INVALID_VALUE;
  memcpy(name, ours, sizeof ours);
  return SUCCESS;
}

int cuModuleLoadData(void **module, const void *code) {
  return answers.load ? answers.load(code, module) : NOT_INITIALIZED;
}

int cuModuleUnload(void *module) {
  (void)module;
  return SUCCESS;
}

int cuModuleGetFunction(void **function, void *module, const char *name) {
  return answers.find(module, name, function);
}

int cuLaunchKernelEx(const struct config *config, void *function, void **values, void **extra) {
  if (extra || config->attribute_count) return NOT_SUPPORTED;
  return answers.launch(config, function, values);
}

/* TVM asks for it where a block has more than 48 KiB of shared memory, which ours never have. */
int cuFuncSetAttribute(void *function, int attribute, int value) {
  (void)function, (void)attribute, (void)value;
  return NOT_SUPPORTED;
}

int cuTensorMapEncodeTiled(void) { return NOT_SUPPORTED; }

int cuGetErrorName(int error, const char **name) {
  (void)error;
  *name = "FAKE_CUDA_DRIVER_ERROR";
  return SUCCESS;
}

int cuGetErrorString(int error, const char **text) { return cuGetErrorName(error, text); }
