/* The ring between two threads: order, nothing lost, nothing twice, contents visible. */
#include "runtime/base/ring.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void ring_is_a_bounded_queue(void **state)
{
    (void)state;
    for (uint32_t asked = 1; asked <= 9; asked++) {
        struct spw_ring ring;
        int items[40];
        assert_true(spw_ring_create(&ring, asked));
        uint32_t capacity = asked <= 1 ? 1 : asked <= 2 ? 2 : asked <= 4 ? 4 : asked <= 8 ? 8 : 16;
        assert_null(spw_ring_pop(&ring));
        for (uint32_t round = 0; round < 3; round++) {
            for (uint32_t i = 0; i < capacity; i++) {
                assert_int_equal(spw_ring_count(&ring), i);
                assert_true(spw_ring_push(&ring, &items[i + round]));
            }
            assert_false(spw_ring_push(&ring, &items[0]));
            assert_int_equal(spw_ring_count(&ring), capacity);
            for (uint32_t i = 0; i < capacity; i++)
                assert_ptr_equal(spw_ring_pop(&ring), &items[i + round]);
            assert_null(spw_ring_pop(&ring));
        }
        spw_ring_done(&ring);
    }
}

static void ring_counts_past_the_wrap_of_its_counters(void **state)
{
    (void)state;
    struct spw_ring ring;
    int item;
    assert_true(spw_ring_create(&ring, 4));
    atomic_store(&ring.head, UINT32_MAX - 2);
    atomic_store(&ring.tail, UINT32_MAX - 2);
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 4; i++)
            assert_true(spw_ring_push(&ring, &item));
        assert_false(spw_ring_push(&ring, &item));
        assert_int_equal(spw_ring_count(&ring), 4);
        for (uint32_t i = 0; i < 4; i++)
            assert_ptr_equal(spw_ring_pop(&ring), &item);
        assert_null(spw_ring_pop(&ring));
    }
    spw_ring_done(&ring);
}

#define ITEMS 100000u

struct message {
    uint64_t number, square;
};

struct lane {
    struct spw_ring ring;
    struct message *messages;
};

static void *produce(void *context)
{
    struct lane *lane = context;
    for (uint64_t i = 0; i < ITEMS;) {
        lane->messages[i].number = i;
        lane->messages[i].square = i * i;
        if (spw_ring_push(&lane->ring, &lane->messages[i]))
            i++;
        else
            sched_yield();
    }
    return NULL;
}

static void two_threads_keep_order(void **state)
{
    (void)state;
    struct lane lane = {.messages = calloc(ITEMS, sizeof(struct message))};
    pthread_t thread;
    assert_true(spw_ring_create(&lane.ring, 64));
    assert_int_equal(pthread_create(&thread, NULL, produce, &lane), 0);
    for (uint64_t i = 0; i < ITEMS;) {
        const struct message *message = spw_ring_pop(&lane.ring);
        if (!message) {
            sched_yield();
            continue;
        }
        assert_true(message->number == i && message->square == i * i);
        assert_true(spw_ring_count(&lane.ring) <= 64);
        i++;
    }
    pthread_join(thread, NULL);
    assert_null(spw_ring_pop(&lane.ring));
    spw_ring_done(&lane.ring);
    free(lane.messages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring_is_a_bounded_queue),
        cmocka_unit_test(ring_counts_past_the_wrap_of_its_counters),
        cmocka_unit_test(two_threads_keep_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
