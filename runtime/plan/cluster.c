/* cluster.c - reads a description: tables of keys, one per kind of mapping. */
#include "runtime/plan/cluster_int.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define FILE_BYTES_MAX (1u << 20)
#define KEYS_MAX       96u

struct reader {
    yaml_document_t *document;
    const char *path;
    struct spw_cluster *cluster;
    struct spw_error *error;
};

#define FAIL_AT(reader, node, ...) fail_at(reader, (node)->start_mark.line + 1, __VA_ARGS__)

static enum spw_status fail_at(const struct reader *reader, size_t line, const char *format, ...)
    SPW_PRINTF(3, 4);

static enum spw_status fail_at(const struct reader *reader, size_t line, const char *format, ...)
{
    char words[SPW_ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(words, sizeof(words), format, args);
    va_end(args);
    for (char *at = words; *at; at++)
        if ((unsigned char)*at < 0x20 || (unsigned char)*at > 0x7e)
            *at = '?';
    return spw_fail(reader->error, SPW_CONFIG, "%.200s line %zu: %s", reader->path, line, words);
}

/* ---- single values ---- */

static bool choice_index(const char *choices, const char *value, uint64_t *out_index)
{
    uint64_t index = 0;
    for (const char *at = choices; *at; index++) {
        size_t word = strcspn(at, " ");
        if (word == strlen(value) && memcmp(at, value, word) == 0) {
            *out_index = index;
            return true;
        }
        at += word + (at[word] == ' ');
    }
    return false;
}

static void store(char *at, size_t size, uint64_t value)
{
    uint32_t small = (uint32_t)value;
    bool truth = value != 0;
    if (size == sizeof(value))
        memcpy(at, &value, size);
    else if (size == sizeof(small))
        memcpy(at, &small, size);
    else
        memcpy(at, &truth, sizeof(truth));
}

/* Text of a scalar, or what else it is. */
static enum spw_status scalar_text(const struct reader *reader, const yaml_node_t *node,
                                   const char *name, const char **out_text)
{
    if (node->type != YAML_SCALAR_NODE)
        return FAIL_AT(reader, node, "%.64s must be a single value, not a %s", name,
                       node->type == YAML_SEQUENCE_NODE ? "list" : "mapping");
    const char *text = (const char *)node->data.scalar.value;
    if (strlen(text) != node->data.scalar.length)
        return FAIL_AT(reader, node, "%.64s contains a zero byte", name);
    *out_text = text;
    return SPW_OK;
}

/* Set one value from text. base: the struct that the key's offset belongs to. */
static enum spw_status set_value(const struct reader *reader, const struct spw_cluster_key *key,
                                 void *base, const char *text, size_t line)
{
    char *at = (char *)base + key->offset, low[32], high[32];
    uint64_t value = 0;
    switch (key->kind) {
    case SPW_CLUSTER_TEXT:
        if (!text[0] || strlen(text) >= key->size)
            return fail_at(reader, line, "%s has %zu characters: 1 to %zu are allowed", key->name,
                           strlen(text), key->size - 1);
        for (const char *c = text; *c; c++)
            if ((unsigned char)*c < 0x20 || *c == 0x7f)
                return fail_at(reader, line, "%s has a control character", key->name);
        memset(at, 0, key->size);
        memcpy(at, text, strlen(text));
        return SPW_OK;
    case SPW_CLUSTER_CHOICE:
        if (!choice_index(key->choices, text, &value))
            return fail_at(reader, line, "%s is '%.64s': one of %s is right", key->name, text,
                           key->choices);
        break;
    case SPW_CLUSTER_SWITCH:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return fail_at(reader, line, "%s is '%.64s': true or false is right", key->name, text);
        value = text[0] == 't';
        break;
    case SPW_CLUSTER_U32:
    case SPW_CLUSTER_U64:
        spw_cluster_decimal_print(key->min, key->digits, low, sizeof(low));
        spw_cluster_decimal_print(key->max, key->digits, high, sizeof(high));
        if (!spw_cluster_decimal_parse(text, key->digits, &value))
            return fail_at(reader, line, "%s is '%.64s': a%s number from %s to %s is right%s",
                           key->name, text, key->digits ? "" : " whole", low, high,
                           key->digits ? ", with a few decimals at most" : "");
        if (value < key->min || value > key->max)
            return fail_at(reader, line, "%s is %.64s: %s to %s is allowed", key->name, text, low,
                           high);
        break;
    case SPW_CLUSTER_SECTION:
        return SPW_INTERNAL;
    }
    store(at, key->size, value);
    return SPW_OK;
}

/* ---- mappings ---- */

static enum spw_status read_section(const struct reader *reader, const struct spw_cluster_key *key,
                                    const yaml_node_t *node, void *base);

/* Names of a section's keys, for messages. */
static void list_keys(enum spw_cluster_section section, char *out, size_t bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < spw_cluster_key_count && used + 2 < bytes; i++) {
        if (spw_cluster_keys[i].section != section)
            continue;
        int wrote =
            snprintf(out + used, bytes - used, "%s%s", used ? ", " : "", spw_cluster_keys[i].name);
        used += wrote > 0 ? (size_t)wrote : 0;
    }
}

static enum spw_status check_mapping(const struct reader *reader, const yaml_node_t *node,
                                     const char *name)
{
    if (node->type != YAML_MAPPING_NODE)
        return FAIL_AT(reader, node, "%s must be lines of `key: value`", name);
    return SPW_OK;
}

/* Keys of one section into base. */
static enum spw_status read_keys(const struct reader *reader, enum spw_cluster_section section,
                                 const char *name, const yaml_node_t *node, void *base)
{
    bool seen[KEYS_MAX] = {false};
    enum spw_status status = check_mapping(reader, node, name);
    assert(spw_cluster_key_count <= KEYS_MAX);
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         !status && pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key_node = yaml_document_get_node(reader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
        const char *text = "", *value_text = "";
        size_t at = 0;
        status = scalar_text(reader, key_node, "a key", &text);
        if (status)
            break;
        while (at < spw_cluster_key_count && !(spw_cluster_keys[at].section == section &&
                                               strcmp(spw_cluster_keys[at].name, text) == 0))
            at++;
        if (at == spw_cluster_key_count) {
            char known[SPW_ERROR_TEXT_MAX];
            list_keys(section, known, sizeof(known));
            return FAIL_AT(reader, key_node, "unknown key '%.64s'%s%s: %s are known", text,
                           section == SPW_CLUSTER_AT_TOP ? "" : " of ",
                           section == SPW_CLUSTER_AT_TOP ? "" : name, known);
        }
        if (seen[at])
            return FAIL_AT(reader, key_node, "key '%.64s' is there twice: keep one", text);
        seen[at] = true;
        if (spw_cluster_keys[at].kind == SPW_CLUSTER_SECTION) {
            status = read_section(reader, &spw_cluster_keys[at], value, base);
            continue;
        }
        status = scalar_text(reader, value, spw_cluster_keys[at].name, &value_text);
        if (!status)
            status = set_value(reader, &spw_cluster_keys[at], base, value_text,
                               value->start_mark.line + 1);
    }
    for (size_t i = 0; i < spw_cluster_key_count && !status; i++)
        if (spw_cluster_keys[i].section == section &&
            spw_cluster_keys[i].kind != SPW_CLUSTER_SECTION && !spw_cluster_keys[i].fallback &&
            !seen[i])
            status =
                FAIL_AT(reader, node, "%s has no %s: it is needed", name, spw_cluster_keys[i].name);
    return status;
}

/* A pair of a map from names to numbers. */
static enum spw_status read_named(const struct reader *reader, const yaml_node_pair_t *pair,
                                  const char *what, unsigned digits, uint64_t min, uint64_t max,
                                  char *out_name, uint64_t *out_value)
{
    const yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
    const yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
    const char *name = "", *text = "";
    char low[32], high[32];
    enum spw_status status = scalar_text(reader, key, what, &name);
    if (!status)
        status = scalar_text(reader, value, what, &text);
    if (status)
        return status;
    if (!name[0] || strlen(name) >= SPW_CLUSTER_NAME_MAX)
        return FAIL_AT(reader, key, "the name of a %s must have 1 to %u characters", what,
                       SPW_CLUSTER_NAME_MAX - 1);
    spw_cluster_decimal_print(min, digits, low, sizeof(low));
    spw_cluster_decimal_print(max, digits, high, sizeof(high));
    if (!spw_cluster_decimal_parse(text, digits, out_value) || *out_value < min || *out_value > max)
        return FAIL_AT(reader, value, "%s '%.64s' is '%.64s': a number from %s to %s is right",
                       what, name, text, low, high);
    memset(out_name, 0, SPW_CLUSTER_NAME_MAX);
    memcpy(out_name, name, strlen(name));
    return SPW_OK;
}

static enum spw_status read_tenants(const struct reader *reader, const yaml_node_t *node)
{
    struct spw_cluster *cluster = reader->cluster;
    enum spw_status status = check_mapping(reader, node, "tenants");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         !status && pair < node->data.mapping.pairs.top; pair++) {
        struct spw_cluster_tenant tenant;
        uint64_t weight = 0;
        status = read_named(reader, pair, "tenant", 0, 1, 1000000, tenant.name, &weight);
        if (status)
            break;
        tenant.weight = (uint32_t)weight;
        uint32_t at = 0;
        while (at < cluster->tenant_count && strcmp(cluster->tenants[at].name, tenant.name) != 0)
            at++;
        if (at < cluster->tenant_count && at > 0)
            return FAIL_AT(reader, node, "tenant '%s' is there twice: keep one", tenant.name);
        if (at == SPW_CLUSTER_TENANTS_MAX)
            return FAIL_AT(reader, node, "more than %u tenants", SPW_CLUSTER_TENANTS_MAX);
        cluster->tenants[at] = tenant; /* "default" is the first */
        cluster->tenant_count = SPW_MAX(cluster->tenant_count, at + 1);
    }
    return status;
}

static enum spw_status read_classes(const struct reader *reader, const yaml_node_t *node)
{
    struct spw_cluster *cluster = reader->cluster;
    uint64_t sum = 0;
    enum spw_status status = check_mapping(reader, node, "classes");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         !status && pair < node->data.mapping.pairs.top; pair++) {
        struct spw_cluster_class class;
        uint64_t share = 0;
        status = read_named(reader, pair, "class", 6, 0, 1000000, class.name, &share);
        if (status)
            break;
        class.share_ppm = (uint32_t)share;
        for (uint32_t i = 0; i < cluster->class_count; i++)
            if (strcmp(cluster->classes[i].name, class.name) == 0)
                return FAIL_AT(reader, node, "class '%s' %s", class.name,
                               i ? "is there twice: keep one"
                                 : "is what the others leave: give shares to the others only");
        if (cluster->class_count == SPW_CLUSTER_CLASSES_MAX)
            return FAIL_AT(reader, node, "more than %u classes", SPW_CLUSTER_CLASSES_MAX - 1);
        cluster->classes[cluster->class_count++] = class;
        sum += share;
    }
    if (!status && sum > 1000000)
        return FAIL_AT(reader, node, "the classes' shares add up to more than 1");
    if (!status)
        cluster->classes[0].share_ppm = (uint32_t)(1000000 - sum);
    return status;
}

static enum spw_status read_site_classes(const struct reader *reader, const yaml_node_t *node,
                                         struct spw_cluster_site *site)
{
    const struct spw_cluster *cluster = reader->cluster;
    if (node->type != YAML_SEQUENCE_NODE)
        return FAIL_AT(reader, node, "classes of a site must be a list of class names");
    for (yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top; item++) {
        const yaml_node_t *name_node = yaml_document_get_node(reader->document, *item);
        const char *name = "";
        enum spw_status status = scalar_text(reader, name_node, "a class", &name);
        uint32_t at = 0;
        if (status)
            return status;
        while (at < cluster->class_count && strcmp(cluster->classes[at].name, name) != 0)
            at++;
        if (at == cluster->class_count)
            return FAIL_AT(reader, name_node,
                           "unknown class '%.64s': name it under `classes`, before `sites`", name);
        site->terms.classes |= 1u << at;
    }
    return SPW_OK;
}

static enum spw_status set_defaults(const struct reader *reader, enum spw_cluster_section section,
                                    void *base)
{
    enum spw_status status = SPW_OK;
    for (size_t i = 0; i < spw_cluster_key_count && !status; i++)
        if (spw_cluster_keys[i].section == section && spw_cluster_keys[i].fallback &&
            spw_cluster_keys[i].fallback[0])
            status = set_value(reader, &spw_cluster_keys[i], base, spw_cluster_keys[i].fallback, 0);
    assert(!status);
    return status;
}

static enum spw_status read_sites(const struct reader *reader, const yaml_node_t *node)
{
    struct spw_cluster *cluster = reader->cluster;
    if (node->type != YAML_SEQUENCE_NODE)
        return FAIL_AT(reader, node, "sites must be a list: `- name: ...`");
    for (yaml_node_item_t *item = node->data.sequence.items.start;
         item < node->data.sequence.items.top; item++) {
        const yaml_node_t *site_node = yaml_document_get_node(reader->document, *item);
        if (cluster->site_count == SPW_OVERFLOW_SITES_MAX)
            return FAIL_AT(reader, site_node, "more than %u sites", SPW_OVERFLOW_SITES_MAX);
        struct spw_cluster_site *site = &cluster->sites[cluster->site_count];
        *site = (struct spw_cluster_site){.terms = {.concurrency = 1}};
        for (size_t w = 0; w < SPW_OVERFLOW_WINDOWS; w++)
            site->terms.cap_nano[w] = SPW_OVERFLOW_NO_CAP;
        enum spw_status status = set_defaults(reader, SPW_CLUSTER_AT_SITE, site);
        if (!status)
            status = read_keys(reader, SPW_CLUSTER_AT_SITE, "a site", site_node, site);
        if (!status && !site->terms.classes)
            status = FAIL_AT(reader, site_node,
                             "site '%s' may take no class: list `classes` that may leave, "
                             "`default` for requests without one",
                             site->name);
        for (uint32_t i = 0; i < cluster->site_count && !status; i++)
            if (strcmp(cluster->sites[i].name, site->name) == 0)
                status = FAIL_AT(reader, site_node, "site '%s' is there twice", site->name);
        if (status)
            return status;
        cluster->site_count++;
    }
    return SPW_OK;
}

static enum spw_status read_section(const struct reader *reader, const struct spw_cluster_key *key,
                                    const yaml_node_t *node, void *base)
{
    switch (key->opens) {
    case SPW_CLUSTER_AT_TENANTS:
        return read_tenants(reader, node);
    case SPW_CLUSTER_AT_CLASSES:
        return read_classes(reader, node);
    case SPW_CLUSTER_AT_SITES:
        return read_sites(reader, node);
    case SPW_CLUSTER_AT_SITE_CLASSES:
        return read_site_classes(reader, node, base);
    case SPW_CLUSTER_AT_COST:
    case SPW_CLUSTER_AT_GOALS:
        return read_keys(reader, key->opens, key->name, node, base);
    case SPW_CLUSTER_AT_TOP:
    case SPW_CLUSTER_AT_SITE:
        break;
    }
    return SPW_INTERNAL;
}

/* ---- the whole ---- */

static enum spw_status check(struct spw_cluster *cluster, const char *path, struct spw_error *error)
{
    if (cluster->prefill || cluster->decode)
        return spw_fail(error, SPW_CONFIG,
                        "%s: prefill is %u and decode is %u: this version plans mixed replicas "
                        "only, set both to 0 and use replicas",
                        path, cluster->prefill, cluster->decode);
    if (!cluster->kv_blocks == !cluster->kv_tokens)
        return spw_fail(error, SPW_CONFIG,
                        "%s: %s: kv_blocks or kv_tokens of one replica is needed", path,
                        cluster->kv_blocks ? "kv_blocks and kv_tokens are both there, keep one"
                                           : "the KV memory is missing");
    if (!cluster->kv_blocks)
        cluster->kv_blocks = cluster->kv_tokens / cluster->block_tokens;
    cluster->kv_tokens = 0;
    if (cluster->kv_blocks < 1 || cluster->kv_blocks > 1u << 31)
        return spw_fail(error, SPW_CONFIG, "%s: kv_tokens gives %llu blocks: 1 to %u is right",
                        path, (unsigned long long)cluster->kv_blocks, 1u << 31);
    if (!cluster->prefill_chunk)
        cluster->prefill_chunk = cluster->step_tokens;
    if (cluster->prefill_chunk > cluster->step_tokens)
        return spw_fail(error, SPW_CONFIG,
                        "%s: prefill_chunk is %u, step_tokens %u: at most that fits", path,
                        cluster->prefill_chunk, cluster->step_tokens);
    if (cluster->disk_blocks && !cluster->host_blocks)
        return spw_fail(error, SPW_CONFIG,
                        "%s: disk_blocks is %u without host_blocks: blocks go to disk through host "
                        "memory, set host_blocks",
                        path, cluster->disk_blocks);
    if (!cluster->cost.fixed_ns && !cluster->cost.row_ps)
        return spw_fail(error, SPW_CONFIG,
                        "%s: cost has neither fixed_us nor row_us: a step must take some time; "
                        "measure a deployment with `spillway plan --calibrate`",
                        path);
    if (cluster->error_p50_ppm > cluster->error_p90_ppm)
        return spw_fail(error, SPW_CONFIG,
                        "%s: error_p50 is above error_p90: the median cannot be the larger one",
                        path);
    struct spw_sched_config config;
    const char *reason = NULL;
    spw_cluster_sched_config(cluster, cluster->replicas, cluster->queue, &config);
    if (!spw_sched_bytes(&config, &reason))
        return spw_fail(error, SPW_CONFIG, "%s: %s", path, reason ? reason : "out of range");
    return SPW_OK;
}

static enum spw_status read_root(const struct reader *reader, yaml_parser_t *parser)
{
    const yaml_node_t *root = yaml_document_get_root_node(reader->document);
    yaml_document_t rest;
    if (!root)
        return spw_fail(reader->error, SPW_CONFIG, "%s: is empty: a description is expected",
                        reader->path);
    enum spw_status status =
        read_keys(reader, SPW_CLUSTER_AT_TOP, "a description", root, reader->cluster);
    if (status)
        return status;
    if (!yaml_parser_load(parser, &rest))
        return fail_at(reader, parser->problem_mark.line + 1, "not YAML: %s",
                       parser->problem ? parser->problem : "cannot be read");
    if (yaml_document_get_root_node(&rest))
        status =
            fail_at(reader, rest.start_mark.line + 1, "a second document begins: one is expected");
    yaml_document_delete(&rest);
    return status;
}

enum spw_status spw_cluster_parse(const char *path, const char *text, size_t bytes,
                                  struct spw_cluster *out_cluster, struct spw_error *error)
{
    struct spw_cluster cluster = {.tenant_count = 1, .class_count = 1};
    struct reader reader = {.path = path, .cluster = &cluster, .error = error};
    yaml_parser_t parser;
    yaml_document_t document;
    if (bytes > FILE_BYTES_MAX)
        return spw_fail(error, SPW_CONFIG, "%s has %zu bytes: at most %u are read", path, bytes,
                        FILE_BYTES_MAX);
    memcpy(cluster.tenants[0].name, "default", sizeof("default"));
    cluster.tenants[0].weight = 1;
    memcpy(cluster.classes[0].name, "default", sizeof("default"));
    cluster.classes[0].share_ppm = 1000000;
    enum spw_status status = set_defaults(&reader, SPW_CLUSTER_AT_TOP, &cluster);
    if (!status)
        status = set_defaults(&reader, SPW_CLUSTER_AT_COST, &cluster);
    if (!status)
        status = set_defaults(&reader, SPW_CLUSTER_AT_GOALS, &cluster);
    if (status)
        return status;
    if (!yaml_parser_initialize(&parser))
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    if (!yaml_parser_load(&parser, &document)) {
        status = fail_at(&reader, parser.problem_mark.line + 1, "not YAML: %s",
                         parser.problem ? parser.problem : "cannot be read");
    } else {
        reader.document = &document;
        status = read_root(&reader, &parser);
        yaml_document_delete(&document);
    }
    yaml_parser_delete(&parser);
    if (!status)
        status = check(&cluster, path, error);
    if (!status)
        *out_cluster = cluster;
    return status;
}

enum spw_status spw_cluster_read(const char *path, struct spw_cluster *out_cluster,
                                 struct spw_error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return spw_fail(error, SPW_CONFIG, "cluster description %s: %s", path, strerror(errno));
    char *text = malloc(FILE_BYTES_MAX + 1);
    size_t bytes = text ? fread(text, 1, FILE_BYTES_MAX + 1, file) : 0;
    bool bad = ferror(file) != 0;
    fclose(file);
    enum spw_status status =
        !text ? spw_fail(error, SPW_NO_MEMORY, "out of memory")
        : bad ? spw_fail(error, SPW_CONFIG, "cluster description %s cannot be read", path)
              : spw_cluster_parse(path, text, bytes, out_cluster, error);
    free(text);
    return status;
}
