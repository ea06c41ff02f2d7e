/* Collectives over threads: bits, sizes, both ways (shared memory, channels), waits that end. */
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "tests/unit/transport/coll_checks.h"
#include "transport/coll_int.h"
#include "transport/tp_local.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <time.h>

#define RANKS_MAX 10

/* 1: built with coll_host.c adding in another order; the checks must notice. */
#ifndef PLANTED
#define PLANTED 0
#endif

enum way {
    WAY_SHARED,
    WAY_CHANNELS, /* as if no peer could be mapped: messages, puts and notices */
    WAY_MIXED,    /* mapped within pairs only: two hosts of the same group */
};

struct job {
    struct spw_tp_hub *hub;
    struct spw_tp *tp;
    struct spw_coll *coll;
    enum spw_status status;
    struct spw_error error;
    uint32_t rank, count, base, stages, steps_in_flight;
    size_t bytes_max;
    uint64_t timeout_ns;
    void (*run)(struct job *job);
    struct check_result result;
    uint64_t elapsed_ns;
    uint64_t idles;
    uint32_t seen_rank;
    char seen_for[32];
    int what;
};

/* Puts that end later and read the caller's memory only then, as a network card would. */
struct late_put {
    struct spw_tp_op *op;
    struct spw_tp_remote *remote;
    uint64_t offset;
    const void *data;
    size_t bytes;
};

static _Thread_local struct late_put late[256];
static _Thread_local uint32_t late_count;
static const struct spw_tp_ops *plain;
static enum way way_now;

static void *map_nothing(struct spw_tp *tp, struct spw_tp_remote *remote)
{
    (void)tp;
    (void)remote;
    return NULL;
}

static _Thread_local uint32_t opened_peer;

static enum spw_status open_and_note(struct spw_tp *tp, uint32_t peer, const void *key,
                                     size_t key_bytes, struct spw_tp_remote **out_remote)
{
    opened_peer = peer; /* remote_map follows at once */
    return plain->remote_open(tp, peer, key, key_bytes, out_remote);
}

static void *map_pairs(struct spw_tp *tp, struct spw_tp_remote *remote)
{
    return opened_peer / 2 == tp->rank / 2 ? plain->remote_map(tp, remote) : NULL;
}

static enum spw_status put_late(struct spw_tp *tp, struct spw_tp_remote *remote, uint64_t offset,
                                const void *data, size_t bytes, struct spw_tp_op *op)
{
    (void)tp;
    assert_true(late_count < SPW_ARRAY_COUNT(late));
    op->status = SPW_PENDING;
    late[late_count++] = (struct late_put){op, remote, offset, data, bytes};
    return SPW_OK;
}

static uint32_t poll_late(struct spw_tp *tp, uint32_t messages_max)
{
    if (late_count) {
        struct late_put put = late[0];
        memmove(late, late + 1, --late_count * sizeof(late[0]));
        plain->put(tp, put.remote, put.offset, put.data, put.bytes, put.op);
    }
    return plain->poll(tp, messages_max);
}

static void wait_late(struct spw_tp *tp, uint64_t timeout_ns)
{
    plain->wait(tp, late_count ? SPW_MIN(timeout_ns, 20 * SPW_US) : timeout_ns);
}

static void cancel_late(struct spw_tp *tp, struct spw_tp_op *op)
{
    (void)tp;
    for (uint32_t i = 0; i < late_count; i++)
        if (late[i].op == op) {
            memmove(late + i, late + i + 1, (--late_count - i) * sizeof(late[0]));
            break;
        }
    op->status = SPW_CANCELLED;
}

static struct spw_tp_ops channel_ops, mixed_ops;

static void choose_way(struct spw_tp *tp)
{
    if (way_now == WAY_CHANNELS)
        tp->ops = &channel_ops;
    else if (way_now == WAY_MIXED)
        tp->ops = &mixed_ops;
}

static void prepare_ways(struct spw_tp *tp)
{
    plain = tp->ops;
    channel_ops = *plain;
    channel_ops.remote_map = map_nothing;
    channel_ops.put = put_late;
    channel_ops.poll = poll_late;
    channel_ops.wait = wait_late;
    channel_ops.cancel = cancel_late;
    mixed_ops = channel_ops;
    mixed_ops.remote_open = open_and_note;
    mixed_ops.remote_map = map_pairs;
}

static enum spw_status count_idle(void *context)
{
    struct job *job = context;
    job->idles++;
    if (!job->coll)
        return SPW_OK; /* while the group is made */
    job->seen_rank = spw_coll_waiting_rank(job->coll);
    snprintf(job->seen_for, sizeof(job->seen_for), "%s", spw_coll_waiting_for(job->coll));
    return SPW_OK;
}

/* Ranks are stages of `count` each. */
static void *rank_main(void *context)
{
    struct job *job = context;
    uint32_t ranks[SPW_COLL_RANKS_MAX];
    late_count = 0;
    uint32_t stage = job->rank / job->count;
    for (uint32_t i = 0; i < job->count; i++)
        ranks[i] = stage * job->count + i;
    struct spw_coll_config config = {
        .ranks = ranks,
        .count = job->count,
        .index = job->rank % job->count,
        .previous = stage > 0 ? job->rank - job->count : UINT32_MAX,
        .next = stage + 1 < job->stages ? job->rank + job->count : UINT32_MAX,
        .bytes_max = job->bytes_max,
        .steps_in_flight = job->steps_in_flight,
        .timeout_ns = job->timeout_ns,
        .group_id = 100 + stage,
        .idle = count_idle,
        .idle_context = job,
    };
    job->status = spw_coll_create(job->tp, &config, &job->coll, &job->error);
    if (job->status == SPW_OK) {
        job->run(job);
        if (job->status == SPW_OK)
            job->status = job->result.status;
    }
    return NULL;
}

static struct job jobs[RANKS_MAX];

static void run_ranks(uint32_t count, uint32_t stages, enum way way, const struct job *pattern,
                      void (*meanwhile)(void))
{
    uint32_t ranks = count * stages;
    struct spw_tp_hub *hub = spw_tp_hub_create(ranks, 256 << 10);
    pthread_t threads[RANKS_MAX];
    way_now = way;
    for (uint32_t i = 0; i < ranks; i++) {
        jobs[i] = *pattern;
        jobs[i].hub = hub;
        jobs[i].rank = i;
        jobs[i].count = count;
        jobs[i].stages = stages;
        assert_int_equal(spw_tp_local_open(hub, i, &jobs[i].tp), SPW_OK);
        if (i == 0)
            prepare_ways(jobs[i].tp);
        choose_way(jobs[i].tp);
    }
    for (uint32_t i = 0; i < ranks; i++)
        pthread_create(&threads[i], NULL, rank_main, &jobs[i]);
    if (meanwhile)
        meanwhile();
    for (uint32_t i = 0; i < ranks; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < ranks; i++) {
        spw_coll_destroy(jobs[i].coll);
        assert_int_equal(jobs[i].tp->counters.messages_dropped, 0);
        spw_tp_close(jobs[i].tp);
    }
    spw_tp_hub_destroy(hub);
}

static const struct job usual = {
    .bytes_max = CHECK_BYTES_MAX, .steps_in_flight = 3, .timeout_ns = 60 * SPW_SECOND};

static void run_checks(struct job *job)
{
    check_group(job->coll, job->rank % job->count, job->count, &job->result);
}

static void test_all_sizes(void **state)
{
    (void)state;
    for (int way = WAY_SHARED; way <= WAY_MIXED; way++)
        for (uint32_t count = 1; count <= 8; count *= 2) {
            struct job job = usual;
            job.run = run_checks;
            run_ranks(count, 1, (enum way)way, &job, NULL);
            for (uint32_t i = 0; i < count; i++) {
                assert_int_equal(jobs[i].status, SPW_OK);
                bool planted = PLANTED && count > 2 && way == WAY_SHARED;
                if (planted)
                    assert_true(jobs[i].result.wrong > jobs[i].result.compared / 10);
                else
                    assert_int_equal(jobs[i].result.wrong, 0);
                assert_true(jobs[i].result.compared > 20000);
                /* The checker can tell the wrong order apart (in a group of two there is one). */
                if (count > 2)
                    assert_true(jobs[i].result.chain > jobs[i].result.compared / 10);
            }
        }
}

/* Steps through four stages, sends running ahead of receives. */
static void run_stages(struct job *job)
{
    uint32_t stage = job->rank / job->count;
    uint8_t *data = malloc(job->bytes_max);
    for (uint64_t step = 1; step <= 60 && job->result.status == SPW_OK; step++) {
        size_t bytes = step % 7 == 0 ? 0 : step % 5 == 0 ? job->bytes_max : step * 997 % 20000;
        if (stage == 0)
            for (size_t i = 0; i < bytes; i++)
                data[i] = check_byte(job->rank % job->count, i, (uint32_t)step);
        else
            job->result.status = spw_coll_stage_recv(job->coll, step, data, bytes);
        for (size_t i = 0; i < bytes && stage > 0; i++)
            job->result.wrong +=
                data[i] !=
                (uint8_t)(check_byte(job->rank % job->count, i, (uint32_t)step) + (stage - 1));
        if (stage > 0)
            for (size_t i = 0; i < bytes; i++)
                data[i]++;
        if (stage + 1 < job->stages && job->result.status == SPW_OK)
            job->result.status = spw_coll_stage_send(job->coll, step, data, bytes);
        /* A sent buffer may be reused at once. */
        memset(data, 0xff, bytes);
    }
    free(data);
}

static void test_stages(void **state)
{
    (void)state;
    for (int way = WAY_SHARED; way <= WAY_MIXED; way++)
        for (uint32_t count = 1; count <= 2; count++) {
            struct job job = usual;
            job.run = run_stages;
            job.bytes_max = 300001;
            run_ranks(count, 4, (enum way)way, &job, NULL);
            for (uint32_t i = 0; i < 4 * count; i++) {
                assert_int_equal(jobs[i].status, SPW_OK);
                assert_int_equal(jobs[i].result.wrong, 0);
            }
        }
}

/* steps_in_flight sends of the largest size end with nobody receiving; the next one waits. */
static void run_ahead(struct job *job)
{
    uint8_t *data = calloc(1, job->bytes_max);
    if (job->rank == 0) {
        for (uint64_t step = 1; step <= job->steps_in_flight; step++) {
            job->result.status = spw_coll_stage_send(job->coll, step, data, job->bytes_max);
            job->result.wrong += job->result.status != SPW_OK;
        }
        job->result.status = spw_coll_stage_send(job->coll, 99, data, 1);
    } else {
        struct timespec pause = {.tv_nsec = 300 * 1000 * 1000};
        nanosleep(&pause, NULL);
    }
    free(data);
}

static void test_steps_in_flight(void **state)
{
    (void)state;
    struct job job = usual;
    job.run = run_ahead;
    job.bytes_max = 600000;
    job.timeout_ns = 100 * SPW_MS;
    run_ranks(1, 2, WAY_SHARED, &job, NULL);
    assert_int_equal(jobs[0].result.wrong, 0);
    assert_int_equal(jobs[0].status, SPW_TIMEOUT);
}

enum { ABSENT_ALLREDUCE, ABSENT_GATHER, ABSENT_RECV, ABSENT_SEND };

/* The last rank never comes (timeout) or dies (peer lost) while the others wait in a call. */
static void run_absent(struct job *job)
{
    float mine[1000] = {0};
    uint8_t all[8000];
    size_t parts[SPW_COLL_RANKS_MAX] = {100, 100, 100, 100};
    uint32_t last = job->count * job->stages - 1;
    uint64_t start = spw_clock_monotonic_ns();
    job->seen_for[0] = 0;
    if (job->rank == last) {
        job->elapsed_ns = 0;
        if (job->timeout_ns > SPW_SECOND) {
            struct timespec pause = {.tv_nsec = 60 * 1000 * 1000};
            nanosleep(&pause, NULL);
            spw_tp_hub_kill(job->hub, job->rank);
        }
        return;
    }
    switch (job->what) {
    case ABSENT_ALLREDUCE:
        job->result.status = spw_coll_allreduce_f32(job->coll, mine, 1000);
        break;
    default:
        job->result.status = spw_coll_gather(job->coll, 0, mine, parts, job->rank ? NULL : all);
        break;
    }
    job->elapsed_ns = spw_clock_monotonic_ns() - start;
    if (job->result.status != SPW_OK) /* the group stays broken */
        job->result.wrong += spw_coll_allreduce_f32(job->coll, mine, 1) != job->result.status;
}

static void run_absent_stage(struct job *job)
{
    uint8_t data[64] = {0};
    uint64_t start = spw_clock_monotonic_ns();
    uint32_t absent = job->what == ABSENT_RECV ? 0 : 1;
    if (job->rank == absent) {
        if (job->timeout_ns > SPW_SECOND) {
            struct timespec pause = {.tv_nsec = 60 * 1000 * 1000};
            nanosleep(&pause, NULL);
            spw_tp_hub_kill(job->hub, job->rank);
        }
        return;
    }
    if (job->what == ABSENT_RECV)
        job->result.status = spw_coll_stage_recv(job->coll, 1, data, 64);
    else
        for (uint64_t step = 1; step < 100 && job->result.status == SPW_OK; step++)
            job->result.status = spw_coll_stage_send(job->coll, step, data, 64);
    job->elapsed_ns = spw_clock_monotonic_ns() - start;
}

static void test_waits_end(void **state)
{
    (void)state;
    for (int way = WAY_SHARED; way <= WAY_CHANNELS; way++)
        for (int kill = 0; kill <= 1; kill++) {
            enum spw_status want = kill ? SPW_PEER_LOST : SPW_TIMEOUT;
            struct job job = usual;
            job.timeout_ns = kill ? 60 * SPW_SECOND : 150 * SPW_MS;
            job.run = run_absent;
            job.what = ABSENT_ALLREDUCE;
            run_ranks(4, 1, (enum way)way, &job, NULL);
            for (uint32_t i = 0; i < 3; i++) {
                assert_int_equal(jobs[i].status, want);
                assert_int_equal(jobs[i].result.wrong, 0);
                assert_true(jobs[i].idles > 0);
                assert_string_equal(jobs[i].seen_for, "all-reduce");
            }
            /* Over shared memory each waits for the absent one itself and can name it. */
            if (way == WAY_SHARED)
                assert_int_equal(jobs[0].seen_rank, 3);
            job.what = ABSENT_GATHER;
            run_ranks(4, 1, (enum way)way, &job, NULL);
            assert_int_equal(jobs[0].status, want);
            assert_int_equal(jobs[1].status, SPW_OK); /* gave its part, waits for nobody */
            job.run = run_absent_stage;
            job.what = ABSENT_RECV;
            run_ranks(1, 2, (enum way)way, &job, NULL);
            assert_int_equal(jobs[1].status, want);
            assert_string_equal(jobs[1].seen_for, "stage receive");
            job.what = ABSENT_SEND;
            run_ranks(1, 2, (enum way)way, &job, NULL);
            assert_int_equal(jobs[0].status, want);
        }
}

/* Ranks that disagree about what they do get an error, never wrong data. */
static void run_confused(struct job *job)
{
    static const size_t sizes[] = {100, 100, 101};
    float data[256] = {0};
    uint8_t bytes[64] = {0};
    if (job->what == 0) {
        size_t count = sizes[1 + job->rank % 2];
        job->result.status = spw_coll_allreduce_f32(job->coll, data, count);
    } else if (job->what == 1) {
        job->result.status = job->rank == 0
                                 ? spw_coll_allreduce_f32(job->coll, data, 16)
                                 : spw_coll_allgather(job->coll, bytes, 32, (uint8_t *)data);
    } else if (job->rank == 0) {
        job->result.status = spw_coll_stage_send(job->coll, 8, bytes, 64);
    } else {
        job->result.status = spw_coll_stage_recv(job->coll, 7, bytes, 64);
    }
}

static void test_confusion(void **state)
{
    (void)state;
    for (int way = WAY_SHARED; way <= WAY_CHANNELS; way++)
        for (int what = 0; what < 3; what++) {
            struct job job = usual;
            job.run = run_confused;
            job.what = what;
            run_ranks(what == 2 ? 1 : 2, what == 2 ? 2 : 1, (enum way)way, &job, NULL);
            if (what < 2)
                assert_int_equal(jobs[0].status, SPW_INTERNAL);
            assert_int_equal(jobs[1].status, SPW_INTERNAL);
        }
}

static enum spw_status refuse(void *context)
{
    (void)context;
    return SPW_CANCELLED;
}

static void run_idle_ends(struct job *job)
{
    float data[16] = {0};
    if (job->rank == 1)
        return;
    job->coll->idle = refuse;
    job->result.status = spw_coll_allreduce_f32(job->coll, data, 16);
}

static void test_idle_ends(void **state)
{
    (void)state;
    struct job job = usual;
    job.run = run_idle_ends;
    run_ranks(2, 1, WAY_SHARED, &job, NULL);
    assert_int_equal(jobs[0].status, SPW_CANCELLED);
}

static void run_nothing(struct job *job)
{
    (void)job;
}

static void *mismatch_main(void *context)
{
    struct job *job = context;
    if (job->rank == 1)
        job->bytes_max = 4096;
    return rank_main(job);
}

static void test_mismatch(void **state)
{
    (void)state;
    struct spw_tp_hub *hub = spw_tp_hub_create(2, 256 << 10);
    pthread_t threads[2];
    way_now = WAY_SHARED;
    for (uint32_t i = 0; i < 2; i++) {
        jobs[i] = usual;
        jobs[i].run = run_nothing;
        jobs[i].rank = i;
        jobs[i].count = 2;
        jobs[i].stages = 1;
        assert_int_equal(spw_tp_local_open(hub, i, &jobs[i].tp), SPW_OK);
    }
    for (uint32_t i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, mismatch_main, &jobs[i]);
    for (uint32_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].status, SPW_MISMATCH);
        assert_non_null(strstr(jobs[i].error.text, "4096"));
        assert_non_null(strstr(jobs[i].error.text, "400000"));
    }
    struct spw_coll_config three = {
        .ranks = (uint32_t[]){0, 1, 1}, .count = 3, .steps_in_flight = 1};
    struct spw_coll *coll;
    assert_int_equal(spw_coll_create(jobs[0].tp, &three, &coll, &jobs[0].error), SPW_CONFIG);
    for (uint32_t i = 0; i < 2; i++)
        spw_tp_close(jobs[i].tp);
    spw_tp_hub_destroy(hub);
}

/* A notice twice, a foreign group, a short message: refused, the group says so. */
static void test_foreign_messages(void **state)
{
    (void)state;
    struct job job = usual;
    job.run = run_nothing;
    struct spw_tp_hub *hub = spw_tp_hub_create(2, 256 << 10);
    pthread_t threads[2];
    way_now = WAY_CHANNELS;
    for (uint32_t i = 0; i < 2; i++) {
        jobs[i] = job;
        jobs[i].rank = i;
        jobs[i].count = 2;
        jobs[i].stages = 1;
        assert_int_equal(spw_tp_local_open(hub, i, &jobs[i].tp), SPW_OK);
        if (i == 0)
            prepare_ways(jobs[0].tp);
        choose_way(jobs[i].tp);
    }
    for (uint32_t i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, rank_main, &jobs[i]);
    for (uint32_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    struct spw_tp *one = jobs[1].tp, *zero = jobs[0].tp;
    uint32_t head[16] = {3, 555}; /* a credit, of a group nobody has */
    assert_int_equal(spw_tp_send(one, 0, SPW_TP_TYPE_COLL, "abc", 3), SPW_OK);
    assert_int_equal(spw_tp_send(one, 0, SPW_TP_TYPE_COLL, head, sizeof(head)), SPW_OK);
    assert_int_equal(spw_tp_send(one, 0, SPW_TP_TYPE_COLL, NULL, 0), SPW_OK);
    assert_int_equal(spw_tp_poll(zero, 10), 3);
    assert_int_equal(spw_coll_progress(jobs[0].coll), SPW_OK);
    head[1] = 100; /* own group, but credit for chunks that were never sent */
    head[2] = 9;
    assert_int_equal(spw_tp_send(one, 0, SPW_TP_TYPE_COLL, head, sizeof(head)), SPW_OK);
    assert_int_equal(spw_tp_poll(zero, 10), 1);
    assert_int_equal(spw_coll_progress(jobs[0].coll), SPW_INTERNAL);
    for (uint32_t i = 0; i < 2; i++) {
        spw_coll_destroy(jobs[i].coll);
        spw_tp_close(jobs[i].tp);
    }
    spw_tp_hub_destroy(hub);
}

int main(void)
{
    spw_log_level_set(SPW_LOG_ERROR);
    const struct CMUnitTest planted[] = {cmocka_unit_test(test_all_sizes)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_sizes),       cmocka_unit_test(test_stages),
        cmocka_unit_test(test_steps_in_flight), cmocka_unit_test(test_waits_end),
        cmocka_unit_test(test_confusion),       cmocka_unit_test(test_idle_ends),
        cmocka_unit_test(test_mismatch),        cmocka_unit_test(test_foreign_messages),
    };
    if (PLANTED)
        return cmocka_run_group_tests(planted, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
