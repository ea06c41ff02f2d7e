#include "runtime/tenants.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char name_bytes[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";

/* Digits from *at to the first other byte; false for none or more than `most`. */
static bool take_number(const char **at, uint32_t most, uint32_t *out_number)
{
    uint64_t number = 0;
    const char *digit = *at;
    for (; *digit >= '0' && *digit <= '9' && number <= most; digit++)
        number = 10 * number + (uint64_t)(*digit - '0');
    if (digit == *at || number < 1 || number > most)
        return false;
    *at = digit;
    *out_number = (uint32_t)number;
    return true;
}

/* Words that name the entry: its number, its text, and what is wrong. */
static enum spw_status wrong(struct spw_error *error, uint32_t entry, const char *text,
                             size_t bytes, const char *words)
{
    return spw_fail(
        error, SPW_CONFIG,
        "tenants: entry %u '%.*s': %s; NAME=WEIGHT or NAME=WEIGHT:QUEUE is right, as in "
        "research=3,web=1:200",
        entry, (int)SPW_MIN(bytes, 80u), text, words);
}

/* One entry, without the spaces around it. */
static enum spw_status take_entry(struct spw_tenants *tenants, uint32_t entry, const char *text,
                                  size_t bytes, uint32_t queue, struct spw_error *error)
{
    char words[120];
    size_t name = strspn(text, name_bytes);
    struct spw_tenant tenant = {.queue = queue};
    uint32_t index = 0;
    if (name == 0 || name >= bytes || text[name] != '=')
        return wrong(error, entry, text, bytes,
                     "a name of a-z, 0-9, _, . and - and then = are expected");
    if (name > SPW_TENANT_NAME_MAX)
        return wrong(error, entry, text, bytes, "the name has more than 63 characters");
    memcpy(tenant.name, text, name);
    const char *at = text + name + 1;
    if (!take_number(&at, SPW_TENANT_WEIGHT_MAX, &tenant.weight))
        return wrong(error, entry, text, bytes, "the weight must be a number from 1 to 1000000");
    if (*at == ':') {
        at++;
        if (!take_number(&at, queue, &tenant.queue)) {
            snprintf(words, sizeof(words),
                     "the queue must be a number from 1 to %u, the knob queue", queue);
            return wrong(error, entry, text, bytes, words);
        }
    }
    if (at != text + bytes)
        return wrong(error, entry, text, bytes, "something follows");
    if (!spw_tenants_find(tenants, tenant.name, &index)) {
        if (tenants->count == SPW_TENANTS_MAX) {
            snprintf(words, sizeof(words), "at most %u tenants beside 'default' are possible",
                     SPW_TENANTS_MAX - 1);
            return wrong(error, entry, text, bytes, words);
        }
        index = tenants->count++;
    } else if (tenants->list[index].weight) {
        return wrong(error, entry, text, bytes, "the tenant is there twice");
    }
    tenants->list[index] = tenant;
    return SPW_OK;
}

enum spw_status spw_tenants_parse(const char *text, uint32_t queue,
                                  struct spw_tenants **out_tenants, struct spw_error *error)
{
    static const char space[] = " \t\r\n";
    enum spw_status status = SPW_OK;
    size_t entries = 1;
    for (const char *at = text; *at; at++)
        entries += *at == ',';
    entries = SPW_MIN(entries + 1, SPW_TENANTS_MAX);
    struct spw_tenants *tenants = calloc(1, sizeof(*tenants) + entries * sizeof(struct spw_tenant));
    if (!tenants)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory for the tenants");
    /* weight 0: not given yet */
    tenants->count = 1;
    memcpy(tenants->list[0].name, SPW_TENANT_DEFAULT, sizeof(SPW_TENANT_DEFAULT));
    bool any = text[strspn(text, space)] != '\0';
    const char *at = text;
    for (uint32_t entry = 1; any && !status; entry++) {
        size_t whole = strcspn(at, ",");
        size_t begin = SPW_MIN(strspn(at, space), whole), end = whole;
        while (end > begin && strchr(space, at[end - 1]))
            end--;
        status = take_entry(tenants, entry, at + begin, end - begin, queue, error);
        any = at[whole] == ',';
        at += whole + any;
    }
    if (status) {
        spw_tenants_destroy(tenants);
        return status;
    }
    if (!tenants->list[0].weight) {
        tenants->list[0].weight = 1;
        tenants->list[0].queue = queue;
    }
    *out_tenants = tenants;
    return SPW_OK;
}

void spw_tenants_destroy(struct spw_tenants *tenants)
{
    free(tenants);
}

bool spw_tenants_find(const struct spw_tenants *tenants, const char *name, uint32_t *out_tenant)
{
    *out_tenant = 0;
    if (!tenants)
        return strcmp(name, SPW_TENANT_DEFAULT) == 0;
    for (uint32_t i = 0; i < tenants->count; i++)
        if (strcmp(tenants->list[i].name, name) == 0) {
            *out_tenant = i;
            return true;
        }
    return false;
}
