/* tenants.h - who shares a deployment: names, weights, places in the queue.
 *
 * Room:      runtime
 * Threads:   made while starting, constant while serving
 * Ownership: its own memory
 * Errors:    words that name the entry and what would be right
 *
 * The text is a list `NAME=WEIGHT` or `NAME=WEIGHT:QUEUE`, separated by commas:
 * "research=3,web=1:200". Tenant 0 is always "default", with weight 1 unless the list says another.
 */
#ifndef SPW_TENANTS_H
#define SPW_TENANTS_H

#include "runtime/base/hash.h"
#include "runtime/base/status.h"

#define SPW_TENANT_NAME_MAX   63u
#define SPW_TENANT_WEIGHT_MAX 1000000u
#define SPW_TENANTS_MAX       1024u /* with the default one */
#define SPW_TENANT_DEFAULT    "default"

struct spw_tenant {
    char name[SPW_TENANT_NAME_MAX + 1]; /* [a-z0-9_.-] */
    uint32_t weight;
    uint32_t queue;          /* of its requests may wait */
    struct spw_digest chain; /* where the hashes of its blocks begin (prefix.h) */
};

struct spw_tenants {
    uint32_t count;
    struct spw_tenant list[];
};

/* queue: what all tenants together may have waiting, and the bound of each QUEUE. SPW_CONFIG,
 * SPW_NO_MEMORY.
 */
enum spw_status spw_tenants_parse(const char *text, uint32_t queue,
                                  struct spw_tenants **out_tenants, struct spw_error *error);
void spw_tenants_destroy(struct spw_tenants *tenants); /* accepts NULL */

/* False when there is none of that name. tenants NULL: the default one alone. */
bool spw_tenants_find(const struct spw_tenants *tenants, const char *name, uint32_t *out_tenant);

#endif
