/* cluster_keys.c - the keys of a cluster description, and how they are written. */
#include "runtime/plan/cluster_int.h"

#include <ctype.h>
#include <string.h>

#define U32_MAX_VALUE 4294967295ull
#define TIME_NS_MAX   3600000000000000ull /* 1000 hours */

#define FIELD(type, name) offsetof(struct type, name), sizeof(((struct type *)0)->name)
#define NUMBER(section, key, kind, type, name, digits, min, max, fallback)                         \
    {                                                                                              \
        section, key, kind, SPW_CLUSTER_AT_TOP, FIELD(type, name), digits, min, max, NULL,         \
            fallback                                                                               \
    }
#define TOP_U32(name, min, max, fallback)                                                          \
    NUMBER(SPW_CLUSTER_AT_TOP, #name, SPW_CLUSTER_U32, spw_cluster, name, 0, min, max, fallback)
#define TOP_U64(key, name, digits, min, max, fallback)                                             \
    NUMBER(SPW_CLUSTER_AT_TOP, key, SPW_CLUSTER_U64, spw_cluster, name, digits, min, max, fallback)
#define COST(key, name, digits)                                                                    \
    NUMBER(SPW_CLUSTER_AT_COST, key, SPW_CLUSTER_U64, spw_cluster, cost.name, digits, 0,           \
           TIME_NS_MAX, "0")
#define CHOICE(key, name, choices, fallback)                                                       \
    {                                                                                              \
        SPW_CLUSTER_AT_TOP, key, SPW_CLUSTER_CHOICE, SPW_CLUSTER_AT_TOP, FIELD(spw_cluster, name), \
            0, 0, 0, choices, fallback                                                             \
    }
#define OPENS(name, section)                                                                       \
    {                                                                                              \
        SPW_CLUSTER_AT_TOP, name, SPW_CLUSTER_SECTION, section, 0, 0, 0, 0, 0, NULL, NULL          \
    }
#define SITE(key, kind, name, digits, min, max, fallback)                                          \
    NUMBER(SPW_CLUSTER_AT_SITE, key, kind, spw_cluster_site, name, digits, min, max, fallback)
#define PRICE SPW_OVERFLOW_PRICE_MAX

const struct spw_cluster_key spw_cluster_keys[] = {
    {SPW_CLUSTER_AT_TOP, "name", SPW_CLUSTER_TEXT, SPW_CLUSTER_AT_TOP, FIELD(spw_cluster, name), 0,
     0, 0, NULL, "cluster"},
    {SPW_CLUSTER_AT_TOP, "currency", SPW_CLUSTER_TEXT, SPW_CLUSTER_AT_TOP,
     FIELD(spw_cluster, currency), 0, 0, 0, NULL, "USD"},
    TOP_U32(replicas, 1, 65536, "1"),
    TOP_U32(tensor, 1, 64, "1"),
    TOP_U32(pipeline, 1, SPW_SCHED_PIPELINE_MAX, "1"),
    TOP_U32(prefill, 0, 65536, "0"),
    TOP_U32(decode, 0, 65536, "0"),
    TOP_U32(slots, 1, 65536, "64"),
    TOP_U32(step_tokens, 1, 1048576, "512"),
    TOP_U32(prefill_chunk, 0, 1048576, "0"),
    TOP_U32(block_tokens, 1, 1024, "16"),
    TOP_U32(context_tokens, 2, 33554432, "131072"),
    TOP_U32(queue, 1, 16777216, "1024"),
    TOP_U64("kv_blocks", kv_blocks, 0, 0, 1ull << 31, "0"),
    TOP_U64("kv_tokens", kv_tokens, 0, 0, 1ull << 40, "0"),
    TOP_U32(host_blocks, 0, 1u << 31, "0"),
    TOP_U32(disk_blocks, 0, 1u << 31, "0"),
    TOP_U32(batch_permille, 0, 1000, "0"),
    TOP_U32(reserve_output_tokens, 0, SPW_OVERFLOW_TOKENS_MAX, "0"),
    TOP_U64("itl_bound_ms", itl_bound_ns, 6, 0, TIME_NS_MAX, "0"),
    TOP_U64("patience_ms", patience_ns, 6, 0, TIME_NS_MAX, "0"),
    TOP_U64("door_us", door_ns, 3, 0, TIME_NS_MAX, "0"),
    TOP_U64("price_per_hour", price_per_hour_micro, 6, 0, PRICE, "0"),
    {SPW_CLUSTER_AT_TOP, "prefix", SPW_CLUSTER_SWITCH, SPW_CLUSTER_AT_TOP,
     FIELD(spw_cluster, prefix), 0, 0, 1, NULL, "true"},
    CHOICE("evict", lru, "cost lru", "cost"),
    CHOICE("when_late", shed, "wait shed", "wait"),
    OPENS("cost", SPW_CLUSTER_AT_COST),
    OPENS("goals", SPW_CLUSTER_AT_GOALS),
    OPENS("tenants", SPW_CLUSTER_AT_TENANTS),
    OPENS("classes", SPW_CLUSTER_AT_CLASSES),
    OPENS("sites", SPW_CLUSTER_AT_SITES),
    COST("fixed_us", fixed_ns, 3),
    COST("row_us", row_ps, 6),
    COST("decode_context_ns", decode_context_ps, 3),
    COST("prefill_context_ns", prefill_context_ps, 3),
    COST("host_block_us", host_block_ns, 3),
    COST("disk_block_us", disk_block_ns, 3),
    NUMBER(SPW_CLUSTER_AT_COST, "error_p50", SPW_CLUSTER_U32, spw_cluster, error_p50_ppm, 6, 0,
           9000000, "0"),
    NUMBER(SPW_CLUSTER_AT_COST, "error_p90", SPW_CLUSTER_U32, spw_cluster, error_p90_ppm, 6, 0,
           9000000, "0"),
    NUMBER(SPW_CLUSTER_AT_GOALS, "ttft_ms", SPW_CLUSTER_U64, spw_cluster, goal_ttft_ns, 6, 0,
           TIME_NS_MAX, "0"),
    NUMBER(SPW_CLUSTER_AT_GOALS, "itl_ms", SPW_CLUSTER_U64, spw_cluster, goal_itl_ns, 6, 0,
           TIME_NS_MAX, "0"),
    NUMBER(SPW_CLUSTER_AT_GOALS, "attainment", SPW_CLUSTER_U32, spw_cluster, goal_ppm, 6, 0,
           1000000, "0.99"),
    {SPW_CLUSTER_AT_SITE, "name", SPW_CLUSTER_TEXT, SPW_CLUSTER_AT_TOP,
     FIELD(spw_cluster_site, name), 0, 0, 0, NULL, NULL},
    SITE("price_input", SPW_CLUSTER_U64, terms.input_micro, 6, 0, PRICE, NULL),
    SITE("price_output", SPW_CLUSTER_U64, terms.output_micro, 6, 0, PRICE, NULL),
    SITE("ttft_ms", SPW_CLUSTER_U64, terms.ttft_ns, 6, 0, TIME_NS_MAX, NULL),
    SITE("itl_ms", SPW_CLUSTER_U64, terms.itl_ns, 6, 0, TIME_NS_MAX, NULL),
    SITE("concurrency", SPW_CLUSTER_U32, terms.concurrency, 0, 1, 1u << 24, "1000"),
    SITE("budget_per_hour", SPW_CLUSTER_U64, terms.cap_nano[SPW_OVERFLOW_HOUR], 9, 0,
         U32_MAX_VALUE << 30, ""),
    SITE("budget_per_day", SPW_CLUSTER_U64, terms.cap_nano[SPW_OVERFLOW_DAY], 9, 0,
         U32_MAX_VALUE << 30, ""),
    SITE("budget_total", SPW_CLUSTER_U64, terms.cap_nano[SPW_OVERFLOW_TOTAL], 9, 0,
         U32_MAX_VALUE << 30, ""),
    {SPW_CLUSTER_AT_SITE, "classes", SPW_CLUSTER_SECTION, SPW_CLUSTER_AT_SITE_CLASSES, 0, 0, 0, 0,
     0, NULL, NULL},
};

const size_t spw_cluster_key_count = SPW_ARRAY_COUNT(spw_cluster_keys);

bool spw_cluster_decimal_parse(const char *text, unsigned digits, uint64_t *out_value)
{
    uint64_t value = 0;
    unsigned after = 0;
    bool point = false, any = false;
    for (const char *at = text; *at; at++) {
        if (*at == '_' && any)
            continue;
        if (*at == '.' && !point && digits) {
            point = true;
            continue;
        }
        if (!isdigit((unsigned char)*at) || value > UINT64_MAX / 10 - 1)
            return false;
        if (point && after == digits) {
            if (*at != '0')
                return false;
            continue;
        }
        value = value * 10 + (uint64_t)(*at - '0');
        after += point;
        any = true;
    }
    for (; after < digits; after++) {
        if (value > UINT64_MAX / 10)
            return false;
        value *= 10;
    }
    *out_value = value;
    return any;
}

void spw_cluster_decimal_print(uint64_t value, unsigned digits, char *out, size_t bytes)
{
    uint64_t scale = 1;
    for (unsigned i = 0; i < digits; i++)
        scale *= 10;
    int wrote = snprintf(out, bytes, "%llu", (unsigned long long)(value / scale));
    if (value % scale == 0 || wrote < 0 || (size_t)wrote + digits + 2 > bytes)
        return;
    snprintf(out + wrote, bytes - (size_t)wrote, ".%0*llu", (int)digits,
             (unsigned long long)(value % scale));
    for (size_t end = strlen(out); out[end - 1] == '0'; end--)
        out[end - 1] = '\0';
}

static uint64_t load(const char *at, size_t size)
{
    uint64_t value = 0;
    uint32_t small = 0;
    bool truth = false;
    if (size == sizeof(value)) {
        memcpy(&value, at, size);
    } else if (size == sizeof(small)) {
        memcpy(&small, at, size);
        value = small;
    } else {
        memcpy(&truth, at, sizeof(truth));
        value = truth;
    }
    return value;
}

void spw_cluster_sched_config(const struct spw_cluster *cluster, uint32_t replicas, uint32_t queue,
                              struct spw_sched_config *out_config)
{
    uint64_t running = (uint64_t)replicas * cluster->slots;
    *out_config = (struct spw_sched_config){
        .replicas = replicas,
        .requests_max = (uint32_t)SPW_MIN(running + queue + 64, 1u << 26),
        .waiting_max = queue,
        .slots = cluster->slots,
        .block_tokens = cluster->block_tokens,
        .kv_blocks = (uint32_t)cluster->kv_blocks,
        .context_tokens_max = cluster->context_tokens,
        .step_tokens_max = cluster->step_tokens,
        .step_seqs_max = SPW_MIN(cluster->slots, cluster->step_tokens),
        .prefill_chunk_max = cluster->prefill_chunk,
        .pipeline = cluster->pipeline,
        .tenants = cluster->tenant_count,
        .itl_goal_ns = cluster->itl_bound_ns,
        .patience_ns = cluster->patience_ns,
        .batch_permille = cluster->batch_permille,
        .prefix = cluster->prefix,
        .evict = cluster->lru ? SPW_SCHED_EVICT_LRU : SPW_SCHED_EVICT_COST,
        .host_blocks = cluster->host_blocks,
        .disk_blocks = cluster->disk_blocks,
        .transfers_max = cluster->host_blocks ? 16 : 0,
        .cost = cluster->cost,
    };
}

/* ---- writing ---- */

static void write_quoted(const char *text, FILE *out)
{
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', out);
        fputc(*text, out);
    }
    fputc('\'', out);
}

static void write_section(enum spw_cluster_section section, const char *indent, const void *base,
                          FILE *out)
{
    for (size_t i = 0; i < spw_cluster_key_count; i++) {
        const struct spw_cluster_key *key = &spw_cluster_keys[i];
        if (key->section != section || key->kind == SPW_CLUSTER_SECTION)
            continue;
        const char *at = (const char *)base + key->offset;
        uint64_t value = key->kind == SPW_CLUSTER_TEXT ? 0 : load(at, key->size);
        char text[48];
        if (key->kind == SPW_CLUSTER_TEXT) {
            fprintf(out, "%s%s: ", indent, key->name);
            write_quoted(at, out);
            fprintf(out, "\n");
            continue;
        }
        if (value == SPW_OVERFLOW_NO_CAP ||
            (value == 0 && key->fallback && strcmp(key->fallback, "0") == 0))
            continue; /* as it would be without the line */
        if (key->kind == SPW_CLUSTER_CHOICE) {
            const char *word = key->choices + (value ? strcspn(key->choices, " ") + 1 : 0);
            snprintf(text, sizeof(text), "%.*s", (int)strcspn(word, " "), word);
        } else if (key->kind == SPW_CLUSTER_SWITCH)
            snprintf(text, sizeof(text), "%s", value ? "true" : "false");
        else
            spw_cluster_decimal_print(value, key->digits, text, sizeof(text));
        fprintf(out, "%s%s: %s\n", indent, key->name, text);
    }
}

static void write_pair(const char *name, uint64_t value, unsigned digits, FILE *out)
{
    char text[48];
    spw_cluster_decimal_print(value, digits, text, sizeof(text));
    fprintf(out, "  ");
    write_quoted(name, out);
    fprintf(out, ": %s\n", text);
}

void spw_cluster_write(const struct spw_cluster *cluster, const char *head, FILE *out)
{
    fprintf(out, "%s", head);
    write_section(SPW_CLUSTER_AT_TOP, "", cluster, out);
    fprintf(out, "cost:\n");
    write_section(SPW_CLUSTER_AT_COST, "  ", cluster, out);
    fprintf(out, "goals:\n");
    write_section(SPW_CLUSTER_AT_GOALS, "  ", cluster, out);
    fprintf(out, "tenants:\n");
    for (uint32_t i = 0; i < cluster->tenant_count; i++)
        write_pair(cluster->tenants[i].name, cluster->tenants[i].weight, 0, out);
    if (cluster->class_count > 1)
        fprintf(out, "classes:\n");
    for (uint32_t i = 1; i < cluster->class_count; i++)
        write_pair(cluster->classes[i].name, cluster->classes[i].share_ppm, 6, out);
    if (cluster->site_count)
        fprintf(out, "sites:\n");
    for (uint32_t i = 0; i < cluster->site_count; i++) {
        const struct spw_cluster_site *site = &cluster->sites[i];
        fprintf(out, "  -\n");
        write_section(SPW_CLUSTER_AT_SITE, "    ", site, out);
        fprintf(out, "    classes: [");
        const char *comma = "";
        for (uint32_t c = 0; c < cluster->class_count; c++) {
            if (!(site->terms.classes >> c & 1))
                continue;
            fprintf(out, "%s", comma);
            write_quoted(cluster->classes[c].name, out);
            comma = ", ";
        }
        fprintf(out, "]\n");
    }
}
