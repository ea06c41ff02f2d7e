/* sampler_kernel.h for any machine of this architecture. */
#define KERNELS      spw_sample_kernels_base
#define KERNELS_NAME "base"
#include "runtime/sample/sampler_kernel.h"
