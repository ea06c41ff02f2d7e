/* cluster_int.h - the table of keys of a cluster description.
 *
 * Room:      runtime/plan (private)
 * Threads:   constant
 * Ownership: static
 */
#ifndef SPW_CLUSTER_INT_H
#define SPW_CLUSTER_INT_H

#include "runtime/plan/cluster.h"

/* Numbers are whole in a smaller unit: `digits` decimals may be written. */
enum spw_cluster_kind {
    SPW_CLUSTER_TEXT,
    SPW_CLUSTER_CHOICE,
    SPW_CLUSTER_U32,
    SPW_CLUSTER_U64,
    SPW_CLUSTER_SWITCH,
    SPW_CLUSTER_SECTION
};

enum spw_cluster_section {
    SPW_CLUSTER_AT_TOP,
    SPW_CLUSTER_AT_COST,
    SPW_CLUSTER_AT_GOALS,
    SPW_CLUSTER_AT_TENANTS,
    SPW_CLUSTER_AT_CLASSES,
    SPW_CLUSTER_AT_SITES,
    SPW_CLUSTER_AT_SITE,
    SPW_CLUSTER_AT_SITE_CLASSES,
};

struct spw_cluster_key {
    enum spw_cluster_section section;
    const char *name;
    enum spw_cluster_kind kind;
    enum spw_cluster_section opens; /* of SPW_CLUSTER_SECTION */
    size_t offset, size;
    unsigned digits;
    uint64_t min, max; /* in the smaller unit */
    const char *choices;
    const char *fallback; /* NULL: has to be there, or is computed */
};

extern const struct spw_cluster_key spw_cluster_keys[];
extern const size_t spw_cluster_key_count;

/* A decimal as a whole number of 10^-digits; false for anything else or more digits than that. */
bool spw_cluster_decimal_parse(const char *text, unsigned digits, uint64_t *out_value);
/* ... and as it would be written. */
void spw_cluster_decimal_print(uint64_t value, unsigned digits, char *out, size_t bytes);

#endif
