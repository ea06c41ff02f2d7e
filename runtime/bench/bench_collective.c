/* Collectives: between threads of this process, and, when mpirun started it, between processes.
 * Each figure stands beside what the same machine did raw a moment before: a flag in shared memory
 * that two ranks answer to each other (latency), and memcpy (bandwidth).
 */
#include "runtime/base/clock.h"
#include "runtime/base/rng.h"
#include "runtime/bench/bench.h"
#include "transport/bootstrap.h"
#include "transport/coll.h"
#include "transport/tp_local.h"
#ifdef SPW_HAVE_UCX
#include "transport/tp_ucx.h"
#endif

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BYTES_LARGE ((size_t)4 << 20)
#define SAMPLES_MAX 15u
#define TIMEOUT_NS  (60 * SPW_SECOND)
#define RANKS_MAX   SPW_COLL_RANKS_MAX
#define STAGE_BYTES (2048 * sizeof(float))

static const size_t rows[] = {64, 2048, 4096};

struct figures {
    double copy_bytes_s;
    double flag_s;    /* one way, 0: memory cannot be mapped */
    double message_s; /* one way, 8 bytes through the transport */
    double row_s[SPW_ARRAY_COUNT(rows)];
    double large_s;
    double stage_s;
};

struct rank {
    struct spw_tp *tp;
    bool quick;
    enum spw_status status;
    struct spw_error error;
    struct figures figures;
    struct spw_coll *coll, *to, *back;
    float *data;
    uint64_t step;
    uint32_t pings;
    atomic_uint *own_flag, *their_flag; /* NULL where memory cannot be mapped */
    uint32_t flag;
};

enum pick { PICK_MEDIAN, PICK_BEST /* what the machine can do: limits */ };

/* Seconds of one call of `what`, out of several runs of `calls` of them. All ranks do the same. */
static double measure(struct rank *rank, uint32_t calls, enum spw_status (*what)(struct rank *rank),
                      enum pick pick)
{
    double seconds[SAMPLES_MAX];
    uint32_t samples = rank->quick ? 5 : SAMPLES_MAX;
    for (uint32_t sample = 0; sample <= samples && rank->status == SPW_OK; sample++) {
        uint64_t start = spw_clock_monotonic_ns();
        for (uint32_t i = 0; i < calls && rank->status == SPW_OK; i++)
            rank->status = what(rank);
        if (sample > 0) /* the first warms up */
            seconds[sample - 1] = (double)(spw_clock_monotonic_ns() - start) / 1e9 / calls;
    }
    if (rank->status != SPW_OK)
        return 0;
    double median = spw_bench_median(seconds, samples); /* sorts */
    return pick == PICK_BEST ? seconds[0] : median;
}

static _Thread_local size_t row_count;

static enum spw_status reduce(struct rank *rank)
{
    return spw_coll_allreduce_f32(rank->coll, rank->data, row_count);
}

static enum spw_status copy(struct rank *rank)
{
    memcpy(rank->data, (uint8_t *)rank->data + BYTES_LARGE, BYTES_LARGE);
    atomic_signal_fence(memory_order_seq_cst); /* the copy is made even if nobody reads it */
    return SPW_OK;
}

/* There and back: rank 0 and rank 1. */
static enum spw_status stage_round(struct rank *rank)
{
    enum spw_status status;
    rank->step++;
    if (rank->tp->rank == 0) {
        status = spw_coll_stage_send(rank->to, rank->step, rank->data, STAGE_BYTES);
        return status ? status
                      : spw_coll_stage_recv(rank->back, rank->step, rank->data, STAGE_BYTES);
    }
    status = spw_coll_stage_recv(rank->to, rank->step, rank->data, STAGE_BYTES);
    return status ? status : spw_coll_stage_send(rank->back, rank->step, rank->data, STAGE_BYTES);
}

static void on_ping(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct rank *rank = context;
    (void)peer;
    (void)data;
    (void)bytes;
    rank->pings++;
}

static enum spw_status send_ping(struct rank *rank)
{
    uint64_t word = 0;
    enum spw_status status;
    while ((status = spw_tp_send(rank->tp, 1 - rank->tp->rank, SPW_TP_TYPE_USER, &word,
                                 sizeof(word))) == SPW_FULL)
        spw_tp_poll(rank->tp, 16);
    return status;
}

static enum spw_status await_ping(struct rank *rank)
{
    uint32_t before = rank->pings;
    uint64_t start = spw_clock_monotonic_ns();
    /* A ping that came with an earlier poll counts: they strictly alternate. */
    while (rank->pings == before) {
        if (spw_tp_poll(rank->tp, 16) == 0)
            spw_tp_wait(rank->tp, 10 * SPW_MS);
        if (spw_clock_monotonic_ns() - start > TIMEOUT_NS)
            return SPW_TIMEOUT;
    }
    return SPW_OK;
}

static enum spw_status message_round(struct rank *rank)
{
    enum spw_status status = rank->tp->rank == 0 ? send_ping(rank) : await_ping(rank);
    if (status)
        return status;
    return rank->tp->rank == 0 ? await_ping(rank) : send_ping(rank);
}

static enum spw_status await_flag(struct rank *rank, uint32_t value)
{
    uint64_t start = spw_clock_monotonic_ns();
    for (uint32_t turn = 1; atomic_load_explicit(rank->own_flag, memory_order_acquire) < value;
         turn++)
        if (turn % 4096 == 0) {
            sched_yield();
            if (spw_clock_monotonic_ns() - start > TIMEOUT_NS)
                return SPW_TIMEOUT;
        }
    return SPW_OK;
}

static enum spw_status flag_round(struct rank *rank)
{
    rank->flag++;
    if (rank->tp->rank == 0) {
        atomic_store_explicit(rank->their_flag, rank->flag, memory_order_release);
        return await_flag(rank, rank->flag);
    }
    enum spw_status status = await_flag(rank, rank->flag);
    atomic_store_explicit(rank->their_flag, rank->flag, memory_order_release);
    return status;
}

struct key_box {
    uint8_t key[SPW_TP_KEY_BYTES_MAX];
    size_t bytes;
};

static void on_key(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct key_box *box = context;
    (void)peer;
    memcpy(box->key, data, bytes);
    box->bytes = bytes;
}

/* Ranks 0 and 1: a word of each other's memory. */
static enum spw_status share_flags(struct rank *rank, struct key_box *box)
{
    const struct spw_tp_ops *ops = rank->tp->ops;
    struct spw_tp_memory *memory;
    struct spw_tp_remote *remote;
    uint8_t key[SPW_TP_KEY_BYTES_MAX];
    size_t key_bytes;
    void *base;
    enum spw_status status = ops->memory_create(rank->tp, 4096, &memory, &base);
    if (!status)
        status = ops->memory_pack(rank->tp, memory, key, &key_bytes);
    if (!status)
        status = spw_tp_send(rank->tp, 1 - rank->tp->rank, SPW_TP_TYPE_USER + 1, key, key_bytes);
    uint64_t start = spw_clock_monotonic_ns();
    while (!status && !box->bytes) {
        if (spw_tp_poll(rank->tp, 16) == 0)
            spw_tp_wait(rank->tp, 10 * SPW_MS);
        if (spw_clock_monotonic_ns() - start > TIMEOUT_NS)
            status = SPW_TIMEOUT;
    }
    if (!status)
        status = ops->remote_open(rank->tp, 1 - rank->tp->rank, box->key, box->bytes, &remote);
    if (status)
        return status;
    rank->own_flag = base;
    rank->their_flag = ops->remote_map(rank->tp, remote); /* both stay until the endpoint closes */
    return SPW_OK;
}

static enum spw_status make_groups(struct rank *rank)
{
    uint32_t ranks[RANKS_MAX], own = rank->tp->rank;
    for (uint32_t i = 0; i < rank->tp->ranks; i++)
        ranks[i] = i;
    struct spw_coll_config config = {
        .ranks = ranks,
        .count = rank->tp->ranks,
        .index = own,
        .previous = UINT32_MAX,
        .next = UINT32_MAX,
        .bytes_max = BYTES_LARGE,
        .steps_in_flight = 2,
        .timeout_ns = TIMEOUT_NS,
        .group_id = 1,
    };
    enum spw_status status = spw_coll_create(rank->tp, &config, &rank->coll, &rank->error);
    if (status || own > 1)
        return status;
    /* Two links between ranks 0 and 1, one each way. */
    config.ranks = &own;
    config.count = 1;
    config.index = 0;
    config.bytes_max = STAGE_BYTES;
    config.group_id = 2 + own;
    config.next = own == 0 ? 1 : UINT32_MAX;
    config.previous = own == 0 ? UINT32_MAX : 0;
    status = spw_coll_create(rank->tp, &config, &rank->to, &rank->error);
    if (status)
        return status;
    config.group_id = 4 + own;
    config.next = own == 0 ? UINT32_MAX : 0;
    config.previous = own == 0 ? 1 : UINT32_MAX;
    return spw_coll_create(rank->tp, &config, &rank->back, &rank->error);
}

static enum spw_status all_meet(struct rank *rank)
{
    float one = 1;
    return spw_coll_allreduce_f32(rank->coll, &one, 1);
}

static void *run(void *context)
{
    struct rank *rank = context;
    struct figures *figures = &rank->figures;
    struct key_box box = {.bytes = 0};
    uint32_t calls = rank->quick ? 50 : 300;
    rank->data = calloc(2, BYTES_LARGE);
    spw_tp_handle(rank->tp, SPW_TP_TYPE_USER, on_ping, rank);
    spw_tp_handle(rank->tp, SPW_TP_TYPE_USER + 1, on_key, &box);
    rank->status = rank->data ? make_groups(rank) : SPW_NO_MEMORY;
    if (!rank->status && rank->tp->rank < 2) {
        rank->status = share_flags(rank, &box);
        if (!rank->status && rank->their_flag)
            figures->flag_s = measure(rank, calls, flag_round, PICK_BEST) / 2;
        figures->message_s = measure(rank, calls, message_round, PICK_MEDIAN) / 2;
        figures->stage_s = measure(rank, calls, stage_round, PICK_MEDIAN) / 2;
    }
    if (!rank->status && rank->tp->rank == 0)
        figures->copy_bytes_s =
            (double)BYTES_LARGE / measure(rank, rank->quick ? 4 : 16, copy, PICK_BEST);
    if (!rank->status)
        rank->status = all_meet(rank);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        row_count = rows[i];
        figures->row_s[i] = measure(rank, calls, reduce, PICK_MEDIAN);
    }
    row_count = BYTES_LARGE / sizeof(float);
    figures->large_s = measure(rank, rank->quick ? 2 : 8, reduce, PICK_MEDIAN);
    if (!rank->status)
        rank->status = all_meet(rank);
    spw_coll_destroy(rank->coll);
    spw_coll_destroy(rank->to);
    spw_coll_destroy(rank->back);
    free(rank->data);
    return NULL;
}

static void print(struct spw_bench *bench, const char *way, uint32_t ranks,
                  const struct figures *figures)
{
    char name[80];
    double limit = figures->flag_s > 0 ? figures->flag_s : figures->message_s;
    snprintf(name, sizeof(name), "%s raw flag in shared memory, one way", way);
    if (figures->flag_s > 0)
        spw_bench_row(bench, name, 1e6 * figures->flag_s, "us", 0, true);
    snprintf(name, sizeof(name), "%s message of 8 bytes, one way", way);
    spw_bench_row(bench, name, 1e6 * figures->message_s, "us",
                  figures->flag_s > 0 ? 1e6 * figures->flag_s : 0, true);
    snprintf(name, sizeof(name), "%s stage send of a row of 2048 f32, one way", way);
    spw_bench_row(bench, name, 1e6 * figures->stage_s, "us", 1e6 * limit, true);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++) {
        snprintf(name, sizeof(name), "%s all-reduce of a row of %zu f32, %u ranks", way, rows[i],
                 ranks);
        spw_bench_row(bench, name, 1e6 * figures->row_s[i], "us", 1e6 * limit, true);
    }
    snprintf(name, sizeof(name), "%s all-reduce of 4 MiB, %u ranks (memcpy)", way, ranks);
    spw_bench_row(bench, name, (double)BYTES_LARGE / figures->large_s / 1e9, "GB/s",
                  figures->copy_bytes_s / 1e9, false);
}

static enum spw_status run_threads(struct spw_bench *bench, bool quick, uint32_t count,
                                   struct spw_error *error)
{
    struct spw_tp_hub *hub = spw_tp_hub_create(count, (size_t)1 << 20);
    struct rank *ranks = calloc(count, sizeof(*ranks));
    pthread_t threads[RANKS_MAX];
    uint32_t opened = 0, started = 0;
    enum spw_status status = hub && ranks ? SPW_OK : SPW_NO_MEMORY;
    for (; !status && opened < count; opened++) {
        ranks[opened].quick = quick;
        status = spw_tp_local_open(hub, opened, &ranks[opened].tp);
        if (status)
            break;
    }
    for (; !status && started < count; started++)
        if (pthread_create(&threads[started], NULL, run, &ranks[started]) != 0) {
            status = SPW_NO_MEMORY;
            break;
        }
    if (status) /* those that run wait for the missing ones: they see them dead and end */
        for (uint32_t i = started; i < opened; i++)
            spw_tp_hub_kill(hub, i);
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(threads[i], NULL);
        if (!status && ranks[i].status)
            status = spw_fail(error, ranks[i].status, "rank %u: %s", i,
                              ranks[i].error.text[0] ? ranks[i].error.text
                                                     : spw_status_text(ranks[i].status));
    }
    if (!status)
        print(bench, "threads:", count, &ranks[0].figures);
    for (uint32_t i = 0; i < opened; i++)
        spw_tp_close(ranks[i].tp);
    spw_tp_hub_destroy(hub);
    free(ranks);
    return status ? spw_fail(error, status, "threads: %s", spw_status_text(status)) : SPW_OK;
}

#ifdef SPW_HAVE_UCX
static enum spw_status run_processes(struct spw_bench *bench, bool quick, struct spw_error *error)
{
    struct {
        uint8_t secret[32];
        uint8_t address[SPW_TP_ADDRESS_BYTES_MAX];
    } blob;
    struct spw_bootstrap boot;
    struct rank rank = {.quick = quick};
    uint8_t **blobs = NULL;
    const uint8_t **addresses = NULL;
    size_t *bytes = NULL, address_bytes;
    enum spw_status status = spw_bootstrap_open(TIMEOUT_NS, &boot, error);
    if (status)
        return status;
    if (boot.ranks < 2 || boot.ranks > RANKS_MAX || (boot.ranks & (boot.ranks - 1)) != 0) {
        spw_bootstrap_close();
        return spw_fail(error, SPW_CONFIG, "started with %u ranks: use 2, 4 or 8", boot.ranks);
    }
    struct spw_tp_ucx_config config = {
        .rank = boot.rank, .ranks = boot.ranks, .ranks_on_host = boot.ranks};
    bool random = spw_rng_system(blob.secret, sizeof(blob.secret));
    status = random ? spw_tp_ucx_create(&config, &rank.tp, blob.address, &address_bytes, error)
                    : spw_fail(error, SPW_IO, "no random numbers");
    if (status == SPW_OK)
        status = spw_bootstrap_exchange(&blob, sizeof(blob.secret) + address_bytes, &blobs, &bytes,
                                        error);
    spw_bootstrap_close();
    addresses = status ? NULL : calloc(boot.ranks, sizeof(*addresses));
    if (!status && !addresses)
        status = spw_fail(error, SPW_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; !status && i < boot.ranks; i++) {
        addresses[i] = blobs[i] + sizeof(blob.secret);
        bytes[i] -= sizeof(blob.secret);
    }
    if (!status) /* rank 0's secret is everybody's */
        status = spw_tp_ucx_connect(rank.tp, addresses, bytes, blobs[0], error);
    if (!status) {
        run(&rank);
        status = rank.status;
        if (status)
            spw_fail(error, status, "%s",
                     rank.error.text[0] ? rank.error.text : spw_status_text(status));
    }
    if (!status && boot.rank == 0)
        print(bench, "UCX:", boot.ranks, &rank.figures);
    spw_tp_close(rank.tp);
    spw_bootstrap_blobs_free(blobs, bytes);
    free(addresses);
    return status;
}
#endif

enum spw_status spw_bench_collective(const struct spw_bench_options *options, FILE *out,
                                     struct spw_error *error)
{
    struct spw_bench bench = {.name = "collective", .json = options->json, .out = out};
#ifdef SPW_HAVE_UCX
    if (spw_bootstrap_present())
        return run_processes(&bench, options->quick, error);
#endif
    enum spw_status status = run_threads(&bench, options->quick, 2, error);
    return status ? status : run_threads(&bench, options->quick, 4, error);
}
