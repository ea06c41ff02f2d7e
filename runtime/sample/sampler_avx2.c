/* sampler_kernel.h compiled with the flags that CMakeLists.txt gives this file. */
#define KERNELS      spw_sample_kernels_avx2
#define KERNELS_NAME "avx2"
#include "runtime/sample/sampler_kernel.h"
