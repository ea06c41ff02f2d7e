/* Fuzz target: cluster descriptions. What is taken can be given to the scheduler, and written and
 * read again as the same; what is refused says why. */
#include "runtime/plan/cluster.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct spw_cluster cluster, again;
    struct spw_error error = {{0}};
    struct spw_sched_config config;
    const char *reason = NULL;
    char *text = NULL;
    size_t length = 0;
    enum spw_status status =
        spw_cluster_parse("cluster.yaml", (const char *)data, bytes, &cluster, &error);
    assert((status == SPW_OK) == (error.text[0] == '\0'));
    if (status)
        return 0;
    spw_cluster_sched_config(&cluster, cluster.replicas, cluster.queue, &config);
    assert(spw_sched_bytes(&config, &reason) > 0);
    FILE *file = open_memstream(&text, &length);
    assert(file);
    spw_cluster_write(&cluster, "", file);
    fclose(file);
    status = spw_cluster_parse("again", text, length, &again, &error);
    assert(!status && memcmp(&cluster, &again, sizeof(cluster)) == 0);
    free(text);
    return 0;
}
