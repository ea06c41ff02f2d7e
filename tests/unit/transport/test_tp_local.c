/* The in-process transport: order, bounds, death, one-sided copies. */
#include "runtime/base/clock.h"
#include "transport/tp_int.h"
#include "transport/tp_local.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#define TYPE SPW_TP_TYPE_USER

struct heard {
    uint32_t count;
    uint32_t out_of_order;
    uint64_t next[8]; /* per peer */
    uint64_t bytes;
    uint32_t deaths;
    uint32_t died; /* last one */
    uint32_t count_at_death;
    uint8_t last[64];
    size_t last_bytes;
};

static void on_message(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct heard *heard = context;
    uint64_t number = 0;
    if (bytes >= sizeof(number)) {
        memcpy(&number, data, sizeof(number));
        heard->out_of_order += number != heard->next[peer];
        heard->next[peer] = number + 1;
    }
    heard->last_bytes = bytes;
    memcpy(heard->last, data, SPW_MIN(bytes, sizeof(heard->last)));
    heard->count++;
    heard->bytes += bytes;
}

static void on_peer(void *context, uint32_t peer, enum spw_tp_peer_state state)
{
    struct heard *heard = context;
    assert_int_equal(state, SPW_TP_PEER_DEAD);
    heard->deaths++;
    heard->died = peer;
    heard->count_at_death = heard->count;
}

static struct spw_tp *open_rank(struct spw_tp_hub *hub, uint32_t rank, struct heard *heard)
{
    struct spw_tp *tp;
    assert_int_equal(spw_tp_local_open(hub, rank, &tp), SPW_OK);
    memset(heard, 0, sizeof(*heard));
    spw_tp_handle(tp, TYPE, on_message, heard);
    spw_tp_handle_peers(tp, on_peer, heard);
    return tp;
}

static enum spw_status send_number(struct spw_tp *tp, uint32_t peer, uint64_t number)
{
    return spw_tp_send(tp, peer, TYPE, &number, sizeof(number));
}

/* One thread, many endpoints: what the simulator does. */
static void test_order_and_self(void **state)
{
    (void)state;
    struct spw_tp_hub *hub = spw_tp_hub_create(3, 1 << 20);
    struct heard heard[3];
    struct spw_tp *tp[3];
    for (uint32_t i = 0; i < 3; i++)
        tp[i] = open_rank(hub, i, &heard[i]);
    for (uint64_t n = 0; n < 1000; n++)
        for (uint32_t to = 0; to < 3; to++)
            for (uint32_t from = 0; from < 3; from++)
                assert_int_equal(send_number(tp[from], to, n), SPW_OK);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(spw_tp_poll(tp[i], 7), 7); /* bounded work */
        assert_int_equal(heard[i].count, 7);
        assert_int_equal(spw_tp_poll(tp[i], UINT32_MAX), 2993);
        assert_int_equal(spw_tp_poll(tp[i], UINT32_MAX), 0);
        assert_int_equal(heard[i].count, 3000);
        assert_int_equal(heard[i].out_of_order, 0);
        assert_int_equal(tp[i]->counters.messages_received, 3000);
        assert_int_equal(tp[i]->counters.messages_dropped, 0);
    }
    /* The checker notices a repeated message. */
    send_number(tp[0], 1, 999);
    spw_tp_poll(tp[1], 1);
    assert_int_equal(heard[1].out_of_order, 1);
    for (uint32_t i = 0; i < 3; i++)
        spw_tp_close(tp[i]);
    spw_tp_hub_destroy(hub);
}

static void test_bounds(void **state)
{
    (void)state;
    struct spw_tp_hub *hub = spw_tp_hub_create(2, 64 << 10);
    struct heard heard[2];
    struct spw_tp *tp[2] = {open_rank(hub, 0, &heard[0]), open_rank(hub, 1, &heard[1])};
    uint8_t *big = calloc(1, SPW_TP_MESSAGE_MAX + 1);
    assert_int_equal(spw_tp_send(tp[0], 1, TYPE, big, SPW_TP_MESSAGE_MAX + 1), SPW_TOO_LARGE);
    assert_int_equal(spw_tp_send(tp[0], 1, TYPE, big, 64 << 10), SPW_TOO_LARGE);
    assert_int_equal(spw_tp_send(tp[0], 1, TYPE, big, (64 << 10) - 16), SPW_OK);
    assert_int_equal(spw_tp_send(tp[0], 1, TYPE, NULL, 0), SPW_FULL);
    assert_int_equal(spw_tp_poll(tp[1], 1), 1);
    /* Exactly 64 KiB / (16 head + 16 data) fit; full is an answer and nothing is lost. */
    uint32_t sent = 0;
    while (send_number(tp[0], 1, sent) == SPW_OK)
        sent++;
    assert_int_equal(sent, 2048);
    assert_int_equal(send_number(tp[0], 1, sent), SPW_FULL);
    memset(&heard[1], 0, sizeof(heard[1]));
    assert_int_equal(spw_tp_poll(tp[1], UINT32_MAX), 2048);
    assert_int_equal(heard[1].out_of_order, 0);
    assert_int_equal(spw_tp_send(tp[0], 1, TYPE, NULL, 0), SPW_OK);
    assert_int_equal(spw_tp_poll(tp[1], 4), 1);
    assert_int_equal(heard[1].last_bytes, 0);
    /* A type nobody handles is dropped and counted. */
    assert_int_equal(spw_tp_send(tp[0], 1, TYPE + 1, "x", 1), SPW_OK);
    assert_int_equal(spw_tp_poll(tp[1], 4), 1);
    assert_int_equal(tp[1]->counters.messages_dropped, 1);
    free(big);
    spw_tp_close(tp[0]);
    spw_tp_close(tp[1]);
    spw_tp_hub_destroy(hub);
}

/* Every record must survive every position of the ring's seam. */
static void test_queue_wrap(void **state)
{
    (void)state;
    struct spw_tp_queue queue;
    spw_tp_queue_init(&queue, 1000);
    uint8_t data[400], back[400];
    uint64_t pushed = 0, popped = 0;
    for (uint32_t round = 0; round < 5000; round++) {
        size_t bytes = (round * 37u) % 301u;
        for (size_t i = 0; i < bytes; i++)
            data[i] = (uint8_t)(round + i);
        if (spw_tp_queue_push(&queue, round % 5, round % 64, data, bytes) == SPW_OK)
            pushed++;
        else
            round--;
        struct spw_tp_message message;
        if (round % 3 != 0 || queue.used > 500) {
            while (queue.used > 200) {
                assert_true(spw_tp_queue_peek(&queue, &message));
                spw_tp_queue_pop(&queue, back);
                uint32_t of = (uint32_t)popped++;
                assert_int_equal(message.bytes, (of * 37u) % 301u);
                assert_int_equal(message.peer, of % 5);
                assert_int_equal(message.type, of % 64);
                for (size_t i = 0; i < message.bytes; i++)
                    assert_int_equal(back[i], (uint8_t)(of + i));
            }
        }
    }
    assert_int_equal(queue.pushed, pushed);
    assert_int_equal(pushed, 5000);
    assert_true(queue.capacity <= 1000);
    spw_tp_queue_done(&queue);
}

static void test_kill(void **state)
{
    (void)state;
    struct spw_tp_hub *hub = spw_tp_hub_create(3, 1 << 20);
    struct heard heard[3];
    struct spw_tp *tp[3];
    for (uint32_t i = 0; i < 3; i++)
        tp[i] = open_rank(hub, i, &heard[i]);
    for (uint64_t n = 0; n < 5; n++)
        send_number(tp[2], 0, n);
    send_number(tp[0], 2, 0);
    spw_tp_hub_kill(hub, 2);
    spw_tp_hub_kill(hub, 2); /* once is enough */
    assert_int_equal(send_number(tp[0], 2, 1), SPW_PEER_LOST);
    assert_int_equal(send_number(tp[2], 0, 5), SPW_PEER_LOST);
    assert_int_equal(spw_tp_poll(tp[2], 10), 0);
    assert_int_equal(heard[2].count, 0);
    /* What was sent before the death arrives before the event. */
    spw_tp_wait(tp[0], SPW_SECOND);
    assert_int_equal(spw_tp_poll(tp[0], 3), 3);
    assert_int_equal(heard[0].deaths, 0);
    assert_int_equal(tp[0]->ops->peer_state(tp[0], 2), SPW_TP_PEER_UP);
    assert_int_equal(spw_tp_poll(tp[0], 3), 2);
    assert_int_equal(heard[0].deaths, 1);
    assert_int_equal(heard[0].died, 2);
    assert_int_equal(heard[0].count_at_death, 5);
    assert_int_equal(tp[0]->ops->peer_state(tp[0], 2), SPW_TP_PEER_DEAD);
    assert_int_equal(tp[2]->ops->peer_state(tp[2], 0), SPW_TP_PEER_DEAD);
    spw_tp_poll(tp[0], 3);
    assert_int_equal(heard[0].deaths, 1);

    /* Abort is this rank's own view: late messages are dropped, others still hear the peer. */
    send_number(tp[1], 0, 0);
    tp[0]->ops->peer_abort(tp[0], 1);
    spw_tp_poll(tp[0], 3);
    assert_int_equal(heard[0].count, 5);
    assert_int_equal(tp[0]->counters.messages_dropped, 1);
    assert_int_equal(send_number(tp[0], 1, 0), SPW_PEER_LOST);

    /* Closing is a death for the others. */
    spw_tp_close(tp[0]);
    spw_tp_poll(tp[1], 3);
    assert_int_equal(heard[1].deaths, 2);
    spw_tp_close(tp[1]);
    spw_tp_close(tp[2]);
    spw_tp_hub_destroy(hub);
}

static void test_one_sided(void **state)
{
    (void)state;
    struct spw_tp_hub *hub = spw_tp_hub_create(2, 1 << 16);
    struct heard heard[2];
    struct spw_tp *a = open_rank(hub, 0, &heard[0]), *b = open_rank(hub, 1, &heard[1]);
    struct spw_tp_memory *memory;
    void *base;
    assert_int_equal(b->ops->memory_create(b, 0, &memory, &base), SPW_INVALID);
    assert_int_equal(b->ops->memory_create(b, 5000, &memory, &base), SPW_OK);
    assert_int_equal((uintptr_t)base % 4096, 0);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(((uint8_t *)base)[i], 0);
    uint8_t key[SPW_TP_KEY_BYTES_MAX];
    size_t key_bytes;
    assert_int_equal(b->ops->memory_pack(b, memory, key, &key_bytes), SPW_OK);
    struct spw_tp_remote *remote, *none;
    assert_int_equal(a->ops->remote_open(a, 0, key, key_bytes, &none), SPW_INVALID);
    assert_int_equal(a->ops->remote_open(a, 1, key, key_bytes - 1, &none), SPW_INVALID);
    assert_int_equal(a->ops->remote_open(a, 1, key, key_bytes, &remote), SPW_OK);
    assert_ptr_equal(a->ops->remote_map(a, remote), base);
    struct spw_tp_op op = {0};
    uint8_t data[100], back[100];
    memset(data, 7, sizeof(data));
    assert_int_equal(a->ops->put(a, remote, 4900, data, 100, &op), SPW_OK);
    assert_int_equal(op.status, SPW_OK);
    assert_int_equal(((uint8_t *)base)[4899], 0);
    assert_int_equal(((uint8_t *)base)[4999], 7);
    assert_int_equal(a->ops->put(a, remote, 4901, data, 100, &op), SPW_INVALID);
    assert_int_equal(a->ops->put(a, remote, UINT64_MAX, data, 1, &op), SPW_INVALID);
    assert_int_equal(a->ops->put(a, remote, 5000, data, 0, &op), SPW_OK);
    assert_int_equal(a->ops->get(a, remote, 4850, back, 100, &op), SPW_OK);
    assert_int_equal(back[49], 0);
    assert_int_equal(back[50], 7);
    assert_int_equal(a->ops->get(a, remote, 5001, back, 0, &op), SPW_INVALID);
    assert_int_equal(a->counters.puts, 2);
    assert_int_equal(a->counters.put_bytes, 100);
    /* The owner is gone: refused, and a mapping that is still open stays readable. */
    spw_tp_close(b);
    assert_int_equal(a->ops->put(a, remote, 0, data, 1, &op), SPW_PEER_LOST);
    assert_int_equal(op.status, SPW_PEER_LOST);
    assert_int_equal(((uint8_t *)base)[4999], 7);
    assert_int_equal(a->ops->remote_open(a, 1, key, key_bytes, &none), SPW_PEER_LOST);
    a->ops->remote_close(a, remote);
    spw_tp_close(a);
    spw_tp_hub_destroy(hub);
}

struct flood {
    struct spw_tp *tp;
    struct heard *heard;
    uint64_t messages;
    uint32_t ranks;
    uint32_t fulls;
};

/* Every rank sends numbered messages to every rank and polls meanwhile; sleeps when it can. */
static void *flood(void *context)
{
    struct flood *f = context;
    uint64_t next[8] = {0};
    uint32_t expected = (uint32_t)f->messages * f->ranks;
    uint64_t left = expected;
    while (left > 0 || f->heard->count < expected) {
        for (uint32_t to = 0; to < f->ranks; to++) {
            while (next[to] < f->messages) {
                enum spw_status status = send_number(f->tp, to, next[to]);
                if (status == SPW_FULL) {
                    f->fulls++;
                    break;
                }
                assert_int_equal(status, SPW_OK);
                next[to]++;
                left--;
            }
        }
        if (spw_tp_poll(f->tp, 64) == 0)
            spw_tp_wait(f->tp, left ? SPW_MS : 100 * SPW_MS);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    enum { RANKS = 4 };
    struct spw_tp_hub *hub = spw_tp_hub_create(RANKS, 8 << 10);
    static struct heard heard[RANKS];
    struct flood floods[RANKS];
    pthread_t threads[RANKS];
    for (uint32_t i = 0; i < RANKS; i++)
        floods[i] = (struct flood){open_rank(hub, i, &heard[i]), &heard[i], 5000, RANKS, 0};
    for (uint32_t i = 0; i < RANKS; i++)
        pthread_create(&threads[i], NULL, flood, &floods[i]);
    uint32_t fulls = 0;
    for (uint32_t i = 0; i < RANKS; i++) {
        pthread_join(threads[i], NULL);
        fulls += floods[i].fulls;
    }
    for (uint32_t i = 0; i < RANKS; i++) {
        assert_int_equal(heard[i].count, 5000 * RANKS);
        assert_int_equal(heard[i].out_of_order, 0);
        assert_int_equal(heard[i].bytes, 8ull * 5000 * RANKS);
    }
    assert_true(fulls > 0); /* the bound was met, so the test says something about it */
    for (uint32_t i = 0; i < RANKS; i++)
        spw_tp_close(floods[i].tp);
    spw_tp_hub_destroy(hub);
}

static void *wake_later(void *context)
{
    struct timespec pause = {.tv_nsec = 20 * 1000 * 1000};
    nanosleep(&pause, NULL);
    spw_tp_wake(context);
    return NULL;
}

static void test_wait_and_wake(void **state)
{
    (void)state;
    struct spw_tp_hub *hub = spw_tp_hub_create(2, 1 << 16);
    struct heard heard[2];
    struct spw_tp *a = open_rank(hub, 0, &heard[0]), *b = open_rank(hub, 1, &heard[1]);
    uint64_t start = spw_clock_monotonic_ns();
    spw_tp_wait(a, 5 * SPW_MS);
    assert_true(spw_clock_monotonic_ns() - start >= 5 * SPW_MS);
    assert_int_equal(a->counters.sleeps, 1);
    /* A wake that comes before the wait counts, once. */
    spw_tp_wake(a);
    spw_tp_wait(a, UINT64_MAX);
    pthread_t thread;
    pthread_create(&thread, NULL, wake_later, a);
    spw_tp_wait(a, UINT64_MAX);
    pthread_join(thread, NULL);
    assert_int_equal(a->counters.sleeps, 3);
    /* So does a message, and a death. */
    send_number(b, 0, 0);
    spw_tp_wait(a, UINT64_MAX);
    assert_int_equal(spw_tp_poll(a, 1), 1);
    spw_tp_hub_kill(hub, 1);
    spw_tp_wait(a, UINT64_MAX);
    assert_int_equal(spw_tp_poll(a, 1), 0);
    assert_int_equal(heard[0].deaths, 1);
    spw_tp_close(a);
    spw_tp_close(b);
    spw_tp_hub_destroy(hub);
}

static void test_early_messages(void **state)
{
    (void)state;
    struct spw_tp_hub *hub = spw_tp_hub_create(2, 1 << 20);
    struct heard heard[2];
    struct spw_tp *a = open_rank(hub, 0, &heard[0]), *b = open_rank(hub, 1, &heard[1]);
    uint8_t back[16];
    assert_int_equal(spw_tp_early_take(a, 1, "xy", 2, back, 16), 0);
    spw_tp_send(b, 0, SPW_TP_TYPE_COLL_SETUP, "xy1", 3);
    spw_tp_send(b, 0, SPW_TP_TYPE_COLL_SETUP, "xz2", 3);
    spw_tp_send(b, 0, SPW_TP_TYPE_COLL_SETUP, "xy3", 3);
    spw_tp_poll(a, 10);
    assert_int_equal(spw_tp_early_take(a, 0, "xy", 2, back, 16), 0);
    assert_int_equal(spw_tp_early_take(a, 1, "xy", 2, back, 16), 3);
    assert_int_equal(back[2], '1');
    assert_int_equal(spw_tp_early_take(a, 1, "xy", 2, back, 16), 3);
    assert_int_equal(back[2], '3');
    assert_int_equal(spw_tp_early_take(a, 1, "xy", 2, back, 16), 0);
    spw_tp_send(b, 0, SPW_TP_TYPE_COLL_SETUP, "xq4", 3);
    spw_tp_poll(a, 10);
    assert_int_equal(spw_tp_early_take(a, 1, "x", 1, back, 16), 3);
    assert_int_equal(back[2], '2');
    /* Never taken, many: bounded, the oldest go, and counted. */
    for (int i = 0; i < 300; i++)
        spw_tp_send(b, 0, SPW_TP_TYPE_COLL_SETUP, "q", 1);
    spw_tp_poll(a, 1000);
    assert_int_equal(a->counters.messages_dropped, 301 - 256);
    spw_tp_close(a);
    spw_tp_close(b);
    spw_tp_hub_destroy(hub);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_self), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_queue_wrap),     cmocka_unit_test(test_kill),
        cmocka_unit_test(test_one_sided),      cmocka_unit_test(test_threads),
        cmocka_unit_test(test_wait_and_wake),  cmocka_unit_test(test_early_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
