/* config.h - what a deployment is told: site file, flags, environment, defaults.
 *
 * Room:      runtime
 * Threads:   filled while starting, constant while serving
 * Ownership: texts belong to the config
 * Errors:    an unknown key, a wrong type or a value out of range names the line (or flag), the key
 * and what would be right
 *
 * One row per knob in config.c: key of the site file, flag, type, range, default, help. Order of
 * precedence: flag, environment SPILLWAY_<KEY>, site file, default.
 */
#ifndef SPW_CONFIG_H
#define SPW_CONFIG_H

#include "runtime/base/hash.h"
#include "runtime/base/status.h"

#include <stdio.h>

#define SPW_CONFIG_TEXT_MAX    512u
#define SPW_CONFIG_TENANTS_MAX 32768u
#define SPW_SLOTS_MAX          4096u /* the plan and the result of a full step fit into a message */

struct spw_config {
    char site[SPW_CONFIG_TEXT_MAX];       /* the site file, "" for none */
    char model[SPW_CONFIG_TEXT_MAX];      /* Hugging Face folder */
    char model_name[SPW_CONFIG_TEXT_MAX]; /* what clients call it; "": the folder's name */
    char site_name[64];                   /* "local" */
    uint32_t tensor, pipeline, replicas;
    uint32_t prefill, decode; /* pools apart from mixed replicas: none in this version, must be 0 */
    uint32_t gateways;
    uint32_t spares;  /* must be 0 in this version */
    char dtype[8];    /* "auto", "f32", "bf16" */
    uint32_t threads; /* of one worker; 0: cores of the host shared by its workers */
    bool pin;
    uint64_t kv_bytes; /* of one worker; 0: a quarter of the host's memory shared by its workers,
                        * at most what running requests can use, twice that with a prefix cache */
    uint64_t host_kv_bytes, disk_kv_bytes; /* of one worker, beside kv_bytes; 0: none */
    char kv_dir[SPW_CONFIG_TEXT_MAX];      /* where the files of disk_kv_bytes are */
    uint32_t block_tokens;
    uint32_t context_tokens; /* 0: the model's, at most what the KV memory holds */
    uint32_t step_tokens;    /* rows of one step */
    uint32_t prefill_chunk;  /* rows of one request in a step; 0: step_tokens */
    uint32_t slots;          /* running requests of a replica */
    uint32_t queue;          /* waiting requests */
    /* policy: the coordinator's alone */
    char prefix_cache[8];                  /* "off", "tenant", "all": who shares computed blocks */
    char evict[8];                         /* "cost", "lru" */
    char tenants[SPW_CONFIG_TENANTS_MAX];  /* tenants.h; "": the default one alone */
    uint32_t prompt_weight, output_weight; /* what a token counts in a tenant's share */
    uint32_t itl_goal_ms;                  /* between tokens of an answer; 0: none */
    uint32_t patience_ms;                  /* the deadline of those that have none, for the order */
    uint32_t batch_share_percent;          /* what interactive load leaves the batch lane */
    uint64_t body_bytes;                   /* of one request from a client */
    uint32_t step_timeout_seconds; /* a step without progress for so long ends the deployment */
    uint32_t start_timeout_seconds;
    char http[SPW_CONFIG_TEXT_MAX]; /* host:port, port 0: any; "" : no such door */
    char grpc[SPW_CONFIG_TEXT_MAX];
    char unix_path[SPW_CONFIG_TEXT_MAX]; /* HTTP at PATH, gRPC at PATH.grpc; "": none */
    char tls_cert[SPW_CONFIG_TEXT_MAX], tls_key[SPW_CONFIG_TEXT_MAX],
        tls_client_ca[SPW_CONFIG_TEXT_MAX];
    char log_level[8];
    char log_dir[SPW_CONFIG_TEXT_MAX];   /* a file per rank; "": standard error */
    char state_dir[SPW_CONFIG_TEXT_MAX]; /* where `up --daemon` leaves its state for down and status
                                          */
    bool record_logits; /* log a digest of every answer's logits: equal answers, equal bits (C1) */
    bool tcp_only;      /* no shared memory between ranks (several "hosts" on one kernel) */
    bool dry_run, daemon;
};

/* Defaults of the table. */
void spw_config_defaults(struct spw_config *config);

/* Read a site file (YAML) into config. Every problem: file, line, key, what would be right. */
enum spw_status spw_config_read(struct spw_config *config, const char *path,
                                struct spw_error *error);
/* The same from memory, for tests and fuzzing; path is for messages only. */
enum spw_status spw_config_parse(struct spw_config *config, const char *path, const char *text,
                                 size_t bytes, struct spw_error *error);

/* SPILLWAY_<KEY> variables, "SPILLWAY_KV_BYTES". An unknown SPILLWAY_ name is refused, but for
 * those of other uses (SPILLWAY_CPU and a list in config.c).
 */
enum spw_status spw_config_environment(struct spw_config *config, struct spw_error *error);

/* One flag: key as on the command line without dashes ("kv-bytes"). value NULL for switches.
 * SPW_NOT_FOUND for an unknown one, SPW_INVALID without the value it needs, SPW_CONFIG with the
 * range for a wrong one. `takes_value` asks first whether a flag wants a value.
 */
enum spw_status spw_config_flag(struct spw_config *config, const char *key, const char *value,
                                struct spw_error *error);
enum spw_status spw_config_flag_takes_value(const char *key, bool *out_takes);

/* Everything from a command line in the right order: defaults, --site file, environment, flags.
 * args: after the subcommand. Positional arguments are refused unless out_positional is given (then
 * at most *inout_count).
 */
enum spw_status spw_config_load(struct spw_config *config, int argc, char **argv,
                                const char **out_positional, size_t *inout_count,
                                struct spw_error *error);

/* Checks between knobs that need no model: counts, pools, doors. */
enum spw_status spw_config_check(const struct spw_config *config, struct spw_error *error);

/* Flags with help and defaults, for --help. */
void spw_config_help(FILE *out);
/* " --tensor --pipeline ...", for completion. */
void spw_config_words(FILE *out);

/* What all ranks must agree on: layout, sizes, dtype (not paths, doors, logs). */
struct spw_digest spw_config_digest(const struct spw_config *config);
/* The same as text "key=value ..." so that a mismatch can name the key. */
void spw_config_agreed_text(const struct spw_config *config, char *out_text, size_t bytes);

#endif
