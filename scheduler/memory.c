/* memory.c - how much state a config needs, and where it lies in the caller's block. */
#include <assert.h>
#include <string.h>

#include "scheduler/sched_int.h"

#define ALIGNMENT      64u
#define PLAN_NAMED_MIN 16384u
#define PATIENCE_NS    UINT64_C(10000000000)

/* Offsets into the caller's block. */
struct layout {
    size_t jobs, job_links, queue_links, running_links, verdict_links;
    size_t deadline_items, deadline_where;
    size_t tenants, tenant_links, active_items, active_where, lane_items[SPW_SCHED_LANES],
        lane_where[SPW_SCHED_LANES];
    size_t replicas, ready_links, moving_links, place_items, place_where, batch_items, batch_where;
    size_t nodes, node_links, own, any, places[SPW_SCHED_TIERS], victims[SPW_SCHED_TIERS];
    size_t victim_where[SPW_SCHED_TIERS], transfers, transfer_links, ids, copies;
    size_t flights, entries, slots;
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

static uint64_t tier_count(const struct spw_sched_config *config, uint32_t tier)
{
    return tier == SPW_SCHED_DEVICE ? config->kv_blocks
           : tier == SPW_SCHED_HOST ? config->host_blocks
                                    : config->disk_blocks;
}

/* One node for each place that a block's bytes can lie in. */
static uint64_t node_count(const struct spw_sched_config *config)
{
    return (uint64_t)config->kv_blocks + config->host_blocks + config->disk_blocks;
}

/* A chain of one in the mean. */
static uint32_t bucket_count(const struct spw_sched_config *config)
{
    const uint64_t nodes = config->prefix ? config->replicas * node_count(config) : 1;
    uint32_t buckets = 1;
    while (buckets < nodes && buckets < 1u << 31)
        buckets *= 2;
    return buckets;
}

static uint32_t tenant_count(const struct spw_sched_config *config)
{
    return config->tenants > 0 ? config->tenants : 1;
}

static uint32_t transfer_count(const struct spw_sched_config *config)
{
    return config->host_blocks > 0 ? config->transfers_max : 0;
}

static uint32_t largest_tier(const struct spw_sched_config *config)
{
    uint32_t most = config->kv_blocks;
    if (most < config->host_blocks)
        most = config->host_blocks;
    return most < config->disk_blocks ? config->disk_blocks : most;
}

static void lay_out(const struct spw_sched_config *config, struct layout *out)
{
    const size_t jobs = config->requests_max;
    const size_t tenants = tenant_count(config);
    const size_t replicas = config->replicas;
    const size_t flights = replicas * (config->pipeline + 1);
    const size_t nodes = replicas * node_count(config);
    const size_t transfers = replicas * transfer_count(config);
    size_t bytes = 0;

    carve(&bytes, 1, sizeof(struct spw_sched)); /* the head, at offset 0 */

    /* Per request known. */
    out->jobs = carve(&bytes, jobs, sizeof(struct spw_sched_job));
    out->job_links = carve(&bytes, jobs, sizeof(struct spw_sched_link));         /* where it is */
    out->queue_links = carve(&bytes, jobs, sizeof(struct spw_sched_pheap_link)); /* it waits */
    out->running_links = carve(&bytes, jobs, sizeof(struct spw_sched_link));     /* order by rank */
    out->verdict_links = carve(&bytes, jobs, sizeof(struct spw_sched_link)); /* unread verdicts */
    out->deadline_items = carve(&bytes, jobs, sizeof(uint32_t));             /* heap of deadlines */
    out->deadline_where = carve(&bytes, jobs, sizeof(uint32_t));

    /* Per tenant. */
    out->tenants = carve(&bytes, tenants, sizeof(struct spw_sched_tenant));
    out->tenant_links = carve(&bytes, tenants, sizeof(struct spw_sched_link)); /* lingering */
    out->active_items = carve(&bytes, tenants, sizeof(uint32_t)); /* heap of the active */
    out->active_where = carve(&bytes, tenants, sizeof(uint32_t));
    for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++) { /* heaps of those that wait */
        out->lane_items[lane] = carve(&bytes, tenants, sizeof(uint32_t));
        out->lane_where[lane] = carve(&bytes, tenants, sizeof(uint32_t));
    }

    /* Per replica. */
    out->replicas = carve(&bytes, replicas, sizeof(struct spw_sched_replica));
    out->ready_links = carve(&bytes, replicas, sizeof(struct spw_sched_link));  /* who has work */
    out->moving_links = carve(&bytes, replicas, sizeof(struct spw_sched_link)); /* transfers */
    out->place_items = carve(&bytes, replicas, sizeof(uint32_t));               /* who has room */
    out->place_where = carve(&bytes, replicas, sizeof(uint32_t));
    out->batch_items = carve(&bytes, replicas, sizeof(uint32_t)); /* who runs batch jobs */
    out->batch_where = carve(&bytes, replicas, sizeof(uint32_t));

    /* Per replica and block of a tier. */
    out->nodes = carve(&bytes, nodes, sizeof(struct spw_sched_node));
    out->node_links =
        carve(&bytes, config->prefix ? nodes : 0, sizeof(struct spw_sched_node_links));
    out->own = carve(&bytes, bucket_count(config), sizeof(uint32_t));
    out->any = carve(&bytes, bucket_count(config), sizeof(uint32_t));
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) {
        const size_t places = replicas * tier_count(config, tier);
        out->places[tier] = carve(&bytes, places, sizeof(uint32_t));  /* free ones */
        out->victims[tier] = carve(&bytes, places, sizeof(uint32_t)); /* cached ones */
    }
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) /* which of them a node is */
        out->victim_where[tier] = carve(&bytes, nodes, sizeof(uint32_t));
    out->copies = carve(&bytes, config->host_blocks > 0 ? nodes : 0, sizeof(uint32_t));
    out->transfer_links =
        carve(&bytes, config->host_blocks > 0 ? nodes : 0, sizeof(struct spw_sched_link));

    /* Per replica and transfer, step in flight, sequence in flight, slot. */
    out->transfers = carve(&bytes, transfers, sizeof(struct spw_sched_kv_transfer));
    out->ids = carve(&bytes, transfers, sizeof(uint32_t));
    out->flights = carve(&bytes, flights, sizeof(struct spw_sched_flight));
    out->entries = carve(&bytes, flights * step_entries(config), sizeof(struct spw_sched_entry));
    out->slots = carve(&bytes, replicas * config->slots, sizeof(uint32_t));

    /* One mark per block of a tier and per slot of one replica, for spw_sched_check. */
    out->scratch = carve(&bytes, (size_t)largest_tier(config) + config->slots, sizeof(uint8_t));
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
    if (config->tenants > SPW_SCHED_TENANTS_MAX)
        return "tenants: must be at most 1024";
    if (config->prompt_weight > 1000 || config->output_weight > 1000)
        return "prompt_weight, output_weight: must be at most 1000";
    if (config->batch_permille > 1000)
        return "batch_permille: must be at most 1000";
    if (config->host_blocks > 1u << 24 || config->disk_blocks > 1u << 28)
        return "host_blocks, disk_blocks: must be at most 16777216 and 268435456";
    if (config->disk_blocks > 0 && config->host_blocks == 0)
        return "disk_blocks: must be 0 without host_blocks";
    if (config->host_blocks > 0 && !config->prefix)
        return "host_blocks: must be 0 without prefix";
    if (config->host_blocks > 0 && (config->transfers_max < 1 || config->transfers_max > 1u << 20))
        return "transfers_max: must be 1 to 1048576";
    if (config->replicas * node_count(config) > 1u << 31)
        return "kv_blocks, host_blocks, disk_blocks: must be at most 2147483648 in all replicas";
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
    const uint64_t begun =
        (rows + (uint64_t)step_entries(config) * (block_tokens - 1)) / block_tokens;
    if (!config->prefix)
        return (uint32_t)(begun < config->kv_blocks ? begun : config->kv_blocks);
    /* Prefixes from the index are named whole: the longest one fits, and usually many. */
    uint64_t named = (config->context_tokens_max + block_tokens - 1) / block_tokens;
    if (named < PLAN_NAMED_MIN)
        named = PLAN_NAMED_MIN;
    return (uint32_t)(begun + (named < config->kv_blocks ? named : config->kv_blocks));
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

/* Most batch jobs first, then index. */
static bool batch_before(const void *context, uint32_t a, uint32_t b)
{
    const struct spw_sched *sched = context;
    const uint32_t x = sched->replicas[a].batch_running, y = sched->replicas[b].batch_running;
    return x != y ? x > y : a < b;
}

/* Least served first, then index. */
static bool tenant_before(const void *context, uint32_t a, uint32_t b)
{
    const struct spw_sched *sched = context;
    const uint64_t x = sched->tenants[a].served, y = sched->tenants[b].served;
    return x != y ? x < y : a < b;
}

/* Item `first` of an array at an offset. */
#define PIECE(type, offset, first) ((type *)(void *)(base + (offset)) + (first))

static void init_kv(struct spw_sched *sched, uint32_t index, unsigned char *base,
                    const struct layout *layout)
{
    const struct spw_sched_config *config = &sched->config;
    const size_t node = index * node_count(config);
    const size_t transfer = (size_t)index * transfer_count(config);
    struct spw_sched_kv_memory memory = {
        .nodes = PIECE(struct spw_sched_node, layout->nodes, node),
        .transfers = PIECE(struct spw_sched_kv_transfer, layout->transfers, transfer),
        .transfer_links = PIECE(struct spw_sched_link, layout->transfer_links,
                                config->host_blocks > 0 ? node : 0),
        .free_ids = PIECE(uint32_t, layout->ids, transfer),
        .copies = PIECE(uint32_t, layout->copies, config->host_blocks > 0 ? node : 0),
    };
    for (uint32_t tier = 0; tier < SPW_SCHED_TIERS; tier++) {
        const size_t first = index * tier_count(config, tier);
        memory.free_places[tier] = PIECE(uint32_t, layout->places[tier], first);
        memory.victim_items[tier] = PIECE(uint32_t, layout->victims[tier], first);
        memory.victim_where[tier] = PIECE(uint32_t, layout->victim_where[tier], node);
    }
    spw_sched_kv_init(&sched->replicas[index].kv, config, &sched->now_ns, &sched->config.cost,
                      index, &memory, &sched->index);
}

static void init_replica(struct spw_sched *sched, uint32_t index, unsigned char *base,
                         const struct layout *layout)
{
    const struct spw_sched_config *config = &sched->config;
    struct spw_sched_replica *replica = &sched->replicas[index];
    const size_t flight = (size_t)index * (config->pipeline + 1);
    memset(replica, 0, sizeof(*replica));
    init_kv(sched, index, base, layout);
    spw_sched_queue_init(&replica->running);
    for (uint32_t i = 0; i < SPW_SCHED_PRIORITIES; i++)
        spw_sched_queue_init(&replica->prefill[i]);
    spw_sched_queue_init(&replica->loading);
    replica->flights = PIECE(struct spw_sched_flight, layout->flights, flight);
    for (uint32_t i = 0; i <= config->pipeline; i++) {
        replica->flights[i].seq_count = 0;
        replica->flights[i].sample_count = 0;
    }
    for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++) {
        spw_sched_queue_init(&replica->idle[lane]);
        for (uint32_t i = 0; i <= config->pipeline; i++)
            spw_sched_queue_init(&replica->flights[i].decoding[lane]);
    }
    replica->entries = PIECE(struct spw_sched_entry, layout->entries, flight * sched->step_entries);
    replica->free_slots = PIECE(uint32_t, layout->slots, (size_t)index * config->slots);
    replica->free_slot_count = config->slots;
    for (uint32_t i = 0; i < config->slots; i++)
        replica->free_slots[i] = config->slots - 1 - i; /* slot 0 first */
}

static void init_jobs(struct spw_sched *sched, unsigned char *base, const struct layout *layout)
{
    const uint32_t count = sched->config.requests_max;
    sched->jobs = PIECE(struct spw_sched_job, layout->jobs, 0);
    sched->job_links = PIECE(struct spw_sched_link, layout->job_links, 0);
    sched->queue_links = PIECE(struct spw_sched_pheap_link, layout->queue_links, 0);
    sched->running_links = PIECE(struct spw_sched_link, layout->running_links, 0);
    sched->verdict_links = PIECE(struct spw_sched_link, layout->verdict_links, 0);
    memset(sched->jobs, 0, count * sizeof(*sched->jobs)); /* place FREE */
    spw_sched_links_init(sched->job_links, count);
    spw_sched_links_init(sched->running_links, count);
    spw_sched_links_init(sched->verdict_links, count);
    spw_sched_queue_init(&sched->free);
    spw_sched_queue_init(&sched->verdicts);
    for (uint32_t i = 0; i < count; i++) {
        sched->jobs[i].replica = SPW_SCHED_NONE;
        spw_sched_queue_push(&sched->free, sched->job_links, i);
    }
    spw_sched_heap_init(&sched->deadlines, PIECE(uint32_t, layout->deadline_items, 0),
                        PIECE(uint32_t, layout->deadline_where, 0), count, deadline_before, sched);
}

static void init_replicas(struct spw_sched *sched, unsigned char *base, const struct layout *layout)
{
    const uint32_t count = sched->config.replicas;
    sched->replicas = PIECE(struct spw_sched_replica, layout->replicas, 0);
    sched->ready_links = PIECE(struct spw_sched_link, layout->ready_links, 0);
    sched->moving_links = PIECE(struct spw_sched_link, layout->moving_links, 0);
    spw_sched_links_init(sched->ready_links, count);
    spw_sched_links_init(sched->moving_links, count);
    spw_sched_queue_init(&sched->ready);
    spw_sched_queue_init(&sched->moving);
    spw_sched_heap_init(&sched->places, PIECE(uint32_t, layout->place_items, 0),
                        PIECE(uint32_t, layout->place_where, 0), count, place_before, sched);
    spw_sched_heap_init(&sched->batch, PIECE(uint32_t, layout->batch_items, 0),
                        PIECE(uint32_t, layout->batch_where, 0), count, batch_before, sched);
    spw_sched_index_init(&sched->index, PIECE(uint32_t, layout->own, 0),
                         PIECE(uint32_t, layout->any, 0), bucket_count(&sched->config),
                         (uint32_t)node_count(&sched->config),
                         PIECE(struct spw_sched_node, layout->nodes, 0),
                         PIECE(struct spw_sched_node_links, layout->node_links, 0));
    for (uint32_t i = 0; i < count; i++)
        init_replica(sched, i, base, layout);
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
    sched->config.tenants = tenant_count(config);
    if (config->prompt_weight == 0 && config->output_weight == 0)
        sched->config.prompt_weight = sched->config.output_weight = 1;
    if (config->patience_ns == 0)
        sched->config.patience_ns = PATIENCE_NS;
    sched->step_entries = step_entries(config);
    sched->stuck_request = SPW_SCHED_NONE;
    init_jobs(sched, base, &layout);
    sched->tenants = PIECE(struct spw_sched_tenant, layout.tenants, 0);
    sched->tenant_links = PIECE(struct spw_sched_link, layout.tenant_links, 0);
    for (uint32_t lane = 0; lane < SPW_SCHED_LANES; lane++)
        spw_sched_heap_init(&sched->lanes[lane], PIECE(uint32_t, layout.lane_items[lane], 0),
                            PIECE(uint32_t, layout.lane_where[lane], 0), sched->config.tenants,
                            tenant_before, sched);
    spw_sched_heap_init(&sched->active, PIECE(uint32_t, layout.active_items, 0),
                        PIECE(uint32_t, layout.active_where, 0), sched->config.tenants,
                        tenant_before, sched);
    spw_sched_wait_init(sched);
    init_replicas(sched, base, &layout);
    sched->scratch = base + layout.scratch;
    return sched;
}
