/* kernels_select.c - which table of kernels this CPU runs. */
#include "runtime/engine/cpu/kernels_int.h"

#include <stdio.h>
#include <string.h>

static bool cpu_has(const struct spw_cpu_kernels *kernels)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (kernels == &spw_cpu_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (kernels == &spw_cpu_kernels_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return kernels == &spw_cpu_kernels_plain;
}

enum spw_status spw_cpu_kernels_select(const char *wanted,
                                       const struct spw_cpu_kernels **out_kernels,
                                       struct spw_error *error)
{
    static const struct spw_cpu_kernels *const tables[] = {
#if defined(__x86_64__)
        &spw_cpu_kernels_avx512,
        &spw_cpu_kernels_avx2,
#endif
        &spw_cpu_kernels_plain,
    };
    bool any = !wanted || wanted[0] == 0;
    char names[64] = "";
    for (size_t i = 0; i < SPW_ARRAY_COUNT(tables); i++) {
        if (!cpu_has(tables[i]))
            continue;
        if (any || strcmp(wanted, tables[i]->name) == 0) {
            *out_kernels = tables[i];
            return SPW_OK;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof(names) - used, "%s%s", used > 0 ? ", " : "", tables[i]->name);
    }
    return spw_fail(error, SPW_CONFIG, "SPILLWAY_CPU=%s: this CPU can run %s", wanted, names);
}
