/* Knobs: defaults, ranges, texts of errors, and which of them all ranks must agree on. */
#include "runtime/config.h"
#include "transport/tp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct spw_config config;
static struct spw_error error;

static enum spw_status parse(const char *text)
{
    spw_config_defaults(&config);
    memset(&error, 0, sizeof(error));
    return spw_config_parse(&config, "site.yaml", text, strlen(text), &error);
}

static enum spw_status flag(const char *key, const char *value)
{
    spw_config_defaults(&config);
    memset(&error, 0, sizeof(error));
    return spw_config_flag(&config, key, value, &error);
}

/* The text must be refused, in exactly these words. */
static void refused(const char *text, const char *words)
{
    assert_int_equal(parse(text), SPW_CONFIG);
    assert_string_equal(error.text, words);
}

static void defaults(void **state)
{
    (void)state;
    struct spw_config expected;
    memset(&expected, 0, sizeof(expected));
    snprintf(expected.site_name, sizeof(expected.site_name), "%s", "local");
    snprintf(expected.dtype, sizeof(expected.dtype), "%s", "auto");
    snprintf(expected.http, sizeof(expected.http), "%s", "127.0.0.1:8000");
    snprintf(expected.grpc, sizeof(expected.grpc), "%s", "127.0.0.1:8001");
    snprintf(expected.log_level, sizeof(expected.log_level), "%s", "info");
    expected.tensor = expected.pipeline = expected.replicas = expected.gateways = 1;
    expected.block_tokens = 16;
    expected.step_tokens = 512;
    expected.slots = 64;
    expected.queue = 1024;
    snprintf(expected.prefix_cache, sizeof(expected.prefix_cache), "%s", "tenant");
    snprintf(expected.evict, sizeof(expected.evict), "%s", "cost");
    expected.prompt_weight = 1;
    expected.output_weight = 2;
    expected.patience_ms = 10000;
    expected.batch_share_percent = 10;
    expected.body_bytes = 4u << 20;
    expected.step_timeout_seconds = 60;
    expected.start_timeout_seconds = 600;
    memset(&config, 0xEE, sizeof(config));
    spw_config_defaults(&config);
    assert_memory_equal(&config, &expected, sizeof(config));
    assert_int_equal(spw_config_check(&config, &error), SPW_OK);
    /* an empty file changes nothing */
    static const char *const empty[] = {"", "\n", "# words\n", "---\n", "{}\n", "---\n...\n"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(empty); i++) {
        assert_int_equal(parse(empty[i]), SPW_OK);
        assert_memory_equal(&config, &expected, sizeof(config));
    }
}

struct number_row {
    const char *key;
    size_t offset;
    bool wide;
    uint64_t min, max;
};
#define NUMBER(name, wide, min, max)                                                               \
    {                                                                                              \
#name, offsetof(struct spw_config, name), wide, min, max                                   \
    }
static const struct number_row numbers[] = {
    NUMBER(tensor, false, 1, 8),
    NUMBER(pipeline, false, 1, 64),
    NUMBER(replicas, false, 1, 1024),
    NUMBER(prefill, false, 0, 1024),
    NUMBER(decode, false, 0, 1024),
    NUMBER(gateways, false, 0, 64),
    NUMBER(spares, false, 0, 1024),
    NUMBER(threads, false, 0, 1024),
    NUMBER(kv_bytes, true, 0, 1ull << 50),
    NUMBER(block_tokens, false, 8, 256),
    NUMBER(context_tokens, false, 0, 1u << 24),
    NUMBER(step_tokens, false, 1, 65536),
    NUMBER(prefill_chunk, false, 0, 65536),
    NUMBER(slots, false, 1, 4096),
    NUMBER(queue, false, 1, 1u << 20),
    NUMBER(prompt_weight, false, 0, 1000),
    NUMBER(output_weight, false, 0, 1000),
    NUMBER(itl_goal_ms, false, 0, 3600000),
    NUMBER(patience_ms, false, 1, 86400000),
    NUMBER(batch_share_percent, false, 0, 100),
    NUMBER(body_bytes, true, 1024, 1ull << 30),
    NUMBER(step_timeout_seconds, false, 1, 86400),
    NUMBER(start_timeout_seconds, false, 1, 86400),
};

static uint64_t number_of(const struct number_row *row)
{
    uint64_t value = 0;
    memcpy(&value, (const char *)&config + row->offset, row->wide ? 8 : 4);
    return value;
}

static void numbers_have_ranges(void **state)
{
    (void)state;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(numbers); i++) {
        const struct number_row *row = &numbers[i];
        char text[100], words[200];
        for (int end = 0; end < 2; end++) {
            uint64_t value = end ? row->max : row->min;
            snprintf(text, sizeof(text), "%s: %llu\n", row->key, (unsigned long long)value);
            assert_int_equal(parse(text), SPW_OK);
            assert_true(number_of(row) == value);
            if (!end && row->min == 0)
                continue;
            value = end ? row->max + 1 : row->min - 1;
            snprintf(text, sizeof(text), "# words\n%s: %llu\n", row->key,
                     (unsigned long long)value);
            snprintf(words, sizeof(words), "site.yaml line 2: %s is %llu: %llu to %llu is allowed",
                     row->key, (unsigned long long)value, (unsigned long long)row->min,
                     (unsigned long long)row->max);
            refused(text, words);
        }
        static const char *const bad[] = {
            "many", "-1", "1.0", "0x2", "1e3", "+1", "1 2", "1k ", "18446744073709551616"};
        for (size_t b = 0; b < SPW_ARRAY_COUNT(bad); b++) {
            snprintf(text, sizeof(text), "%s: \"%s\"\n", row->key, bad[b]);
            snprintf(words, sizeof(words),
                     "site.yaml line 1: %s is '%s': a number from %llu to %llu is right%s",
                     row->key, bad[b], (unsigned long long)row->min, (unsigned long long)row->max,
                     row->wide ? ", K, M, G or T may follow" : "");
            refused(text, words);
        }
    }
}

static void sizes_have_units(void **state)
{
    (void)state;
    const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {
        {"1048576", 1u << 20}, {"4M", 4u << 20},      {"4m", 4u << 20},   {"4MB", 4u << 20},
        {"4MiB", 4u << 20},    {"3K", 3 * 1024},      {"7kiB", 7 * 1024}, {"2G", 2ull << 30},
        {"1T", 1ull << 40},    {"1024T", 1ull << 50}, {"0", 0},           {"0G", 0},
        {"0007K", 7 * 1024},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        assert_int_equal(flag("kv-bytes", rows[i].text), SPW_OK);
        assert_true(config.kv_bytes == rows[i].bytes);
    }
    static const char *const bad[] = {"4X", "4Mi", "4Mb", "M", "4 M", "4MM", "", "17179869184T"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++)
        assert_int_equal(flag("kv-bytes", bad[i]), SPW_CONFIG);
    /* counts take no unit */
    assert_int_equal(flag("queue", "1K"), SPW_CONFIG);
    assert_string_equal(error.text, "flag --queue is '1K': a number from 1 to 1048576 is right");
}

static void words_and_switches(void **state)
{
    (void)state;
    assert_int_equal(parse("dtype: bf16\nlog_level: trace\npin: yes\ntcp_only: on\n"), SPW_OK);
    assert_string_equal(config.dtype, "bf16");
    assert_string_equal(config.log_level, "trace");
    assert_true(config.pin && config.tcp_only);
    assert_int_equal(parse("pin: off\nunix: /run/spw.sock\nhttp: \"\"\ngrpc:\n"), SPW_OK);
    assert_false(config.pin);
    assert_string_equal(config.unix_path, "/run/spw.sock");
    assert_string_equal(config.http, "");
    assert_string_equal(config.grpc, "");
    refused("dtype: f16\n", "site.yaml line 1: dtype is 'f16': one of auto f32 bf16 is right");
    refused("dtype: auto f32\n",
            "site.yaml line 1: dtype is 'auto f32': one of auto f32 bf16 is right");
    refused("dtype: ''\n", "site.yaml line 1: dtype is '': one of auto f32 bf16 is right");
    assert_int_equal(parse("prefix_cache: off\nevict: lru\ntenants: a=2,b=1:9\n"), SPW_OK);
    assert_string_equal(config.prefix_cache, "off");
    assert_string_equal(config.evict, "lru");
    assert_string_equal(config.tenants, "a=2,b=1:9");
    refused("prefix_cache: on\n",
            "site.yaml line 1: prefix_cache is 'on': one of off tenant all is right");
    refused("pin: maybe\n", "site.yaml line 1: pin is 'maybe': true or false is right");
    char text[700], words[100];
    memset(text, 'x', sizeof(text));
    memcpy(text, "model: ", 7);
    memcpy(text + 7 + SPW_CONFIG_TEXT_MAX - 1, "\n", 2);
    assert_int_equal(parse(text), SPW_OK);
    assert_int_equal(strlen(config.model), SPW_CONFIG_TEXT_MAX - 1);
    memset(text + 7, 'x', SPW_CONFIG_TEXT_MAX);
    memcpy(text + 7 + SPW_CONFIG_TEXT_MAX, "\n", 2);
    snprintf(words, sizeof(words),
             "site.yaml line 1: model has %u characters: at most %u are allowed",
             SPW_CONFIG_TEXT_MAX, SPW_CONFIG_TEXT_MAX - 1);
    refused(text, words);
}

static void mistakes_name_line_and_key(void **state)
{
    (void)state;
    refused("tensor: 2\n\npipelines: 2\n",
            "site.yaml line 3: unknown key 'pipelines'; `spillway up --help` lists the keys");
    refused("kv-bytes: 4M\n",
            "site.yaml line 1: unknown key 'kv-bytes'; `spillway up --help` lists the keys");
    /* these have no meaning in a file */
    refused("site: other.yaml\n",
            "site.yaml line 1: unknown key 'site'; `spillway up --help` lists the keys");
    refused("daemon: true\n",
            "site.yaml line 1: unknown key 'daemon'; `spillway up --help` lists the keys");
    refused("tensor: 2\npipeline: 2\ntensor: 4\n",
            "site.yaml line 3: key 'tensor' is there twice: keep one");
    refused("tensor: [1, 2]\n", "site.yaml line 1: tensor must be a single value, not a list");
    refused("a: 1\n", "site.yaml line 1: unknown key 'a'; `spillway up --help` lists the keys");
    refused("tensor:\n  deep: 2\n",
            "site.yaml line 2: tensor must be a single value, not a mapping");
    refused("[a]: 1\n", "site.yaml line 1: a key must be a plain word");
    refused("- tensor\n", "site.yaml line 1: lines of `key: value` are expected");
    refused("tensor\n", "site.yaml line 1: lines of `key: value` are expected");
    refused("model: \"a\\0b\"\n", "site.yaml line 1: model contains a zero byte");
    refused("tensor: 2\n---\npipeline: 2\n",
            "site.yaml line 2: a second document begins: one is expected");
    /* what the YAML parser says, with the line */
    assert_int_equal(parse("tensor: 2\n  pipeline: 3\n"), SPW_CONFIG);
    assert_non_null(strstr(error.text, "site.yaml line 2: not YAML: "));
    assert_int_equal(parse("tensor: 2\nmodel: \"abc\n"), SPW_CONFIG);
    assert_non_null(strstr(error.text, ": not YAML: "));
    assert_int_equal(parse("tensor: 2\n...\n%%bad\n"), SPW_CONFIG);
    /* a long wrong value does not push out what would be right */
    char text[600];
    memset(text, 'x', sizeof(text));
    memcpy(text, "tensor: ", 8);
    memcpy(text + sizeof(text) - 2, "\n", 2);
    assert_int_equal(parse(text), SPW_CONFIG);
    assert_non_null(strstr(error.text, "a number from 1 to 8 is right"));
    memcpy(text, "dtype: a", 8);
    assert_int_equal(parse(text), SPW_CONFIG);
    assert_non_null(strstr(error.text, "one of auto f32 bf16 is right"));
}

static void files_are_read(void **state)
{
    (void)state;
    char path[] = "/tmp/spw-test-site-XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fdopen(fd, "w");
    fputs("tensor: 2\nslots: 5000\n", file);
    fclose(file);
    char words[200];
    spw_config_defaults(&config);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_config_read(&config, path, &error), SPW_CONFIG);
    snprintf(words, sizeof(words), "%s line 2: slots is 5000: 1 to 4096 is allowed", path);
    assert_string_equal(error.text, words);
    file = fopen(path, "w");
    for (int i = 0; i < (1 << 20) / 4 + 1; i++)
        fputs("#ab\n", file);
    fclose(file);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_config_read(&config, path, &error), SPW_CONFIG);
    assert_non_null(strstr(error.text, "at most 1048576 are read"));
    remove(path);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_config_read(&config, path, &error), SPW_CONFIG);
    snprintf(words, sizeof(words), "site file %s: No such file or directory", path);
    assert_string_equal(error.text, words);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_config_read(&config, "/tmp", &error), SPW_CONFIG);
    assert_string_equal(error.text, "site file /tmp cannot be read");
}

static void flags(void **state)
{
    (void)state;
    bool takes = false;
    assert_int_equal(spw_config_flag_takes_value("kv-bytes", &takes), SPW_OK);
    assert_true(takes);
    assert_int_equal(spw_config_flag_takes_value("dry-run", &takes), SPW_OK);
    assert_false(takes);
    assert_int_equal(spw_config_flag_takes_value("nothing", &takes), SPW_NOT_FOUND);
    assert_int_equal(flag("dry-run", NULL), SPW_OK);
    assert_true(config.dry_run);
    assert_int_equal(flag("pin", "false"), SPW_OK);
    assert_int_equal(flag("tensor", "4"), SPW_OK);
    assert_int_equal(config.tensor, 4);
    assert_int_equal(flag("nothing", "4"), SPW_NOT_FOUND);
    assert_string_equal(error.text, "unknown flag --nothing; see --help");
    assert_int_equal(flag("tensor", "9"), SPW_CONFIG);
    assert_string_equal(error.text, "flag --tensor is 9: 1 to 8 is allowed");
    assert_int_equal(flag("tensor", NULL), SPW_INVALID);
    assert_string_equal(error.text, "flag --tensor needs a value: tensor-parallel ranks of a "
                                    "stage: 1, 2, 4 or 8");
}

static enum spw_status load(int argc, const char **argv, const char **words, size_t *count)
{
    char *copy[16];
    for (int i = 0; i < argc; i++)
        copy[i] = (char *)(uintptr_t)argv[i];
    memset(&error, 0, sizeof(error));
    return spw_config_load(&config, argc, copy, words, count, &error);
}
#define LOAD(...)                                                                                  \
    load((int)(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)),                            \
         (const char *[]){__VA_ARGS__}, NULL, NULL)

static void environment(void **state)
{
    (void)state;
    setenv("SPILLWAY_KV_BYTES", "3G", 1);
    setenv("SPILLWAY_PIN", "1", 1);
    setenv("SPILLWAY_CPU", "avx2", 1); /* of other uses */
    setenv("SPILLWAY_ADDRESS", "x", 1);
    setenv("SPILLWAY_RANK_COMMAND", "x", 1);
    setenv("SPILLWAYS", "not ours", 1);
    spw_config_defaults(&config);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_config_environment(&config, &error), SPW_OK);
    assert_true(config.kv_bytes == 3ull << 30);
    assert_true(config.pin);
    setenv("SPILLWAY_TENSOR", "16", 1);
    assert_int_equal(spw_config_environment(&config, &error), SPW_CONFIG);
    assert_string_equal(error.text,
                        "environment variable SPILLWAY_TENSOR is 16: 1 to 8 is allowed");
    setenv("SPILLWAY_TENSOR", "2", 1);
    setenv("SPILLWAY_TENSORS", "2", 1);
    memset(&error, 0, sizeof(error));
    assert_int_equal(spw_config_environment(&config, &error), SPW_CONFIG);
    assert_string_equal(error.text, "environment variable SPILLWAY_TENSORS is unknown; `spillway "
                                    "up --help` lists the keys");
    unsetenv("SPILLWAY_TENSORS");
    unsetenv("SPILLWAY_TENSOR");
    unsetenv("SPILLWAY_KV_BYTES");
    unsetenv("SPILLWAY_PIN");
    unsetenv("SPILLWAY_CPU");
    unsetenv("SPILLWAY_ADDRESS");
    unsetenv("SPILLWAY_RANK_COMMAND");
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

static void flag_before_environment_before_file_before_default(void **state)
{
    (void)state;
    char path[] = "/tmp/spw-test-site-XXXXXX", other[] = "/tmp/spw-test-site-XXXXXX";
    fclose(fdopen(mkstemp(path), "w"));
    fclose(fdopen(mkstemp(other), "w"));
    write_file(path, "tensor: 2\npipeline: 2\nreplicas: 2\n");
    write_file(other, "tensor: 8\nsite_name: other\n");
    setenv("SPILLWAY_PIPELINE", "3", 1);
    setenv("SPILLWAY_REPLICAS", "3", 1);
    assert_int_equal(LOAD("--replicas", "4", "--site", path), SPW_OK);
    assert_int_equal(config.tensor, 2);
    assert_int_equal(config.pipeline, 3);
    assert_int_equal(config.replicas, 4);
    assert_int_equal(config.gateways, 1);
    assert_string_equal(config.site, path);
    /* the last of two flags counts; both ways of writing one */
    assert_int_equal(
        LOAD("--replicas=5", "--site=/nonexistent", "--replicas", "6", "--site", path, "--dry-run"),
        SPW_OK);
    assert_int_equal(config.replicas, 6);
    assert_true(config.dry_run);
    /* the site file may come from the environment, as every flag; the flag goes before */
    setenv("SPILLWAY_SITE", other, 1);
    assert_int_equal(LOAD("--replicas", "4"), SPW_OK);
    assert_int_equal(config.tensor, 8);
    assert_string_equal(config.site_name, "other");
    assert_string_equal(config.site, other);
    assert_int_equal(LOAD("--site", path), SPW_OK);
    assert_int_equal(config.tensor, 2);
    assert_string_equal(config.site_name, "local");
    assert_string_equal(config.site, path);
    unsetenv("SPILLWAY_SITE");
    unsetenv("SPILLWAY_PIPELINE");
    unsetenv("SPILLWAY_REPLICAS");
    remove(path);
    remove(other);

    assert_int_equal(LOAD("--site", path), SPW_CONFIG);
    assert_int_equal(LOAD("--tensor"), SPW_INVALID);
    assert_string_equal(error.text, "flag --tensor needs a value; see --help");
    assert_int_equal(LOAD("--nothing=1"), SPW_INVALID);
    assert_string_equal(error.text, "unknown flag --nothing; see --help");
    assert_int_equal(LOAD("word"), SPW_INVALID);
    assert_string_equal(error.text, "unexpected argument 'word'; see --help");

    const char *words[2] = {NULL, NULL};
    size_t count = 2;
    const char *argv[] = {"one", "--tensor", "2", "two"};
    assert_int_equal(load(4, argv, words, &count), SPW_OK);
    assert_int_equal(count, 2);
    assert_string_equal(words[0], "one");
    assert_string_equal(words[1], "two");
    count = 1;
    assert_int_equal(load(4, argv, words, &count), SPW_INVALID);
    assert_string_equal(error.text, "unexpected argument 'two'; see --help");
}

static void knobs_fit_together(void **state)
{
    (void)state;
    const struct {
        const char *text, *words;
    } rows[] = {
        {"tensor: 3", "tensor is 3: 1, 2, 4 or 8 fall on the 8 virtual shards"},
        {"tensor: 5", "tensor is 5: 1, 2, 4 or 8 fall on the 8 virtual shards"},
        {"block_tokens: 24", "block-tokens is 24: a power of two is right"},
        {"prefill: 1", "prefill is 1 and decode is 0: this version has mixed replicas only, set "
                       "both to 0 and use --replicas"},
        {"decode: 2", "prefill is 0 and decode is 2: this version has mixed replicas only, set "
                      "both to 0 and use --replicas"},
        {"spares: 1", "spares is 1: this version has none, set it to 0"},
        {"prefill_chunk: 513", "prefill-chunk is 513, step-tokens 512: at most that fits"},
        {"slots: 513", "slots is 513, step-tokens 512: every running request needs a row, raise "
                       "--step-tokens or lower --slots"},
        {"host_kv_bytes: 2K\nprefix_cache: off",
         "host-kv-bytes is 2048 and prefix-cache is off: blocks are kept under the names that "
         "prefix-cache gives them; set prefix-cache to tenant or all, or host-kv-bytes to 0"},
        {"disk_kv_bytes: 1K\nhost_kv_bytes: 2K",
         "disk-kv-bytes is 1024: it needs kv-dir, which is '', and host-kv-bytes, which is 2048"},
        {"disk_kv_bytes: 1K\nkv_dir: /k",
         "disk-kv-bytes is 1024: it needs kv-dir, which is '/k', and host-kv-bytes, which is 0"},
        {"kv_dir: /k", "kv-dir is set and disk-kv-bytes is 0: say how much of it a worker may use, "
                       "or leave kv-dir out"},
        {"tls_cert: a.pem", "tls-cert and tls-key belong together: set both or none"},
        {"tls_key: a.pem", "tls-cert and tls-key belong together: set both or none"},
        {"tls_client_ca: a.pem", "tls-client-ca needs tls-cert and tls-key"},
        {"prompt_weight: 0\noutput_weight: 0",
         "prompt-weight and output-weight are both 0: then nothing is shared out, set one of them "
         "to 1 or more"},
        {"queue: 9\ntenants: a=2,b=1:10",
         "tenants: entry 2 'b=1:10': the queue must be a number from 1 to 9, the knob queue; "
         "NAME=WEIGHT or NAME=WEIGHT:QUEUE is right, as in research=3,web=1:200"},
        {"replicas: 1024\npipeline: 4",
         "the layout has 4098 ranks (1 coordinator, 4096 workers, 1 gateways): at most 4096 are "
         "possible"},
    };
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        assert_int_equal(parse(rows[i].text), SPW_OK);
        assert_int_equal(spw_config_check(&config, &error), SPW_CONFIG);
        assert_string_equal(error.text, rows[i].words);
    }
    static const char *const good[] = {"tensor: 8\npipeline: 64\nreplicas: 7",
                                       "prefill_chunk: 512",
                                       "slots: 512",
                                       "tls_cert: a\ntls_key: b\ntls_client_ca: c",
                                       "block_tokens: 8",
                                       "block_tokens: 256",
                                       "host_kv_bytes: 1G",
                                       "host_kv_bytes: 1G\ndisk_kv_bytes: 1T\nkv_dir: /k",
                                       "queue: 9\ntenants: default=5,b=1:9",
                                       "prompt_weight: 0"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(good); i++) {
        assert_int_equal(parse(good[i]), SPW_OK);
        assert_int_equal(spw_config_check(&config, &error), SPW_OK);
    }
    assert_int_equal(SPW_TP_PEERS_MAX, 4096);
}

/* key, a value that is not the default, and whether all ranks must have the same */
static const struct {
    const char *key, *value;
    bool agreed;
} agreements[] = {
    {"model", "/m", false},
    {"model-name", "m", false},
    {"site-name", "s", false},
    {"tensor", "2", true},
    {"pipeline", "2", true},
    {"replicas", "2", true},
    {"prefill", "1", true},
    {"decode", "1", true},
    {"gateways", "2", true},
    {"spares", "1", true},
    {"dtype", "f32", true},
    {"threads", "2", false},
    {"pin", NULL, false},
    {"kv-bytes", "1G", true},
    {"host-kv-bytes", "1G", true},
    {"disk-kv-bytes", "1G", true},
    {"kv-dir", "/k", false},
    {"block-tokens", "32", true},
    {"context-tokens", "128", true},
    {"step-tokens", "128", true},
    {"prefill-chunk", "128", true},
    {"slots", "8", true},
    {"queue", "8", true},
    {"prefix-cache", "all", true},
    {"evict", "lru", false},
    {"tenants", "a=1", false},
    {"prompt-weight", "2", false},
    {"output-weight", "3", false},
    {"itl-goal-ms", "50", false},
    {"patience-ms", "50", false},
    {"batch-share-percent", "50", false},
    {"body-bytes", "1M", false},
    {"step-timeout-seconds", "5", true},
    {"start-timeout-seconds", "5", true},
    {"http", "", false},
    {"grpc", "", false},
    {"unix", "/s", false},
    {"tls-cert", "c", false},
    {"tls-key", "k", false},
    {"tls-client-ca", "a", false},
    {"log-level", "warn", false},
    {"log-dir", "/l", false},
    {"state-dir", "/d", false},
    {"record-logits", NULL, false},
    {"tcp-only", NULL, false},
    {"dry-run", NULL, false},
    {"daemon", NULL, false},
    {"site", "/f", false},
};

static void digest_changes_with_what_is_agreed(void **state)
{
    (void)state;
    char text[1024], other[1024];
    spw_config_defaults(&config);
    struct spw_digest digest = spw_config_digest(&config);
    spw_config_agreed_text(&config, text, sizeof(text));
    assert_string_equal(
        text, "tensor=1 pipeline=1 replicas=1 prefill=0 decode=0 gateways=1 spares=0 "
              "dtype=auto kv_bytes=0 host_kv_bytes=0 disk_kv_bytes=0 block_tokens=16 "
              "context_tokens=0 step_tokens=512 "
              "prefill_chunk=0 slots=64 queue=1024 prefix_cache=tenant step_timeout_seconds=60 "
              "start_timeout_seconds=600");
    for (size_t i = 0; i < SPW_ARRAY_COUNT(agreements); i++) {
        assert_int_equal(flag(agreements[i].key, agreements[i].value), SPW_OK);
        struct spw_digest now = spw_config_digest(&config);
        assert_int_equal(!spw_digest_equal(&digest, &now), agreements[i].agreed);
        spw_config_agreed_text(&config, other, sizeof(other));
        assert_int_equal(strcmp(text, other) != 0, agreements[i].agreed);
    }
}

/* The table above has every flag that there is, and --help shows each. */
static void help_lists_every_flag(void **state)
{
    (void)state;
    char *words = NULL, *help = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&words, &bytes);
    spw_config_words(out);
    fclose(out);
    out = open_memstream(&help, &bytes);
    spw_config_help(out);
    fclose(out);
    size_t count = 0;
    char *rest = NULL;
    for (char *word = strtok_r(words, " ", &rest); word;
         word = strtok_r(NULL, " ", &rest), count++) {
        size_t found = 0;
        for (size_t i = 0; i < SPW_ARRAY_COUNT(agreements); i++)
            found += strcmp(agreements[i].key, word + 2) == 0;
        assert_int_equal(found, 1);
        char line[100];
        snprintf(line, sizeof(line), "\n  %s ", word);
        assert_non_null(strstr(help, line));
    }
    assert_int_equal(count, SPW_ARRAY_COUNT(agreements));
    assert_non_null(strstr(help, "  --dtype auto|f32|bf16 "));
    assert_non_null(strstr(help, "largest request body from a client [4M]\n"));
    free(words);
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(numbers_have_ranges),
        cmocka_unit_test(sizes_have_units),
        cmocka_unit_test(words_and_switches),
        cmocka_unit_test(mistakes_name_line_and_key),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(flags),
        cmocka_unit_test(environment),
        cmocka_unit_test(flag_before_environment_before_file_before_default),
        cmocka_unit_test(knobs_fit_together),
        cmocka_unit_test(digest_changes_with_what_is_agreed),
        cmocka_unit_test(help_lists_every_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
