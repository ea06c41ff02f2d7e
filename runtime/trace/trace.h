/* trace.h - requests with arrival times and lengths, read from files or drawn from a rate.
 *
 * Room:      runtime/trace
 * Threads:   any; plain values
 * Ownership: a trace owns its arrays
 * Errors:    a line that is not right names file, line and what would be
 *
 * Formats: Mooncake JSONL (timestamp ms, input_length, output_length, hash_ids of 512-token
 * blocks), Azure CSV (TIMESTAMP,ContextTokens,GeneratedTokens), and our own JSONL: one object a
 * line with "at_ms", "prompt_tokens", "output_tokens" and, if wanted, "prefix" (ids of shared
 * blocks), "prefix_block_tokens", "tenant", "priority" (0..2), "deadline_ms" (from arrival),
 * "class".
 */
#ifndef SPW_TRACE_H
#define SPW_TRACE_H

#include "runtime/base/status.h"

#define SPW_TRACE_TEXT_MAX 64u

struct spw_trace_request {
    uint64_t at_ns; /* from the start of the trace; ascending */
    uint32_t prompt_tokens, output_tokens;
    uint32_t prefix_begin,
        prefix_count;            /* ids in spw_trace.prefix: blocks of prefix_block_tokens */
    uint32_t tenant, data_class; /* indices of spw_trace.tenants, .classes */
    uint8_t priority;
    uint64_t deadline_ns; /* from arrival; 0: none */
};

struct spw_trace {
    struct spw_trace_request *requests;
    size_t count;
    uint64_t
        *prefix; /* block ids: equal id at equal place of the prompt means equal tokens so far */
    size_t prefix_count;
    uint32_t prefix_block_tokens; /* 512 for Mooncake; 0: no prefix structure */
    char (*tenants)[SPW_TRACE_TEXT_MAX];
    uint32_t tenant_count; /* >= 1; "default" first */
    char (*classes)[SPW_TRACE_TEXT_MAX];
    uint32_t class_count; /* >= 1; "default" first */
};

enum spw_trace_arrivals { SPW_TRACE_POISSON, SPW_TRACE_GAMMA, SPW_TRACE_CONSTANT };

/* What a drawn trace looks like. Lengths are uniform between min and max. */
struct spw_trace_draw {
    enum spw_trace_arrivals arrivals;
    double rate_per_second;
    double gamma_shape; /* coefficient of variation is 1 / sqrt(shape) */
    size_t count;
    uint32_t prompt_min, prompt_max, output_min, output_max;
    uint32_t prefix_groups; /* 0: none; else each request begins with one group's common prefix */
    uint32_t prefix_tokens; /* of it */
    uint64_t seed;
};

/* Read a file; the format is told by its first line. count_max 0: all. */
enum spw_status spw_trace_read(const char *path, size_t count_max, struct spw_trace *out_trace,
                               struct spw_error *error);
/* The same from memory; name is for messages. */
enum spw_status spw_trace_parse(const char *name, const char *text, size_t bytes, size_t count_max,
                                struct spw_trace *out_trace, struct spw_error *error);
enum spw_status spw_trace_draw(const struct spw_trace_draw *draw, struct spw_trace *out_trace,
                               struct spw_error *error);
void spw_trace_done(struct spw_trace *trace); /* accepts a zeroed one */

/* Arrival times divided by factor (> 0): 2 is twice the rate. */
void spw_trace_speed(struct spw_trace *trace, double factor);
/* Of one round when the trace is repeated: its last arrival and a mean gap. */
uint64_t spw_trace_period_ns(const struct spw_trace *trace);
/* Repeat until it covers duration_ns; each round's prefix ids are its own when fresh. */
enum spw_status spw_trace_repeat(struct spw_trace *trace, uint64_t duration_ns, bool fresh,
                                 struct spw_error *error);

#endif
