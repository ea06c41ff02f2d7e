#include "runtime/config.h"

#include "runtime/tenants.h"
#include "transport/tp.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define FILE_BYTES_MAX (1u << 20)

extern char **environ;

enum knob_type { KNOB_TEXT, KNOB_CHOICE, KNOB_U32, KNOB_BYTES, KNOB_SWITCH };

/* One row per knob. Key with underscores in the site file, with dashes as a flag. */
struct knob {
    const char *key;
    enum knob_type type;
    size_t offset, size;
    uint64_t min, max;    /* of numbers */
    const char *choices;  /* of KNOB_CHOICE: "a b c" */
    const char *fallback; /* default, as it would be written */
    bool agreed;          /* all ranks must have the same */
    bool flag_only;       /* has no meaning in a site file */
    const char *help;
};

#define FIELD(name) offsetof(struct spw_config, name), sizeof(((struct spw_config *)0)->name)
#define TEXT(name, fallback, help)                                                                 \
    {                                                                                              \
#name, KNOB_TEXT, FIELD(name), 0, 0, NULL, fallback, false, false, help                    \
    }
#define CHOICE(name, choices, fallback, agreed, help)                                              \
    {                                                                                              \
#name, KNOB_CHOICE, FIELD(name), 0, 0, choices, fallback, agreed, false, help              \
    }
#define U32(name, min, max, fallback, agreed, help)                                                \
    {                                                                                              \
#name, KNOB_U32, FIELD(name), min, max, NULL, fallback, agreed, false, help                \
    }
#define BYTES(name, min, max, fallback, agreed, help)                                              \
    {                                                                                              \
#name, KNOB_BYTES, FIELD(name), min, max, NULL, fallback, agreed, false, help              \
    }
#define SWITCH(name, flag_only, help)                                                              \
    {                                                                                              \
#name, KNOB_SWITCH, FIELD(name), 0, 1, NULL, "false", false, flag_only, help               \
    }

static const struct knob knobs[] = {
    {"site", KNOB_TEXT, FIELD(site), 0, 0, NULL, "", false, true,
     "site file (YAML) with any of these keys"},
    TEXT(model, "", "Hugging Face folder of a llama model"),
    TEXT(model_name, "", "what clients call the model; default: the folder's name"),
    TEXT(site_name, "local", "what answers name as the site that served them"),
    U32(tensor, 1, 8, "1", true, "tensor-parallel ranks of a stage: 1, 2, 4 or 8"),
    U32(pipeline, 1, 64, "1", true, "pipeline stages of a replica"),
    U32(replicas, 1, 1024, "1", true, "replicas of the model"),
    U32(prefill, 0, 1024, "0", true, "prefill-only replicas: 0 in this version"),
    U32(decode, 0, 1024, "0", true, "decode-only replicas: 0 in this version"),
    U32(gateways, 0, 64, "1", true, "gateway ranks"),
    U32(spares, 0, 1024, "0", true, "spare ranks: 0 in this version"),
    CHOICE(dtype, "auto f32 bf16", "auto", true, "type of packed weights and KV; auto: as stored"),
    U32(threads, 0, 1024, "0", false, "computing threads of a worker; 0: its share of the cores"),
    SWITCH(pin, false, "bind computing threads to cores"),
    BYTES(kv_bytes, 0, 1ull << 50, "0", true,
          "KV memory of a worker; 0: a share of the host's memory"),
    BYTES(host_kv_bytes, 0, 1ull << 50, "0", true,
          "host memory of a worker for KV blocks that leave kv-bytes; 0: none"),
    BYTES(disk_kv_bytes, 0, 1ull << 50, "0", true,
          "disk of a worker for KV blocks, kept over restarts; 0: none; with kv-dir"),
    TEXT(kv_dir, "", "folder on a local disk for disk-kv-bytes; one deployment at a time"),
    U32(block_tokens, 8, 256, "16", true, "positions of a KV block, a power of two"),
    U32(context_tokens, 0, 1u << 24, "0", true,
        "longest prompt and answer together; 0: the model's"),
    U32(step_tokens, 1, 65536, "512", true, "rows of one step"),
    U32(prefill_chunk, 0, 65536, "0", true, "rows of one request in a step; 0: step-tokens"),
    U32(slots, 1, SPW_SLOTS_MAX, "64", true, "requests of a replica that run at once"),
    U32(queue, 1, 1u << 20, "1024", true, "requests that may wait"),
    CHOICE(prefix_cache, "off tenant all", "tenant", true, "who shares computed prompt blocks"),
    CHOICE(evict, "cost lru", "cost", false, "which cached block goes first when room is needed"),
    TEXT(tenants, "", "NAME=WEIGHT or NAME=WEIGHT:QUEUE, separated by commas"),
    U32(prompt_weight, 0, 1000, "1", false, "what a prompt token counts in a tenant's share"),
    U32(output_weight, 0, 1000, "2", false, "what an output token counts in a tenant's share"),
    U32(itl_goal_ms, 0, 3600000, "0", false, "goal for the time between tokens; 0: none"),
    U32(patience_ms, 1, 86400000, "10000", false, "order of requests without a deadline"),
    U32(batch_share_percent, 0, 100, "10", false, "tokens that priority low gets at least"),
    BYTES(body_bytes, 1024, 1ull << 30, "4M", false, "largest request body from a client"),
    U32(step_timeout_seconds, 1, 86400, "60", true, "a step that takes longer ends its replica"),
    U32(start_timeout_seconds, 1, 86400, "600", true, "all ranks must be ready by then"),
    TEXT(http, "127.0.0.1:8000", "HOST:PORT of the OpenAI HTTP API, port 0: any; empty: none"),
    TEXT(grpc, "127.0.0.1:8001", "HOST:PORT of the gRPC API, port 0: any; empty: none"),
    {"unix", KNOB_TEXT, FIELD(unix_path), 0, 0, NULL, "", false, false,
     "socket path: HTTP at PATH, gRPC at PATH.grpc"},
    TEXT(tls_cert, "", "PEM certificate of both doors; with tls-key"),
    TEXT(tls_key, "", "PEM key of the certificate"),
    TEXT(tls_client_ca, "", "PEM authority that client certificates must come from"),
    CHOICE(log_level, "error warn info debug trace", "info", false, "how much is logged"),
    TEXT(log_dir, "", "a log file per rank here; default: standard error"),
    TEXT(state_dir, "", "where up --daemon leaves its state; default: $XDG_RUNTIME_DIR/spillway"),
    SWITCH(record_logits, false, "log a digest of every answer's logits"),
    SWITCH(tcp_only, false, "no shared memory between ranks"),
    SWITCH(dry_run, true, "print rank, host, device and role, start nothing"),
    SWITCH(daemon, true, "up: return when ready; spillway down ends it"),
};

/* Variables that are not knobs. */
static const char *const other_variables[] = {"CPU", "RANK_COMMAND", "ADDRESS"};

/* Keys compare with '-' and '_' alike. */
static bool key_equal(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
            return false;
    return *a == *b;
}

static const struct knob *find_knob(const char *key)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(knobs); i++)
        if (key_equal(knobs[i].key, key))
            return &knobs[i];
    return NULL;
}

static bool is_choice(const char *choices, const char *value)
{
    size_t bytes = strlen(value);
    for (const char *at = choices; bytes && *at;) {
        size_t word = strcspn(at, " ");
        if (word == bytes && memcmp(at, value, bytes) == 0)
            return true;
        at += word + (at[word] == ' ');
    }
    return false;
}

/* Decimal digits, with K, M, G, T (powers of 1024, "KiB" and "KB" too) for byte sizes. */
static bool parse_number(const char *text, bool bytes, uint64_t *out_value)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno)
        return false;
    static const char units[] = "KMGT";
    const char *unit = bytes && *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (unit) {
        unsigned shift = 10 * (unsigned)(unit - units + 1);
        if (value > UINT64_MAX >> shift)
            return false;
        value <<= shift;
        end++;
        if (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0)
            end += strlen(end);
    }
    *out_value = value;
    return *end == '\0';
}

static bool parse_switch(const char *text, bool *out_value)
{
    static const char yes[] = "true yes on 1", no[] = "false no off 0";
    *out_value = is_choice(yes, text);
    return *out_value || is_choice(no, text);
}

/* Set a knob from text. where: "flag --tensor" or "site.yaml line 3: tensor". */
static enum spw_status set_knob(struct spw_config *config, const struct knob *knob,
                                const char *value, const char *where, struct spw_error *error)
{
    char *at = (char *)config + knob->offset;
    uint64_t number = 0;
    bool truth = false;
    switch (knob->type) {
    case KNOB_CHOICE:
        if (!is_choice(knob->choices, value))
            return spw_fail(error, SPW_CONFIG, "%s is '%.64s': one of %s is right", where, value,
                            knob->choices);
        /* fall through */
    case KNOB_TEXT:
        if (strlen(value) >= knob->size)
            return spw_fail(error, SPW_CONFIG, "%s has %zu characters: at most %zu are allowed",
                            where, strlen(value), knob->size - 1);
        memcpy(at, value, strlen(value) + 1);
        return SPW_OK;
    case KNOB_U32:
    case KNOB_BYTES:
        if (!parse_number(value, knob->type == KNOB_BYTES, &number))
            return spw_fail(error, SPW_CONFIG,
                            "%s is '%.64s': a number from %llu to %llu is right%s", where, value,
                            (unsigned long long)knob->min, (unsigned long long)knob->max,
                            knob->type == KNOB_BYTES ? ", K, M, G or T may follow" : "");
        if (number < knob->min || number > knob->max)
            return spw_fail(error, SPW_CONFIG, "%s is %llu: %llu to %llu is allowed", where,
                            (unsigned long long)number, (unsigned long long)knob->min,
                            (unsigned long long)knob->max);
        if (knob->type == KNOB_U32) {
            uint32_t small = (uint32_t)number;
            memcpy(at, &small, sizeof(small));
        } else {
            memcpy(at, &number, sizeof(number));
        }
        return SPW_OK;
    case KNOB_SWITCH:
        if (!parse_switch(value, &truth))
            return spw_fail(error, SPW_CONFIG, "%s is '%.64s': true or false is right", where,
                            value);
        memcpy(at, &truth, sizeof(truth));
        return SPW_OK;
    }
    return SPW_INTERNAL;
}

void spw_config_defaults(struct spw_config *config)
{
    memset(config, 0, sizeof(*config));
    for (size_t i = 0; i < SPW_ARRAY_COUNT(knobs); i++) {
        enum spw_status status = set_knob(config, &knobs[i], knobs[i].fallback, knobs[i].key, NULL);
        assert(status == SPW_OK);
    }
}

/* ---- site file ---- */

static enum spw_status set_pair(struct spw_config *config, const char *path, const yaml_node_t *key,
                                const yaml_node_t *value, bool *seen, struct spw_error *error)
{
    char where[SPW_CONFIG_TEXT_MAX];
    size_t line = key->start_mark.line + 1;
    if (key->type != YAML_SCALAR_NODE)
        return spw_fail(error, SPW_CONFIG, "%s line %zu: a key must be a plain word", path, line);
    const char *name = (const char *)key->data.scalar.value;
    const struct knob *knob = strchr(name, '-') ? NULL : find_knob(name);
    if (!knob || knob->flag_only)
        return spw_fail(error, SPW_CONFIG,
                        "%s line %zu: unknown key '%.64s'; `spillway up --help` lists the keys",
                        path, line, name);
    if (seen[knob - knobs])
        return spw_fail(error, SPW_CONFIG, "%s line %zu: key '%s' is there twice: keep one", path,
                        line, name);
    seen[knob - knobs] = true;
    if (value->type != YAML_SCALAR_NODE)
        return spw_fail(error, SPW_CONFIG, "%s line %zu: %s must be a single value, not a %s", path,
                        value->start_mark.line + 1, name,
                        value->type == YAML_SEQUENCE_NODE ? "list" : "mapping");
    const char *text = (const char *)value->data.scalar.value;
    if (strlen(text) != value->data.scalar.length)
        return spw_fail(error, SPW_CONFIG, "%s line %zu: %s contains a zero byte", path, line,
                        name);
    snprintf(where, sizeof(where), "%.300s line %zu: %s", path, value->start_mark.line + 1, name);
    return set_knob(config, knob, text, where, error);
}

static enum spw_status fail_yaml(const yaml_parser_t *parser, const char *path,
                                 struct spw_error *error)
{
    return spw_fail(error, SPW_CONFIG, "%s line %zu: not YAML: %s", path,
                    parser->problem_mark.line + 1,
                    parser->problem ? parser->problem : "cannot be read");
}

/* Nothing may follow the document: it would go unheeded. */
static enum spw_status check_end(yaml_parser_t *parser, const char *path, struct spw_error *error)
{
    yaml_document_t document;
    enum spw_status status = SPW_OK;
    if (!yaml_parser_load(parser, &document))
        return fail_yaml(parser, path, error);
    if (yaml_document_get_root_node(&document))
        status =
            spw_fail(error, SPW_CONFIG, "%s line %zu: a second document begins: one is expected",
                     path, document.start_mark.line + 1);
    yaml_document_delete(&document);
    return status;
}

enum spw_status spw_config_parse(struct spw_config *config, const char *path, const char *text,
                                 size_t bytes, struct spw_error *error)
{
    bool seen[SPW_ARRAY_COUNT(knobs)] = {false};
    yaml_parser_t parser;
    yaml_document_t document;
    if (bytes > FILE_BYTES_MAX)
        return spw_fail(error, SPW_CONFIG, "%s has %zu bytes: at most %u are read", path, bytes,
                        FILE_BYTES_MAX);
    if (!yaml_parser_initialize(&parser))
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, bytes);
    if (!yaml_parser_load(&parser, &document)) {
        enum spw_status status = fail_yaml(&parser, path, error);
        yaml_parser_delete(&parser);
        return status;
    }
    enum spw_status status = SPW_OK;
    yaml_node_t *root = yaml_document_get_root_node(&document);
    if (root && root->type == YAML_MAPPING_NODE) {
        for (yaml_node_pair_t *pair = root->data.mapping.pairs.start;
             pair < root->data.mapping.pairs.top && !status; pair++)
            status = set_pair(config, path, yaml_document_get_node(&document, pair->key),
                              yaml_document_get_node(&document, pair->value), seen, error);
    } else if (root && !(root->type == YAML_SCALAR_NODE && root->data.scalar.length == 0)) {
        status = spw_fail(error, SPW_CONFIG, "%s line %zu: lines of `key: value` are expected",
                          path, root->start_mark.line + 1);
    }
    yaml_document_delete(&document);
    if (!status && root)
        status = check_end(&parser, path, error);
    yaml_parser_delete(&parser);
    return status;
}

enum spw_status spw_config_read(struct spw_config *config, const char *path,
                                struct spw_error *error)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return spw_fail(error, SPW_CONFIG, "site file %s: %s", path, strerror(errno));
    char *text = malloc(FILE_BYTES_MAX + 1);
    size_t bytes = text ? fread(text, 1, FILE_BYTES_MAX + 1, file) : 0;
    bool bad = ferror(file) != 0;
    fclose(file);
    enum spw_status status = !text ? spw_fail(error, SPW_NO_MEMORY, "out of memory")
                             : bad
                                 ? spw_fail(error, SPW_CONFIG, "site file %s cannot be read", path)
                                 : spw_config_parse(config, path, text, bytes, error);
    free(text);
    return status;
}

/* ---- environment and flags ---- */

enum spw_status spw_config_environment(struct spw_config *config, struct spw_error *error)
{
    static const char prefix[] = "SPILLWAY_";
    for (char **variable = environ; variable && *variable; variable++) {
        if (strncmp(*variable, prefix, sizeof(prefix) - 1) != 0)
            continue;
        const char *name = *variable + sizeof(prefix) - 1;
        const char *equals = strchr(name, '=');
        char key[64];
        size_t bytes = equals ? (size_t)(equals - name) : 0;
        if (bytes == 0 || bytes >= sizeof(key))
            continue;
        memcpy(key, name, bytes);
        key[bytes] = '\0';
        bool other = false;
        for (size_t i = 0; i < SPW_ARRAY_COUNT(other_variables); i++)
            other = other || strcmp(other_variables[i], key) == 0;
        if (other)
            continue;
        for (size_t i = 0; i < bytes; i++)
            key[i] = (char)tolower((unsigned char)key[i]);
        const struct knob *knob = find_knob(key);
        char where[96];
        snprintf(where, sizeof(where), "environment variable SPILLWAY_%.*s", (int)bytes, name);
        if (!knob)
            return spw_fail(error, SPW_CONFIG, "%s is unknown; `spillway up --help` lists the keys",
                            where);
        enum spw_status status = set_knob(config, knob, equals + 1, where, error);
        if (status)
            return status;
    }
    return SPW_OK;
}

enum spw_status spw_config_flag_takes_value(const char *key, bool *out_takes)
{
    const struct knob *knob = find_knob(key);
    if (!knob)
        return SPW_NOT_FOUND;
    *out_takes = knob->type != KNOB_SWITCH;
    return SPW_OK;
}

enum spw_status spw_config_flag(struct spw_config *config, const char *key, const char *value,
                                struct spw_error *error)
{
    const struct knob *knob = find_knob(key);
    char where[96];
    if (!knob)
        return spw_fail(error, SPW_NOT_FOUND, "unknown flag --%.64s; see --help", key);
    snprintf(where, sizeof(where), "flag --%.64s", key);
    if (!value && knob->type != KNOB_SWITCH)
        return spw_fail(error, SPW_INVALID, "%s needs a value: %s", where, knob->help);
    return set_knob(config, knob, value ? value : "true", where, error);
}

/* Split argv[*index] (and maybe the next) into key and value; false when it is not a flag. */
static enum spw_status next_flag(int argc, char **argv, int *index, char *out_key, size_t key_bytes,
                                 const char **out_value, struct spw_error *error)
{
    const char *flag = argv[*index] + 2;
    const char *equals = strchr(flag, '=');
    bool takes = false;
    snprintf(out_key, key_bytes, "%.*s", equals ? (int)(equals - flag) : (int)strlen(flag), flag);
    if (spw_config_flag_takes_value(out_key, &takes))
        return spw_fail(error, SPW_INVALID, "unknown flag --%.64s; see --help", out_key);
    *out_value = equals ? equals + 1 : NULL;
    if (takes && !equals) {
        if (*index + 1 >= argc)
            return spw_fail(error, SPW_INVALID, "flag --%.64s needs a value; see --help", out_key);
        *out_value = argv[++*index];
    }
    return SPW_OK;
}

static enum spw_status walk(struct spw_config *config, int argc, char **argv, bool site_only,
                            const char **out_positional, size_t limit, size_t *out_count,
                            struct spw_error *error)
{
    *out_count = 0;
    for (int i = 0; i < argc; i++) {
        char key[80];
        const char *value = NULL;
        if (strncmp(argv[i], "--", 2) != 0) {
            if (*out_count >= limit)
                return spw_fail(error, SPW_INVALID, "unexpected argument '%.100s'; see --help",
                                argv[i]);
            out_positional[(*out_count)++] = argv[i];
            continue;
        }
        enum spw_status status = next_flag(argc, argv, &i, key, sizeof(key), &value, error);
        if (!status && (!site_only || key_equal(key, "site")))
            status = spw_config_flag(config, key, value, error);
        if (status)
            return status;
    }
    return SPW_OK;
}

enum spw_status spw_config_load(struct spw_config *config, int argc, char **argv,
                                const char **out_positional, size_t *inout_count,
                                struct spw_error *error)
{
    size_t limit = inout_count ? *inout_count : 0, count = 0;
    spw_config_defaults(config);
    const char *site = getenv("SPILLWAY_SITE"); /* known before the other variables are read */
    if (site)
        spw_config_flag(config, "site", site, NULL);
    enum spw_status status = walk(config, argc, argv, true, out_positional, limit, &count, error);
    if (!status && config->site[0]) {
        char path[SPW_CONFIG_TEXT_MAX];
        memcpy(path, config->site, sizeof(path));
        status = spw_config_read(config, path, error);
    }
    if (!status)
        status = spw_config_environment(config, error);
    if (!status)
        status = walk(config, argc, argv, false, out_positional, limit, &count, error);
    if (!status && inout_count)
        *inout_count = count;
    return status;
}

/* ---- checks and texts ---- */

enum spw_status spw_config_check(const struct spw_config *config, struct spw_error *error)
{
    if (config->tensor != 1 && config->tensor != 2 && config->tensor != 4 && config->tensor != 8)
        return spw_fail(error, SPW_CONFIG,
                        "tensor is %u: 1, 2, 4 or 8 fall on the 8 virtual shards", config->tensor);
    uint32_t workers = config->replicas * config->pipeline * config->tensor;
    if (1 + workers + config->gateways > SPW_TP_PEERS_MAX)
        return spw_fail(error, SPW_CONFIG,
                        "the layout has %u ranks (1 coordinator, %u workers, %u gateways): at most "
                        "%u are possible",
                        1 + workers + config->gateways, workers, config->gateways,
                        SPW_TP_PEERS_MAX);
    if (config->block_tokens & (config->block_tokens - 1))
        return spw_fail(error, SPW_CONFIG, "block-tokens is %u: a power of two is right",
                        config->block_tokens);
    if (config->prefill || config->decode)
        return spw_fail(error, SPW_CONFIG,
                        "prefill is %u and decode is %u: this version has mixed replicas only, set "
                        "both to 0 and use --replicas",
                        config->prefill, config->decode);
    if (config->spares)
        return spw_fail(error, SPW_CONFIG, "spares is %u: this version has none, set it to 0",
                        config->spares);
    if (config->prefill_chunk > config->step_tokens)
        return spw_fail(error, SPW_CONFIG, "prefill-chunk is %u, step-tokens %u: at most that fits",
                        config->prefill_chunk, config->step_tokens);
    if (config->slots > config->step_tokens)
        return spw_fail(error, SPW_CONFIG,
                        "slots is %u, step-tokens %u: every running request needs a row, raise "
                        "--step-tokens or lower --slots",
                        config->slots, config->step_tokens);
    if (config->host_kv_bytes && strcmp(config->prefix_cache, "off") == 0)
        return spw_fail(error, SPW_CONFIG,
                        "host-kv-bytes is %llu and prefix-cache is off: blocks are kept under the "
                        "names that prefix-cache gives them; set prefix-cache to tenant or all, or "
                        "host-kv-bytes to 0",
                        (unsigned long long)config->host_kv_bytes);
    if (config->disk_kv_bytes && (!config->kv_dir[0] || !config->host_kv_bytes))
        return spw_fail(error, SPW_CONFIG,
                        "disk-kv-bytes is %llu: it needs kv-dir, which is '%.100s', and "
                        "host-kv-bytes, which is %llu",
                        (unsigned long long)config->disk_kv_bytes, config->kv_dir,
                        (unsigned long long)config->host_kv_bytes);
    if (config->kv_dir[0] && !config->disk_kv_bytes)
        return spw_fail(error, SPW_CONFIG,
                        "kv-dir is set and disk-kv-bytes is 0: say how much of it a worker may "
                        "use, or leave kv-dir out");
    if (config->prompt_weight == 0 && config->output_weight == 0)
        return spw_fail(error, SPW_CONFIG,
                        "prompt-weight and output-weight are both 0: then nothing is shared out, "
                        "set one of them to 1 or more");
    struct spw_tenants *tenants = NULL;
    enum spw_status status = spw_tenants_parse(config->tenants, config->queue, &tenants, error);
    spw_tenants_destroy(tenants);
    if (status)
        return status;
    if ((config->tls_cert[0] != '\0') != (config->tls_key[0] != '\0'))
        return spw_fail(error, SPW_CONFIG,
                        "tls-cert and tls-key belong together: set both or none");
    if (config->tls_client_ca[0] && !config->tls_cert[0])
        return spw_fail(error, SPW_CONFIG, "tls-client-ca needs tls-cert and tls-key");
    return SPW_OK;
}

static void print_value(const struct spw_config *config, const struct knob *knob, char *out,
                        size_t bytes)
{
    const char *at = (const char *)config + knob->offset;
    uint32_t small = 0;
    uint64_t number = 0;
    bool truth = false;
    switch (knob->type) {
    case KNOB_TEXT:
    case KNOB_CHOICE:
        snprintf(out, bytes, "%s", at);
        break;
    case KNOB_U32:
        memcpy(&small, at, sizeof(small));
        snprintf(out, bytes, "%u", small);
        break;
    case KNOB_BYTES:
        memcpy(&number, at, sizeof(number));
        snprintf(out, bytes, "%llu", (unsigned long long)number);
        break;
    case KNOB_SWITCH:
        memcpy(&truth, at, sizeof(truth));
        snprintf(out, bytes, "%s", truth ? "true" : "false");
        break;
    }
}

void spw_config_agreed_text(const struct spw_config *config, char *out_text, size_t bytes)
{
    size_t used = 0;
    out_text[0] = '\0';
    for (size_t i = 0; i < SPW_ARRAY_COUNT(knobs) && used < bytes; i++) {
        char value[64];
        if (!knobs[i].agreed)
            continue;
        print_value(config, &knobs[i], value, sizeof(value));
        int wrote = snprintf(out_text + used, bytes - used, "%s%s=%s", used ? " " : "",
                             knobs[i].key, value);
        assert(wrote > 0 && (size_t)wrote < bytes - used);
        used += (size_t)wrote;
    }
}

struct spw_digest spw_config_digest(const struct spw_config *config)
{
    char text[2048];
    spw_config_agreed_text(config, text, sizeof(text));
    return spw_sha256(text, strlen(text));
}

/* A key as a flag: dashes for underscores. */
static void flag_name(const struct knob *knob, char *out_name, size_t bytes)
{
    snprintf(out_name, bytes, "--%s", knob->key);
    for (char *at = out_name; *at; at++)
        if (*at == '_')
            *at = '-';
}

void spw_config_words(FILE *out)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(knobs); i++) {
        char name[48];
        flag_name(&knobs[i], name, sizeof(name));
        fprintf(out, " %s", name);
    }
}

void spw_config_help(FILE *out)
{
    fprintf(out, "flags (each also a key of the site file, with _ for -, and SPILLWAY_<KEY>):\n");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(knobs); i++) {
        const struct knob *knob = &knobs[i];
        char flag[128], name[48], kind[48] = "";
        flag_name(knob, name, sizeof(name));
        if (knob->type == KNOB_CHOICE)
            snprintf(kind, sizeof(kind), "%s", knob->choices);
        for (char *at = kind; *at; at++)
            if (*at == ' ')
                *at = '|';
        if (knob->type == KNOB_TEXT || knob->type == KNOB_U32 || knob->type == KNOB_BYTES)
            snprintf(kind, sizeof(kind), "%s",
                     knob->type == KNOB_TEXT  ? "TEXT"
                     : knob->type == KNOB_U32 ? "N"
                                              : "SIZE");
        snprintf(flag, sizeof(flag), "%s %s", name, kind);
        fprintf(out, "  %-40s %s", flag, knob->help);
        if (knob->fallback[0] && knob->type != KNOB_SWITCH)
            fprintf(out, " [%s]", knob->fallback);
        fprintf(out, "\n");
    }
}
