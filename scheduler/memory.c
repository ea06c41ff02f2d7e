/* memory.c - how much state a config needs, and where it lies in the caller's block. */
#include <assert.h>
#include <string.h>

#include "scheduler/sched_int.h"

#define ALIGNMENT 64u

/* Offsets into the caller's block. */
struct layout {
    size_t jobs, job_links, running_links, verdict_links;
    size_t deadline_items, deadline_where;
    size_t replicas, ready_links, place_items, place_where;
    size_t blocks, flights, entries, slots;
    size_t scratch;
    size_t bytes;
};

static size_t carve(size_t *bytes, size_t count, size_t size)
{
    const size_t offset = *bytes;
    *bytes += (count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return offset;
}

static uint32_t step_entries(const struct spw_sched_config *config)
{
    uint32_t entries = config->step_seqs_max;
    if (entries > config->slots)
        entries = config->slots;
    if (entries > config->step_tokens_max)
        entries = config->step_tokens_max;
    return entries;
}

static void lay_out(const struct spw_sched_config *config, struct layout *out)
{
    const size_t jobs = config->requests_max;
    const size_t replicas = config->replicas;
    const size_t flights = replicas * (config->pipeline + 1);
    size_t bytes = 0;

    carve(&bytes, 1, sizeof(struct spw_sched)); /* the head, at offset 0 */

    /* Per request known. */
    out->jobs = carve(&bytes, jobs, sizeof(struct spw_sched_job));
    out->job_links = carve(&bytes, jobs, sizeof(struct spw_sched_link));     /* where it is */
    out->running_links = carve(&bytes, jobs, sizeof(struct spw_sched_link)); /* order by rank */
    out->verdict_links = carve(&bytes, jobs, sizeof(struct spw_sched_link)); /* unread verdicts */
    out->deadline_items = carve(&bytes, jobs, sizeof(uint32_t));             /* heap of deadlines */
    out->deadline_where = carve(&bytes, jobs, sizeof(uint32_t));

    /* Per replica. */
    out->replicas = carve(&bytes, replicas, sizeof(struct spw_sched_replica));
    out->ready_links = carve(&bytes, replicas, sizeof(struct spw_sched_link)); /* who has work */
    out->place_items = carve(&bytes, replicas, sizeof(uint32_t));              /* who has room */
    out->place_where = carve(&bytes, replicas, sizeof(uint32_t));

    /* Per replica and block, step in flight, sequence in flight, slot. */
    out->blocks = carve(&bytes, replicas * config->kv_blocks, sizeof(struct spw_sched_kv_block));
    out->flights = carve(&bytes, flights, sizeof(struct spw_sched_flight));
    out->entries = carve(&bytes, flights * step_entries(config), sizeof(struct spw_sched_entry));
    out->slots = carve(&bytes, replicas * config->slots, sizeof(uint32_t));

    /* One mark per block and slot of one replica, for spw_sched_check. */
    out->scratch = carve(&bytes, (size_t)config->kv_blocks + config->slots, sizeof(uint8_t));
    out->bytes = bytes;
}

static const char *refuse(const struct spw_sched_config *config)
{
    if (config->replicas < 1 || config->replicas > 65536)
        return "replicas: must be 1 to 65536";
    if (config->requests_max < 1 || config->requests_max > 1u << 24)
        return "requests_max: must be 1 to 16777216";
    if (config->waiting_max < 1 || config->waiting_max > config->requests_max)
        return "waiting_max: must be 1 to requests_max";
    if (config->slots < 1 || config->slots > 65536)
        return "slots: must be 1 to 65536";
    if (config->block_tokens < 1 || config->block_tokens > 65536)
        return "block_tokens: must be 1 to 65536";
    if (config->kv_blocks < 1 || config->kv_blocks > 1u << 24)
        return "kv_blocks: must be 1 to 16777216";
    if (config->context_tokens_max < 2 || config->context_tokens_max > 1u << 26)
        return "context_tokens_max: must be 2 to 67108864";
    if (config->step_tokens_max < 1 || config->step_tokens_max > 1u << 20)
        return "step_tokens_max: must be 1 to 1048576";
    if (config->step_seqs_max < 1 || config->step_seqs_max > 65536)
        return "step_seqs_max: must be 1 to 65536";
    if (config->prefill_chunk_max < 1 || config->prefill_chunk_max > config->step_tokens_max)
        return "prefill_chunk_max: must be 1 to step_tokens_max";
    if (config->pipeline < 1 || config->pipeline > SPW_SCHED_PIPELINE_MAX)
        return "pipeline: must be 1 to 64";
    return NULL;
}

size_t spw_sched_bytes(const struct spw_sched_config *config, const char **out_reason)
{
    _Static_assert(sizeof(size_t) >= 8, "sizes are computed in 64 bits");
    const char *reason = refuse(config);
    if (reason != NULL) {
        if (out_reason != NULL)
            *out_reason = reason;
        return 0;
    }
    struct layout layout;
    lay_out(config, &layout);
    return layout.bytes;
}

uint32_t spw_sched_plan_blocks_max(const struct spw_sched_config *config)
{
    /* A sequence with r rows starts at most ceil(r / block_tokens) blocks. */
    const uint64_t rows = config->step_tokens_max;
    const uint64_t block_tokens = config->block_tokens;
    const uint64_t blocks =
        (rows + (uint64_t)step_entries(config) * (block_tokens - 1)) / block_tokens;
    return (uint32_t)(blocks < config->kv_blocks ? blocks : config->kv_blocks);
}

/* Earlier deadline first, then age. */
static bool deadline_before(const void *context, uint32_t a, uint32_t b)
{
    const struct spw_sched *sched = context;
    const struct spw_sched_job *x = &sched->jobs[a];
    const struct spw_sched_job *y = &sched->jobs[b];
    return x->deadline_ns != y->deadline_ns ? x->deadline_ns < y->deadline_ns : x->seq < y->seq;
}

/* Most free blocks first, then fewest running, then index. */
static bool place_before(const void *context, uint32_t a, uint32_t b)
{
    const struct spw_sched *sched = context;
    const struct spw_sched_replica *x = &sched->replicas[a];
    const struct spw_sched_replica *y = &sched->replicas[b];
    if (x->key_available != y->key_available)
        return x->key_available > y->key_available;
    return x->key_running != y->key_running ? x->key_running < y->key_running : a < b;
}

static void init_replica(struct spw_sched *sched, uint32_t index, unsigned char *base,
                         const struct layout *layout)
{
    const struct spw_sched_config *config = &sched->config;
    struct spw_sched_replica *replica = &sched->replicas[index];
    const size_t flight = (size_t)index * (config->pipeline + 1);
    memset(replica, 0, sizeof(*replica));
    spw_sched_kv_init(&replica->kv,
                      (struct spw_sched_kv_block *)(void *)(base + layout->blocks) +
                          (size_t)index * config->kv_blocks,
                      config->kv_blocks);
    spw_sched_queue_init(&replica->running);
    for (uint32_t i = 0; i < SPW_SCHED_PRIORITIES; i++)
        spw_sched_queue_init(&replica->prefill[i]);
    spw_sched_queue_init(&replica->idle);
    replica->flights = (struct spw_sched_flight *)(void *)(base + layout->flights) + flight;
    for (uint32_t i = 0; i <= config->pipeline; i++) {
        spw_sched_queue_init(&replica->flights[i].decoding);
        replica->flights[i].seq_count = 0;
        replica->flights[i].sample_count = 0;
    }
    replica->entries =
        (struct spw_sched_entry *)(void *)(base + layout->entries) + flight * sched->step_entries;
    replica->free_slots =
        (uint32_t *)(void *)(base + layout->slots) + (size_t)index * config->slots;
    replica->free_slot_count = config->slots;
    for (uint32_t i = 0; i < config->slots; i++)
        replica->free_slots[i] = config->slots - 1 - i; /* slot 0 first */
}

struct spw_sched *spw_sched_init(void *memory, const struct spw_sched_config *config)
{
    assert(memory != NULL && (uintptr_t)memory % ALIGNMENT == 0);
    assert(refuse(config) == NULL);
    unsigned char *base = memory;
    struct layout layout;
    lay_out(config, &layout);

    struct spw_sched *sched = memory;
    memset(sched, 0, sizeof(*sched));
    sched->config = *config;
    sched->step_entries = step_entries(config);

    sched->jobs = (struct spw_sched_job *)(void *)(base + layout.jobs);
    sched->job_links = (struct spw_sched_link *)(void *)(base + layout.job_links);
    sched->running_links = (struct spw_sched_link *)(void *)(base + layout.running_links);
    sched->verdict_links = (struct spw_sched_link *)(void *)(base + layout.verdict_links);
    memset(sched->jobs, 0, config->requests_max * sizeof(*sched->jobs)); /* place FREE */
    spw_sched_links_init(sched->job_links, config->requests_max);
    spw_sched_links_init(sched->running_links, config->requests_max);
    spw_sched_links_init(sched->verdict_links, config->requests_max);
    spw_sched_queue_init(&sched->free);
    spw_sched_queue_init(&sched->verdicts);
    for (uint32_t i = 0; i < SPW_SCHED_PRIORITIES; i++)
        spw_sched_queue_init(&sched->waiting[i]);
    for (uint32_t i = 0; i < config->requests_max; i++) {
        sched->jobs[i].replica = SPW_SCHED_NONE;
        spw_sched_queue_push(&sched->free, sched->job_links, i);
    }
    spw_sched_heap_init(&sched->deadlines, (uint32_t *)(void *)(base + layout.deadline_items),
                        (uint32_t *)(void *)(base + layout.deadline_where), config->requests_max,
                        deadline_before, sched);

    sched->replicas = (struct spw_sched_replica *)(void *)(base + layout.replicas);
    sched->ready_links = (struct spw_sched_link *)(void *)(base + layout.ready_links);
    spw_sched_links_init(sched->ready_links, config->replicas);
    spw_sched_queue_init(&sched->ready);
    spw_sched_heap_init(&sched->places, (uint32_t *)(void *)(base + layout.place_items),
                        (uint32_t *)(void *)(base + layout.place_where), config->replicas,
                        place_before, sched);
    for (uint32_t i = 0; i < config->replicas; i++)
        init_replica(sched, i, base, &layout);
    sched->scratch = base + layout.scratch;
    return sched;
}
