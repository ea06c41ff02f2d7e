/* load_log.c - what is known of each request, and when. */
#include "runtime/bench/load_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum spw_status spw_load_log_init(struct spw_load_log *log, const struct spw_trace *trace,
                                  size_t warm_up, struct spw_error *error)
{
    *log = (struct spw_load_log){.count = trace->count};
    log->records = calloc(SPW_MAX(trace->count, 1u), sizeof(*log->records));
    if (!log->records)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for %zu records", trace->count);
    for (size_t i = 0; i < trace->count; i++) {
        log->records[i].prompt_asked = trace->requests[i].prompt_tokens;
        log->records[i].output_asked = trace->requests[i].output_tokens;
        log->records[i].warm_up = i < warm_up;
    }
    return SPW_OK;
}

void spw_load_log_done(struct spw_load_log *log)
{
    free(log->records);
    free(log->gaps);
    *log = (struct spw_load_log){0};
}

void spw_load_log_begin(struct spw_load_log *log, const struct spw_trace *trace, uint64_t now_ns)
{
    log->begin_ns = now_ns;
    for (size_t i = 0; i < log->count; i++)
        log->records[i].intended_ns = now_ns + trace->requests[i].at_ns;
}

void spw_load_log_sent(struct spw_load_log *log, size_t index, uint64_t now_ns)
{
    struct spw_load_record *record = &log->records[index];
    assert(record->state == SPW_LOAD_WAITING && now_ns >= record->intended_ns);
    record->state = SPW_LOAD_SENT;
    record->sent_ns = now_ns;
}

void spw_load_log_chunk(struct spw_load_log *log, size_t index, uint64_t now_ns)
{
    struct spw_load_record *record = &log->records[index];
    assert(record->state == SPW_LOAD_SENT);
    record->chunks++;
    if (record->first_ns == 0) {
        record->first_ns = record->last_ns = now_ns;
        return;
    }
    float ms = (float)((double)(now_ns - record->last_ns) * 1e-6);
    record->last_ns = now_ns;
    record->gap_max_ms = SPW_MAX(record->gap_max_ms, ms);
    if (record->warm_up)
        return;
    if (log->gap_count == log->gap_capacity) {
        size_t capacity = log->gap_capacity ? 2 * log->gap_capacity : 4096;
        struct spw_load_gap *gaps = realloc(log->gaps, capacity * sizeof(*gaps));
        if (!gaps) {
            log->out_of_memory = true;
            return;
        }
        log->gaps = gaps;
        log->gap_capacity = capacity;
    }
    log->gaps[log->gap_count++] =
        (struct spw_load_gap){.at_ns = now_ns, .record = (uint32_t)index, .ms = ms};
}

void spw_load_log_usage(struct spw_load_log *log, size_t index, uint64_t prompt, uint64_t output,
                        uint64_t cached)
{
    struct spw_load_record *record = &log->records[index];
    record->usage = true;
    record->prompt_said = (uint32_t)SPW_MIN(prompt, UINT32_MAX);
    record->output_said = (uint32_t)SPW_MIN(output, UINT32_MAX);
    record->cached_said = (uint32_t)SPW_MIN(cached, UINT32_MAX);
}

void spw_load_log_ok(struct spw_load_log *log, size_t index, uint64_t now_ns)
{
    struct spw_load_record *record = &log->records[index];
    assert(record->state == SPW_LOAD_SENT);
    record->state = SPW_LOAD_OK;
    record->end_ns = now_ns;
}

static uint32_t find_fault(struct spw_load_log *log, const char *kind, const char *words)
{
    for (uint32_t i = 0; i < log->fault_count; i++)
        if (strcmp(log->faults[i].kind, kind) == 0)
            return i;
    if (log->fault_count == SPW_LOAD_FAULTS_MAX)
        return SPW_LOAD_FAULTS_MAX - 1;
    bool last = log->fault_count == SPW_LOAD_FAULTS_MAX - 1;
    struct spw_load_fault *fault = &log->faults[log->fault_count];
    snprintf(fault->kind, sizeof(fault->kind), "%s", last ? "other kinds" : kind);
    snprintf(fault->words, sizeof(fault->words), "%s", words);
    return log->fault_count++;
}

void spw_load_log_failed(struct spw_load_log *log, size_t index, uint64_t now_ns, const char *kind,
                         const char *words)
{
    struct spw_load_record *record = &log->records[index];
    assert(record->state == SPW_LOAD_SENT || record->state == SPW_LOAD_WAITING);
    record->state = SPW_LOAD_FAILED;
    record->end_ns = now_ns;
    record->fault = (uint16_t)find_fault(log, kind, words);
    if (record->warm_up)
        log->faults[record->fault].warm_up_count++;
    else
        log->faults[record->fault].count++;
}

void spw_load_log_stopped(struct spw_load_log *log, uint64_t now_ns)
{
    log->stopped = true;
    for (size_t i = 0; i < log->count; i++) {
        struct spw_load_record *record = &log->records[i];
        bool due = record->state == SPW_LOAD_WAITING && record->intended_ns <= now_ns;
        if (due || record->state == SPW_LOAD_SENT) {
            record->state = SPW_LOAD_UNFINISHED;
            record->end_ns = now_ns;
        }
    }
}
