/* replay_arrivals.c - which request comes when, of which class, with which prefix. */
#include "runtime/plan/replay_int.h"

#include <stdlib.h>
#include <string.h>

uint64_t spw_replay_mix(uint64_t value)
{
    /* finalizer of Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014) */
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

bool spw_replay_arrivals_init(struct spw_replay_arrivals *arrivals, const struct spw_trace *trace,
                              const struct spw_cluster *cluster,
                              const struct spw_replay_options *options, uint32_t cell,
                              uint32_t replicas)
{
    *arrivals = (struct spw_replay_arrivals){
        .trace = trace,
        .cluster = cluster,
        .speed = options->speed > 0 ? options->speed : 1,
        .duration_ns = options->duration_ns,
        .period_ns = spw_trace_period_ns(trace),
        .seed = spw_replay_mix(options->seed),
        /* cell / replicas of 2^64; all: every hash is below or equal */
        .threshold = cell >= replicas ? UINT64_MAX : UINT64_MAX / replicas * cell,
        .classes = calloc(trace->class_count, sizeof(uint32_t)),
    };
    if (!arrivals->classes)
        return false;
    for (uint32_t i = 0; i < trace->class_count; i++)
        for (uint32_t c = 0; c < cluster->class_count; c++)
            if (strcmp(trace->classes[i], cluster->classes[c].name) == 0)
                arrivals->classes[i] = c;
    arrivals->over = trace->count == 0;
    return true;
}

void spw_replay_arrivals_done(struct spw_replay_arrivals *arrivals)
{
    free(arrivals->classes);
    arrivals->classes = NULL;
}

uint64_t spw_replay_arrivals_span(const struct spw_replay_arrivals *arrivals)
{
    if (arrivals->duration_ns)
        return arrivals->duration_ns;
    return (uint64_t)((double)arrivals->period_ns / arrivals->speed) + 1;
}

/* A class of its own stays; the others are drawn by share. */
static uint32_t class_of(const struct spw_replay_arrivals *arrivals, uint32_t trace_class,
                         uint64_t number)
{
    if (trace_class)
        return arrivals->classes[trace_class];
    uint32_t draw = (uint32_t)(spw_replay_mix(arrivals->seed ^ (number * 2 + 1)) % 1000000u);
    for (uint32_t i = 1; i < arrivals->cluster->class_count; i++) {
        if (draw < arrivals->cluster->classes[i].share_ppm)
            return i;
        draw -= arrivals->cluster->classes[i].share_ppm;
    }
    return 0;
}

void spw_replay_arrivals_next(struct spw_replay_arrivals *arrivals)
{
    const struct spw_trace *trace = arrivals->trace;
    while (!arrivals->over) {
        if (arrivals->index == trace->count) {
            arrivals->index = 0;
            arrivals->round++;
        }
        if (arrivals->round && !arrivals->duration_ns) {
            arrivals->over = true;
            break;
        }
        const struct spw_trace_request *request = &trace->requests[arrivals->index];
        double at =
            ((double)request->at_ns + (double)arrivals->round * (double)arrivals->period_ns) /
            arrivals->speed;
        if (arrivals->duration_ns && at >= (double)arrivals->duration_ns) {
            arrivals->over = true;
            break;
        }
        uint64_t number = arrivals->number++;
        arrivals->index++;
        if (spw_replay_mix(arrivals->seed ^ (number * 2)) > arrivals->threshold)
            continue;
        arrivals->request = *request;
        arrivals->request.at_ns = (uint64_t)at;
        arrivals->request.data_class = class_of(arrivals, request->data_class, number);
        break;
    }
}

static struct spw_sched_hash hash_of(uint64_t who, uint64_t where)
{
    uint64_t low = spw_replay_mix(who ^ spw_replay_mix(where));
    return (struct spw_sched_hash){.low = low ? low : 1, .high = spw_replay_mix(low + who)};
}

void spw_replay_hashes(const struct spw_replay_arrivals *arrivals, uint32_t block_tokens,
                       uint32_t count, struct spw_sched_hash *out_hashes)
{
    const struct spw_trace *trace = arrivals->trace;
    const struct spw_trace_request *request = &arrivals->request;
    uint64_t prefix_tokens = trace->prefix_block_tokens;
    /* ids are one round's and one tenant's own */
    uint64_t salt = spw_replay_mix((arrivals->round << 16) + request->tenant + 1);
    uint64_t own = spw_replay_mix(arrivals->number + 0x6f776eull) ^ arrivals->seed;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t end = ((uint64_t)i + 1) * block_tokens;
        /* an id says what all tokens up to its block's end are, so the last one touched counts */
        uint64_t place = prefix_tokens ? (end - 1) / prefix_tokens : 0;
        bool shared =
            prefix_tokens && place < request->prefix_count && end <= request->prompt_tokens;
        out_hashes[i] = shared ? hash_of(trace->prefix[request->prefix_begin + place] ^ salt,
                                         (place << 32) + (end - place * prefix_tokens))
                               : hash_of(own, i);
    }
}

uint64_t spw_replay_rows(const struct spw_trace *trace, const struct spw_replay_options *options)
{
    double rows = 0, rounds = 1;
    for (size_t i = 0; i < trace->count; i++)
        rows += trace->requests[i].output_tokens;
    if (options->duration_ns)
        rounds = (double)options->duration_ns * (options->speed > 0 ? options->speed : 1) /
                 (double)spw_trace_period_ns(trace);
    return (uint64_t)SPW_MIN(rows * rounds, 1e18);
}

uint32_t spw_replay_cell(uint64_t rows, uint32_t replicas, uint64_t rows_max)
{
    double part = rows > rows_max ? (double)rows_max / (double)rows : 1;
    double cell = replicas * part;
    if (cell < SPW_REPLAY_CELL_FEW && rows > rows_max)
        cell = SPW_MIN(2 * cell, (double)SPW_REPLAY_CELL_FEW);
    if (cell > replicas)
        cell = replicas;
    return cell < 1 ? 1 : (uint32_t)cell;
}

/* ---- events ---- */

static bool before(const struct spw_replay_event *a, const struct spw_replay_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

bool spw_replay_events_add(struct spw_replay_events *events, uint64_t at_ns, uint32_t kind,
                           uint32_t index, uint32_t id)
{
    struct spw_replay_event event = {
        .at_ns = at_ns, .seq = events->seq++, .kind = kind, .index = index, .id = id};
    if (events->count == events->room) {
        size_t room = events->room ? 2 * events->room : 1024;
        void *grown = realloc(events->heap, room * sizeof(event));
        if (!grown)
            return false;
        events->heap = grown;
        events->room = room;
    }
    size_t at = events->count++;
    for (size_t up; at > 0 && before(&event, &events->heap[up = (at - 1) / 2]); at = up)
        events->heap[at] = events->heap[up];
    events->heap[at] = event;
    return true;
}

struct spw_replay_event spw_replay_events_pop(struct spw_replay_events *events)
{
    assert(events->count > 0);
    struct spw_replay_event top = events->heap[0], last = events->heap[--events->count];
    size_t at = 0;
    for (size_t down; (down = 2 * at + 1) < events->count; at = down) {
        if (down + 1 < events->count && before(&events->heap[down + 1], &events->heap[down]))
            down++;
        if (!before(&events->heap[down], &last))
            break;
        events->heap[at] = events->heap[down];
    }
    events->heap[at] = last;
    return top;
}
