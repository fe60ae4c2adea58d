# What llama.cpp's own programs share takes as long to compile as the library, which doesn't need it.
set(LLAMA_BUILD_COMMON OFF)
