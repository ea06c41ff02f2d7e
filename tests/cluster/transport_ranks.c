/* One rank of the transport's tests between processes; mpirun starts several.
 *
 *   transport_ranks CASE [tcp]
 *
 * Every rank judges for itself; rank 0 gathers the verdicts by messages and prints one line "CASE:
 * N ranks ok", which is what the tests look for: under --enable-recovery mpirun's exit code says
 * nothing.
 */
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "tests/unit/transport/coll_checks.h"
#include "transport/bootstrap.h"
#include "transport/coll_int.h"
#include "transport/tp_ucx.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TYPE_DATA = SPW_TP_TYPE_USER, TYPE_KEY, TYPE_DONE, TYPE_GO };

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %u: %s:%d: %s\n", me.rank, __FILE__, __LINE__, #condition);      \
            me.wrong++;                                                                            \
        }                                                                                          \
    } while (0)

static struct {
    uint32_t rank, ranks;
    struct spw_tp *tp;
    bool tcp;
    uint64_t wrong;
    uint32_t deaths, died;
    uint32_t done, go, done_wrong; /* verdicts that rank 0 heard; its answer */
    uint32_t data_messages;
    uint32_t data_from[64];
    uint8_t key[64][SPW_TP_KEY_BYTES_MAX];
    size_t key_bytes[64];
} me;

static void nap_ms(long ms)
{
    struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* Sizes around everything that changes something: nothing, small, fragments, the limit. */
static const size_t message_sizes[] = {0,     1,     8,      100,    4096,
                                       7167,  7168,  7169,   8192,   8193,
                                       14336, 65536, 131071, 524288, SPW_TP_MESSAGE_MAX};

static void on_data(void *context, uint32_t peer, const void *data, size_t bytes)
{
    (void)context;
    uint32_t number = me.data_from[peer]++;
    size_t want = message_sizes[number % SPW_ARRAY_COUNT(message_sizes)];
    me.data_messages++;
    CHECK(bytes == want);
    const uint8_t *byte = data;
    for (size_t i = 0; i < bytes; i += i < 64 || i + 64 > bytes ? 1 : 61)
        if (byte[i] != check_byte(peer * 31 + me.rank, i, number)) {
            CHECK(!"content");
            break;
        }
}

static void on_key(void *context, uint32_t peer, const void *data, size_t bytes)
{
    (void)context;
    memcpy(me.key[peer], data, bytes);
    me.key_bytes[peer] = bytes;
}

static void on_done(void *context, uint32_t peer, const void *data, size_t bytes)
{
    (void)context;
    (void)peer;
    uint64_t wrong;
    CHECK(bytes == sizeof(wrong));
    memcpy(&wrong, data, sizeof(wrong));
    me.done++;
    me.done_wrong += wrong != 0;
}

static void on_go(void *context, uint32_t peer, const void *data, size_t bytes)
{
    (void)context;
    (void)peer;
    (void)data;
    (void)bytes;
    me.go++;
}

static void on_peer(void *context, uint32_t peer, enum spw_tp_peer_state state)
{
    (void)context;
    me.deaths += state == SPW_TP_PEER_DEAD;
    me.died = peer;
}

static bool turn(uint64_t deadline)
{
    if (spw_tp_poll(me.tp, 64) == 0)
        spw_tp_wait(me.tp, 20 * SPW_MS);
    return spw_clock_monotonic_ns() < deadline;
}

static enum spw_status send_all(uint32_t peer, uint32_t type, const void *data, size_t bytes)
{
    uint64_t deadline = spw_clock_monotonic_ns() + 60 * SPW_SECOND;
    enum spw_status status;
    while ((status = spw_tp_send(me.tp, peer, type, data, bytes)) == SPW_FULL && turn(deadline))
        ;
    return status;
}

/* Everybody's verdict to rank 0 and its answer to all that live: also a barrier. */
static void meet(uint32_t expected)
{
    uint64_t deadline = spw_clock_monotonic_ns() + 60 * SPW_SECOND;
    if (me.rank != 0) {
        uint32_t go = me.go;
        CHECK(send_all(0, TYPE_DONE, &me.wrong, sizeof(me.wrong)) == SPW_OK);
        while (me.go == go && turn(deadline))
            ;
        CHECK(me.go == go + 1);
        return;
    }
    while (me.done < expected - 1 && turn(deadline))
        ;
    CHECK(me.done == expected - 1);
    CHECK(me.done_wrong == 0);
    me.done = 0;
    for (uint32_t peer = 1; peer < me.ranks; peer++)
        if (me.tp->ops->peer_state(me.tp, peer) == SPW_TP_PEER_UP)
            CHECK(send_all(peer, TYPE_GO, NULL, 0) == SPW_OK);
}

static void connect_all(uint8_t secret_change)
{
    struct spw_error error = {0};
    struct spw_bootstrap boot;
    struct {
        uint8_t secret[32];
        uint8_t address[SPW_TP_ADDRESS_BYTES_MAX];
    } blob;
    for (uint32_t i = 0; i < 32; i++)
        blob.secret[i] = (uint8_t)i;
    if (spw_bootstrap_open(60 * SPW_SECOND, &boot, &error) != SPW_OK)
        goto fail;
    me.rank = boot.rank;
    me.ranks = boot.ranks;
    spw_log_identity((int)me.rank, "test");
    struct spw_tp_ucx_config config = {
        .rank = me.rank, .ranks = me.ranks, .ranks_on_host = me.ranks, .tcp_only = me.tcp};
    size_t address_bytes;
    uint8_t **blobs;
    size_t *bytes;
    if (spw_tp_ucx_create(&config, &me.tp, blob.address, &address_bytes, &error) != SPW_OK)
        goto fail;
    if (spw_bootstrap_exchange(&blob, 32 + address_bytes, &blobs, &bytes, &error) != SPW_OK)
        goto fail;
    spw_bootstrap_close();
    const uint8_t *addresses[64];
    CHECK(me.ranks <= 64);
    for (uint32_t i = 0; i < me.ranks; i++) {
        CHECK(memcmp(blobs[i], blob.secret, 32) == 0);
        addresses[i] = blobs[i] + 32;
        bytes[i] -= 32;
    }
    blob.secret[0] ^= secret_change;
    spw_tp_handle(me.tp, TYPE_DATA, on_data, NULL);
    spw_tp_handle(me.tp, TYPE_KEY, on_key, NULL);
    spw_tp_handle(me.tp, TYPE_DONE, on_done, NULL);
    spw_tp_handle(me.tp, TYPE_GO, on_go, NULL);
    spw_tp_handle_peers(me.tp, on_peer, NULL);
    if (secret_change == 0xff) { /* case "gone": rank 1 dies between exchange and connect */
        if (me.rank == 1)
            kill(getpid(), SIGKILL);
        nap_ms(300);
    }
    enum spw_status status = spw_tp_ucx_connect(me.tp, addresses, bytes, blob.secret, &error);
    if (secret_change == 0xff && status == SPW_PEER_LOST) {
        me.deaths++; /* said at once */
        me.died = 1;
    } else if (status != SPW_OK) {
        goto fail;
    }
    spw_bootstrap_blobs_free(blobs, bytes);
    return;
fail:
    fprintf(stderr, "rank %u: %s\n", me.rank, error.text);
    exit(1);
}

static struct spw_coll *make_group(uint32_t count, uint32_t stages, size_t bytes_max,
                                   uint64_t timeout_ns, uint32_t id)
{
    uint32_t ranks[SPW_COLL_RANKS_MAX];
    uint32_t stage = me.rank / count % stages, first = me.rank / count * count;
    struct spw_error error = {0};
    for (uint32_t i = 0; i < count; i++)
        ranks[i] = first + i;
    struct spw_coll_config config = {
        .ranks = ranks,
        .count = count,
        .index = me.rank % count,
        .previous = stage > 0 ? me.rank - count : UINT32_MAX,
        .next = stage + 1 < stages ? me.rank + count : UINT32_MAX,
        .bytes_max = bytes_max,
        .steps_in_flight = 3,
        .timeout_ns = timeout_ns,
        .group_id = id + first,
    };
    struct spw_coll *coll = NULL;
    if (spw_coll_create(me.tp, &config, &coll, &error) != SPW_OK) {
        fprintf(stderr, "rank %u: %s\n", me.rank, error.text);
        me.wrong++;
    }
    return coll;
}

static void case_coll(void)
{
    struct check_result result = {0};
    struct spw_coll *coll = make_group(me.ranks, 1, CHECK_BYTES_MAX, 60 * SPW_SECOND, 1);
    if (!coll)
        return;
    /* The reason for this test: ranks of one host do not go through TCP. */
    CHECK(coll->shared == !me.tcp);
    check_group(coll, me.rank, me.ranks, &result);
    CHECK(result.status == SPW_OK);
    CHECK(result.wrong == 0);
    CHECK(result.compared > 20000);
    CHECK(me.ranks == 2 || result.chain > result.compared / 10);
    meet(me.ranks);
    spw_coll_destroy(coll);

    uint32_t stage = me.rank / (me.ranks / 2);
    coll = make_group(me.ranks / 2, 2, 300000, 60 * SPW_SECOND, 1000);
    if (!coll)
        return;
    uint8_t *data = malloc(300000);
    for (uint32_t step = 1; step <= 100; step++) {
        size_t bytes = step % 10 == 0 ? 300000 : step * 97;
        for (size_t i = 0; i < bytes; i++)
            data[i] = stage ? 0 : check_byte(me.rank, i, step);
        if (stage == 0) {
            CHECK(spw_coll_stage_send(coll, step, data, bytes) == SPW_OK);
        } else {
            CHECK(spw_coll_stage_recv(coll, step, data, bytes) == SPW_OK);
            for (size_t i = 0; i < bytes; i++)
                me.wrong += data[i] != check_byte(me.rank - me.ranks / 2, i, step);
        }
    }
    CHECK(me.wrong == 0);
    meet(me.ranks);
    free(data);
    spw_coll_destroy(coll);
}

static void *wake_later(void *context)
{
    nap_ms(30);
    atomic_store((atomic_bool *)context, true);
    spw_tp_wake(me.tp);
    return NULL;
}

/* Another thread's wake ends a sleep that nothing else would have ended for a minute. */
static void check_wake(void)
{
    atomic_bool woken = false;
    pthread_t thread;
    uint64_t start = spw_clock_monotonic_ns();
    CHECK(pthread_create(&thread, NULL, wake_later, &woken) == 0);
    while (!atomic_load(&woken)) {
        spw_tp_wait(me.tp, 60 * SPW_SECOND);
        spw_tp_poll(me.tp, 64);
    }
    pthread_join(thread, NULL);
    CHECK(spw_clock_monotonic_ns() - start < 30 * SPW_SECOND);
    CHECK(me.tp->counters.sleeps > 0);
    /* One that came before counts, once, and is not slept over. */
    uint64_t sleeps = me.tp->counters.sleeps;
    spw_tp_wait(me.tp, 0);
    spw_tp_poll(me.tp, 64);
    spw_tp_wake(me.tp);
    spw_tp_wait(me.tp, 60 * SPW_SECOND);
    CHECK(me.tp->counters.sleeps == sleeps);
}

static void case_messages(void)
{
    check_wake();
    enum { ROUNDS = 3 };
    uint32_t total = ROUNDS * (uint32_t)SPW_ARRAY_COUNT(message_sizes);
    uint8_t *data = malloc(SPW_TP_MESSAGE_MAX + 1);
    for (uint32_t number = 0; number < total; number++)
        for (uint32_t step = 0; step < me.ranks; step++) {
            uint32_t to = (me.rank + step) % me.ranks;
            size_t bytes = message_sizes[number % SPW_ARRAY_COUNT(message_sizes)];
            for (size_t i = 0; i < bytes; i++)
                data[i] = check_byte(me.rank * 31 + to, i, number);
            CHECK(send_all(to, TYPE_DATA, data, bytes) == SPW_OK);
        }
    CHECK(spw_tp_send(me.tp, 0, TYPE_DATA, data, SPW_TP_MESSAGE_MAX + 1) == SPW_TOO_LARGE);
    uint64_t deadline = spw_clock_monotonic_ns() + 60 * SPW_SECOND;
    while (me.data_messages < total * me.ranks && turn(deadline))
        ;
    CHECK(me.data_messages == total * me.ranks);
    for (uint32_t peer = 0; peer < me.ranks; peer++)
        CHECK(me.data_from[peer] == total);
    CHECK(me.tp->counters.messages_dropped == 0);
    free(data);
    meet(me.ranks);
}

static enum spw_status finish(struct spw_tp_op *op)
{
    uint64_t deadline = spw_clock_monotonic_ns() + 20 * SPW_SECOND;
    while (op->status == SPW_PENDING && turn(deadline))
        ;
    return op->status;
}

static void case_rma(void)
{
    enum { BYTES = 1 << 20 };
    const struct spw_tp_ops *ops = me.tp->ops;
    struct spw_tp_memory *memory, *spare;
    void *base, *spare_base;
    CHECK(ops->memory_create(me.tp, (size_t)BYTES * me.ranks, &memory, &base) == SPW_OK);
    CHECK(ops->memory_create(me.tp, 100, &spare, &spare_base) == SPW_OK);
    CHECK((uintptr_t)base % 4096 == 0);
    uint8_t *bytes = base;
    for (size_t i = 0; i < (size_t)BYTES * me.ranks; i += 4096)
        CHECK(bytes[i] == 0);
    uint8_t key[SPW_TP_KEY_BYTES_MAX];
    size_t key_bytes;
    CHECK(ops->memory_pack(me.tp, memory, key, &key_bytes) == SPW_OK);
    for (uint32_t peer = 0; peer < me.ranks; peer++)
        CHECK(send_all(peer, TYPE_KEY, key, key_bytes) == SPW_OK);
    uint64_t deadline = spw_clock_monotonic_ns() + 60 * SPW_SECOND;
    uint8_t *data = malloc(BYTES), *back = malloc(BYTES);
    for (uint32_t peer = 0; peer < me.ranks; peer++) {
        while (!me.key_bytes[peer] && turn(deadline))
            ;
        struct spw_tp_remote *remote;
        CHECK(ops->remote_open(me.tp, peer, me.key[peer], me.key_bytes[peer], &remote) == SPW_OK);
        CHECK((ops->remote_map(me.tp, remote) != NULL) == (!me.tcp || peer == me.rank));
        for (size_t i = 0; i < BYTES; i++)
            data[i] = check_byte(me.rank, i, peer);
        struct spw_tp_op op = {0}, many[16] = {{0}};
        uint64_t at = (uint64_t)BYTES * me.rank;
        CHECK(ops->put(me.tp, remote, (uint64_t)BYTES * me.ranks, data, 1, &op) == SPW_INVALID);
        CHECK(ops->put(me.tp, remote, UINT64_MAX - 3, data, 8, &op) == SPW_INVALID);
        CHECK(ops->put(me.tp, remote, at, data, BYTES, &op) == SPW_OK);
        CHECK(finish(&op) == SPW_OK);
        CHECK(ops->get(me.tp, remote, at, back, BYTES, &op) == SPW_OK);
        CHECK(finish(&op) == SPW_OK);
        CHECK(memcmp(data, back, BYTES) == 0);
        memset(back, 0, BYTES);
        for (uint32_t i = 0; i < 16; i++)
            CHECK(ops->get(me.tp, remote, at + i * 65536, back + i * 65536, 65536, &many[i]) ==
                  SPW_OK);
        for (uint32_t i = 0; i < 16; i++)
            CHECK(finish(&many[i]) == SPW_OK);
        CHECK(memcmp(data, back, BYTES) == 0);
        /* Cancelled: ended in either way, and the buffer is ours again. */
        CHECK(ops->get(me.tp, remote, at, back, BYTES, &op) == SPW_OK);
        if (op.status == SPW_PENDING)
            ops->cancel(me.tp, &op);
        CHECK(op.status == SPW_OK || op.status == SPW_CANCELLED);
        ops->remote_close(me.tp, remote);
    }
    meet(me.ranks);
    for (uint32_t from = 0; from < me.ranks; from++)
        for (size_t i = 0; i < BYTES; i++)
            me.wrong += bytes[(size_t)BYTES * from + i] != check_byte(from, i, me.rank);
    CHECK(me.wrong == 0);
    ops->memory_destroy(me.tp, memory); /* the spare one is left to close */
    free(data);
    free(back);
    meet(me.ranks);
}

/* The last rank dies without a word while the others wait for it. */
static void case_kill(void)
{
    struct spw_coll *coll = make_group(me.ranks, 1, 4096, 60 * SPW_SECOND, 1);
    float data[16] = {0};
    if (!coll)
        return;
    CHECK(spw_coll_allreduce_f32(coll, data, 16) == SPW_OK);
    if (me.rank == me.ranks - 1) {
        nap_ms(100);
        kill(getpid(), SIGKILL);
    }
    uint64_t start = spw_clock_monotonic_ns();
    CHECK(spw_coll_allreduce_f32(coll, data, 16) == SPW_PEER_LOST);
    CHECK(spw_clock_monotonic_ns() - start < 20 * SPW_SECOND);
    CHECK(me.deaths == 1 && me.died == me.ranks - 1);
    CHECK(spw_tp_send(me.tp, me.ranks - 1, TYPE_DATA, data, 8) == SPW_PEER_LOST);
    spw_coll_destroy(coll);
    meet(me.ranks - 1); /* the survivors still hear each other */
}

static void case_many(void)
{
    struct spw_coll *coll = make_group(4, 1, 256, 60 * SPW_SECOND, 1);
    float data[64];
    if (!coll)
        return;
    meet(me.ranks);
    uint64_t start = spw_clock_monotonic_ns();
    for (uint32_t round = 0; round < 2000; round++) {
        for (uint32_t i = 0; i < 64; i++)
            data[i] = (float)(me.rank % 4 + round + i);
        CHECK(spw_coll_allreduce_f32(coll, data, 64) == SPW_OK);
        for (uint32_t i = 0; i < 64; i++)
            me.wrong += data[i] != (float)(6 + 4 * (round + i));
    }
    CHECK(me.wrong == 0);
    meet(me.ranks);
    if (me.rank == 0)
        printf("%u ranks, %u cores: %.1f us per all-reduce, %llu sleeps\n", me.ranks,
               (unsigned)sysconf(_SC_NPROCESSORS_ONLN),
               (double)(spw_clock_monotonic_ns() - start) / 2000e3,
               (unsigned long long)me.tp->counters.sleeps);
    spw_coll_destroy(coll);
}

/* Rank 1 was gone before anybody connected: an answer, not a hang. */
static void case_gone(void)
{
    uint64_t deadline = spw_clock_monotonic_ns() + 20 * SPW_SECOND;
    while (me.deaths == 0 && turn(deadline))
        ;
    CHECK(me.deaths == 1 && me.died == 1);
}

/* Rank 1 does not know the secret: nothing of it is heard. */
static void case_foreign(void)
{
    uint64_t deadline = spw_clock_monotonic_ns() + 500 * SPW_MS;
    uint8_t byte = 0;
    for (int i = 0; i < 10; i++)
        CHECK(spw_tp_send(me.tp, 1 - me.rank, TYPE_DATA, &byte, 1) == SPW_OK);
    while (me.tp->counters.messages_dropped < 11 && turn(deadline))
        ;
    CHECK(me.data_messages == 0);
    /* The greeting, ten messages, and its farewell if it was quicker. */
    CHECK(me.tp->counters.messages_dropped - 11 <= 1);
}

/* Rank 1 starts but never exchanges: the watchdog ends rank 0, in words. */
static int absent(void)
{
    struct spw_bootstrap boot;
    struct spw_error error = {0};
    uint8_t **blobs;
    size_t *bytes;
    if (spw_bootstrap_open(2 * SPW_SECOND, &boot, &error) != SPW_OK)
        return 1;
    if (boot.rank == 1)
        kill(getpid(), SIGSTOP); /* mpirun ends it when rank 0 has gone */
    (void)spw_bootstrap_exchange("x", 1, &blobs, &bytes, &error);
    return 1;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
        uint32_t lost; /* ranks that do not report */
    } cases[] = {
        {"coll", case_coll, 0},       {"messages", case_messages, 0}, {"rma", case_rma, 0},
        {"kill", case_kill, 1},       {"many", case_many, 0},         {"gone", case_gone, 1},
        {"foreign", case_foreign, 1},
    };
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "absent") == 0)
        return absent();
    me.tcp = argc > 2 && strcmp(argv[2], "tcp") == 0;
    for (size_t i = 0; i < SPW_ARRAY_COUNT(cases); i++) {
        if (strcmp(cases[i].name, name) != 0)
            continue;
        bool gone = strcmp(name, "gone") == 0, foreign = strcmp(name, "foreign") == 0;
        uint32_t own = (uint32_t)strtoul(getenv("OMPI_COMM_WORLD_RANK"), NULL, 10);
        connect_all(gone ? 0xff : foreign && own == 1 ? 1 : 0);
        cases[i].run();
        if (me.rank == 0 && me.wrong == 0)
            printf("%s: %u ranks ok\n", name, me.ranks - cases[i].lost);
        spw_tp_close(me.tp);
        return me.wrong ? 1 : 0;
    }
    fprintf(stderr, "usage: mpirun -np N transport_ranks CASE [tcp]\n");
    return 2;
}
