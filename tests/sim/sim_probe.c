#include "tests/sim/sim_probe.h"

static const struct {
    const char *name;
    bool on;
    const char *words;
} table[] = {
#define X(name, on, words) {#name, on, words},
    SIM_PROBE_TABLE(X)
#undef X
};

bool sim_probes_print(const struct sim_probes *probes, FILE *out)
{
    bool all = true;
    for (uint32_t i = 0; i < SIM_PROBE_COUNT; i++) {
        bool missing = table[i].on && probes->seen[i] == 0;
        all = all && !missing;
        if (table[i].on || probes->seen[i])
            fprintf(out, "probe %-18s %10llu  %s%s\n", table[i].name,
                    (unsigned long long)probes->seen[i], table[i].words,
                    missing ? "  <- never" : "");
    }
    return all;
}
