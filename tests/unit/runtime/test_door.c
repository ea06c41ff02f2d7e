/* Between a door and the loop: references, notices, cancels, full rings; in one thread and in two.
 */
#include "tests/unit/runtime/fake_loop.h"

#include "runtime/base/rng.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX 4u

static const struct spw_service service = {.requests_max = MAX};
static struct spw_door door;
static struct fake_loop loop;
static int wakes;

static void count_wake(void *context)
{
    ++*(int *)context;
}

static int open_door(void **state)
{
    (void)state;
    wakes = 0;
    loop = (struct fake_loop){.door = &door};
    return spw_door_init(&door, "test", &service, count_wake, &wakes);
}

static int close_door(void **state)
{
    (void)state;
    spw_door_done(&door);
    return 0;
}

/* A request that the test holds too, so that the count can be looked at to the end. */
static struct spw_request *make(void)
{
    struct spw_request *request = spw_request_create(3, 8, 0);
    atomic_fetch_add(&request->references, 1);
    request->door_context = &door;
    return request;
}

#define REFERENCES(request, ours) assert_int_equal(atomic_load(&(request)->references), 1 + (ours))

static void a_request_goes_its_way(void **state)
{
    (void)state;
    bool took;
    struct spw_request *request = make();
    REFERENCES(request, 2);
    assert_int_equal(spw_door_submit(&door, request), SPW_OK);
    assert_int_equal(wakes, 1);
    assert_ptr_equal(request->door, &door);
    assert_ptr_equal(fake_take(&loop, &took), request);
    assert_int_equal(door.live, 1);
    assert_null(spw_door_next(&door));
    fake_publish(request, 7, -1);
    fake_publish(request, 8, -2);
    REFERENCES(request, 3); /* door, loop, one notice for both tokens */
    assert_int_equal(spw_ring_count(&door.from_loop), 1);
    assert_ptr_equal(spw_door_next(&door), request);
    assert_int_equal(atomic_load(&request->published), 2);
    assert_null(spw_door_next(&door));
    REFERENCES(request, 2);
    fake_publish(request, 9, -3);
    fake_end(&loop, request, SPW_REQUEST_END_LENGTH, SPW_OK, NULL);
    assert_int_equal(door.live, 0);
    REFERENCES(request, 2); /* door, notice */
    assert_ptr_equal(spw_door_next(&door), request);
    assert_true(atomic_load(&request->ended));
    assert_null(spw_door_next(&door));
    spw_door_cancel(&door, request, false); /* too late: nothing to tell */
    assert_int_equal(spw_ring_count(&door.to_loop), 0);
    spw_door_let_go(&door, request);
    REFERENCES(request, 0);
    spw_request_release(request);
    spw_request_release(NULL);
}

static void wake_fd_is_readable_after_a_flush(void **state)
{
    (void)state;
    bool took;
    struct pollfd fd = {.fd = door.wake_fd, .events = POLLIN};
    struct spw_request *request = make();
    spw_door_submit(&door, request);
    fake_take(&loop, &took);
    spw_door_flush(&door);
    assert_int_equal(poll(&fd, 1, 0), 0); /* no news, no wake */
    fake_publish(request, 1, 0);
    assert_int_equal(poll(&fd, 1, 0), 0);
    spw_door_flush(&door);
    assert_int_equal(poll(&fd, 1, 0), 1);
    spw_door_clear_wake(&door);
    assert_int_equal(poll(&fd, 1, 0), 0);
    fake_publish(request, 2, 0); /* the first notice is unread: no second one, no wake */
    spw_door_flush(&door);
    assert_int_equal(poll(&fd, 1, 0), 0);
    fake_end(&loop, request, SPW_REQUEST_END_STOP, SPW_OK, NULL);
    assert_ptr_equal(spw_door_next(&door), request);
    spw_door_let_go(&door, request);
    REFERENCES(request, 0);
    spw_request_release(request);
}

static void cancel_before_the_loop_looked(void **state)
{
    (void)state;
    bool took;
    struct spw_request *request = make();
    spw_door_submit(&door, request);
    spw_door_cancel(&door, request, false);
    spw_door_cancel(&door, request, false);
    spw_door_cancel(&door, request, true); /* the first one counts */
    assert_int_equal(spw_ring_count(&door.to_loop), 2);
    assert_int_equal(atomic_load(&request->cancelled), SPW_REQUEST_GONE);
    REFERENCES(request, 3);
    spw_door_let_go(&door, request); /* at once */
    REFERENCES(request, 2);
    assert_null(fake_take(&loop, &took)); /* seen cancelled on the way in */
    assert_int_equal(request->end, SPW_REQUEST_END_CANCELLED);
    assert_null(fake_take(&loop, &took));
    assert_true(took);
    assert_int_equal(loop.late_cancels, 1);
    REFERENCES(request, 1);            /* the notice */
    assert_null(spw_door_next(&door)); /* dropped: the door let go */
    REFERENCES(request, 0);
    assert_int_equal(loop.ended, 1);
    spw_request_release(request);
}

static void cancel_while_it_runs(void **state)
{
    (void)state;
    bool took;
    for (int stopped = 0; stopped < 2; stopped++) {
        struct spw_request *request = make();
        spw_door_submit(&door, request);
        fake_take(&loop, &took);
        fake_publish(request, 1, 0);
        spw_door_cancel(&door, request, stopped);
        REFERENCES(request, 4); /* door, loop, notice, cancel */
        fake_take(&loop, &took);
        assert_int_equal(request->end, stopped ? SPW_REQUEST_END_STOP : SPW_REQUEST_END_CANCELLED);
        assert_int_equal(request->status, stopped ? SPW_OK : SPW_CANCELLED);
        REFERENCES(request, 2);
        assert_ptr_equal(spw_door_next(&door), request);
        spw_door_let_go(&door, request);
        REFERENCES(request, 0);
        spw_request_release(request);
    }
    assert_int_equal(loop.cancels, 2);
    assert_int_equal(loop.ended, 2);
}

static void full_is_an_answer(void **state)
{
    (void)state;
    struct spw_request *requests[MAX + 1];
    bool took;
    for (uint32_t i = 0; i <= MAX; i++) {
        requests[i] = make();
        assert_int_equal(spw_door_submit(&door, requests[i]), i < MAX ? SPW_OK : SPW_FULL);
        REFERENCES(requests[i], 2);
    }
    for (uint32_t i = 0; i < MAX; i++) { /* cancels find room even so */
        spw_door_cancel(&door, requests[i], false);
        REFERENCES(requests[i], 3);
    }
    do
        fake_take(&loop, &took);
    while (took);
    assert_int_equal(loop.ended, MAX);
    assert_int_equal(spw_door_submit(&door, requests[MAX]), SPW_OK);
    fake_take(&loop, &took);
    fake_end(&loop, requests[MAX], SPW_REQUEST_END_STOP, SPW_OK, NULL);
    for (uint32_t i = 0; i <= MAX; i++) {
        assert_ptr_equal(spw_door_next(&door), requests[i]);
        spw_door_let_go(&door, requests[i]);
        REFERENCES(requests[i], 0);
        spw_request_release(requests[i]);
    }
}

/* A door that does not read its notices: the loop takes no more than it can answer, and goes on
 * when the door reads again.
 */
static void an_unread_ring_stops_the_loop_and_nothing_is_lost(void **state)
{
    (void)state;
    struct spw_request *requests[100];
    uint32_t made = 0, read = 0;
    bool took = true;
    for (int round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < MAX; i++) {
            struct spw_request *request = make();
            if (spw_door_submit(&door, request) == SPW_OK) {
                requests[made++] = request;
            } else {
                for (int r = 0; r < 3; r++)
                    spw_request_release(request);
            }
        }
        struct spw_request *taken = fake_take(&loop, &took);
        while (took) {
            if (taken)
                fake_end(&loop, taken, SPW_REQUEST_END_STOP, SPW_OK, NULL);
            taken = fake_take(&loop, &took);
        }
    }
    /* 16 places for notices, one kept free; then the ring to the loop fills with MAX */
    assert_int_equal(loop.ended, 15);
    assert_int_equal(made, 15 + MAX);
    for (; read < 15; read++) {
        assert_ptr_equal(spw_door_next(&door), requests[read]);
        spw_door_let_go(&door, requests[read]);
    }
    assert_null(spw_door_next(&door));
    for (struct spw_request *taken; (taken = fake_take(&loop, &took));)
        fake_end(&loop, taken, SPW_REQUEST_END_STOP, SPW_OK, NULL);
    for (; read < made; read++) {
        assert_ptr_equal(spw_door_next(&door), requests[read]);
        spw_door_let_go(&door, requests[read]);
    }
    assert_int_equal(loop.ended, made);
    for (uint32_t i = 0; i < made; i++) {
        REFERENCES(requests[i], 0);
        spw_request_release(requests[i]);
    }
}

/* ---- many steps in any order ---- */

#define HELD_MAX 12u

struct held {
    struct spw_request *request;
    bool seen_end;
};

static uint64_t draws;

static uint32_t below(uint32_t limit)
{
    return (uint32_t)(spw_rng_uniform(5, draws++, 0) * limit);
}

static void drain(struct held *held, uint32_t count)
{
    struct spw_request *request;
    while ((request = spw_door_next(&door)))
        for (uint32_t i = 0; i < count; i++)
            if (held[i].request == request)
                held[i].seen_end = atomic_load(&request->ended);
}

static void any_order_of_events_keeps_count(void **state)
{
    (void)state;
    struct held held[HELD_MAX];
    uint32_t count = 0, submitted = 0, stepped = 0;
    bool took;
    for (; stepped < 200000; stepped++) {
        uint32_t pick = count ? below(count) : 0;
        switch (below(8)) {
        case 0:
        case 1: {
            struct spw_request *request = spw_request_create(1, 4, 0);
            request->door_context = &door;
            if (count < HELD_MAX && spw_door_submit(&door, request) == SPW_OK) {
                held[count++] = (struct held){.request = request};
                submitted++;
            } else {
                spw_request_release(request);
                spw_request_release(request);
            }
            break;
        }
        case 2:
            fake_take(&loop, &took);
            break;
        case 3:
            if (loop.live_count) {
                struct spw_request *request = loop.live[below(loop.live_count)];
                if (atomic_load(&request->published) < request->output_tokens_max)
                    fake_publish(request, 1, 0);
            }
            break;
        case 4:
            if (loop.live_count)
                fake_end(&loop, loop.live[below(loop.live_count)], SPW_REQUEST_END_STOP, SPW_OK,
                         NULL);
            break;
        case 5:
            if (count)
                spw_door_cancel(&door, held[pick].request, below(2));
            break;
        case 6:
            drain(held, count);
            break;
        default: /* let go of one that ended or was cancelled */
            if (count && (held[pick].seen_end || atomic_load(&held[pick].request->cancelled))) {
                spw_door_let_go(&door, held[pick].request);
                held[pick] = held[--count];
            }
            break;
        }
    }
    while (loop.live_count || spw_ring_count(&door.to_loop)) {
        drain(held, count);
        fake_take(&loop, &took);
        while (loop.live_count)
            fake_end(&loop, loop.live[0], SPW_REQUEST_END_STOP, SPW_OK, NULL);
    }
    drain(held, count);
    for (uint32_t i = 0; i < count; i++) {
        assert_true(held[i].seen_end);
        assert_int_equal(atomic_load(&held[i].request->references), 1);
        spw_door_let_go(&door, held[i].request);
    }
    assert_int_equal(loop.taken, submitted);
    assert_int_equal(loop.ended, submitted);
    assert_int_equal(door.live, 0);
    /* the same on every machine, and enough of each */
    assert_int_equal(submitted, 15441);
    assert_int_equal(loop.cancels, 471);
    assert_int_equal(loop.late_cancels, 6813);
}

/* ---- two threads ---- */

#define REQUESTS 5000u

static void *run_fake_loop(void *context)
{
    struct fake_loop *self = context;
    bool took;
    while (self->ended < REQUESTS) {
        struct spw_request *request = fake_take(self, &took);
        bool moved = took;
        if (request)
            for (uint32_t t = 0; t < request->prompt_tokens; t++)
                request->output[t] = 0;
        for (uint32_t i = 0; i < self->live_count; i++) {
            struct spw_request *live = self->live[i];
            uint32_t published = atomic_load_explicit(&live->published, memory_order_relaxed);
            moved = true;
            if (published < live->output_tokens_max)
                fake_publish(live, (int32_t)(live->prompt[0] * 10 + (int32_t)published),
                             -(float)published);
            else
                fake_end(self, live, SPW_REQUEST_END_LENGTH, SPW_OK, NULL);
        }
        spw_door_flush(self->door);
        if (!moved)
            sched_yield();
    }
    return NULL;
}

/* Every published entry a reader may look at is right; every request ends exactly once. */
static void two_threads(void **state)
{
    (void)state;
    pthread_t thread;
    uint32_t submitted = 0, ended = 0, gone = 0, tokens = 0;
    assert_int_equal(pthread_create(&thread, NULL, run_fake_loop, &loop), 0);
    while (ended + gone < REQUESTS) {
        if (submitted < REQUESTS) {
            struct spw_request *request = spw_request_create(1, 5, 0);
            request->prompt[0] = (int32_t)submitted;
            request->door_context = &door;
            if (spw_door_submit(&door, request) == SPW_OK) {
                if (submitted % 7 == 3) { /* the client leaves at once */
                    spw_door_cancel(&door, request, false);
                    spw_door_let_go(&door, request);
                    gone++;
                }
                submitted++;
            } else {
                spw_request_release(request);
                spw_request_release(request);
                struct pollfd fd = {.fd = door.wake_fd, .events = POLLIN};
                poll(&fd, 1, 10);
            }
        }
        spw_door_clear_wake(&door);
        for (struct spw_request *request; (request = spw_door_next(&door));) {
            bool over = atomic_load_explicit(&request->ended, memory_order_acquire);
            uint32_t published = atomic_load_explicit(&request->published, memory_order_acquire);
            for (uint32_t i = 0; i < published; i++)
                assert_true(request->output[i] == request->prompt[0] * 10 + (int32_t)i &&
                            request->logprobs[i] == -(float)i);
            if (!over)
                continue;
            assert_int_equal(request->end, SPW_REQUEST_END_LENGTH);
            assert_int_equal(published, 5);
            tokens += published;
            ended++;
            spw_door_let_go(&door, request);
        }
    }
    pthread_join(thread, NULL);
    assert_null(spw_door_next(&door));
    assert_int_equal(submitted, REQUESTS);
    assert_int_equal(gone, 714);
    assert_int_equal(tokens, 5 * (REQUESTS - 714));
    bool took = true;
    while (took) /* cancels that came too late */
        fake_take(&loop, &took);
    assert_int_equal(loop.taken, REQUESTS);
    assert_int_equal(loop.ended, REQUESTS);
    assert_int_equal(door.live, 0);
}

static void a_closed_door_frees_what_is_under_way(void **state)
{
    (void)state;
    struct spw_door other;
    bool took;
    assert_int_equal(spw_door_init(&other, "other", &service, NULL, NULL), SPW_OK);
    struct fake_loop side = {.door = &other};
    struct spw_request *first = make(), *second = make();
    spw_door_submit(&other, first);
    fake_take(&side, &took);
    fake_publish(first, 1, 0);
    spw_door_cancel(&other, first, false);
    spw_door_submit(&other, second);
    spw_door_let_go(&other, first);
    spw_door_let_go(&other, second);
    REFERENCES(first, 3);  /* loop, notice, cancel */
    REFERENCES(second, 1); /* the ring's is the loop's */
    spw_door_done(&other);
    REFERENCES(first, 1);
    REFERENCES(second, 0);
    spw_request_release(first); /* the loop's */
    spw_request_release(first);
    spw_request_release(second);
}

static void stops(void **state)
{
    (void)state;
    static const int32_t eos[] = {5, 6};
    struct spw_request request = {.stop_tokens = {7, 8}, .stop_token_count = 2};
    for (int32_t token = 0; token < 10; token++) {
        request.ignore_eos = false;
        assert_int_equal(spw_request_stops_at(&request, eos, 2, token), token >= 5 && token <= 8);
        assert_int_equal(spw_request_stops_at(&request, eos, 1, token),
                         token >= 5 && token <= 8 && token != 6);
        request.ignore_eos = true; /* the request's own stay */
        assert_int_equal(spw_request_stops_at(&request, eos, 2, token), token == 7 || token == 8);
    }
    assert_null(spw_request_end_name(SPW_REQUEST_END_NONE));
    assert_string_equal(spw_request_end_name(SPW_REQUEST_END_STOP), "stop");
    assert_string_equal(spw_request_end_name(SPW_REQUEST_END_LENGTH), "length");
    assert_string_equal(spw_request_end_name(SPW_REQUEST_END_CANCELLED), "cancelled");
    assert_string_equal(spw_request_end_name(SPW_REQUEST_END_ERROR), "error");
    struct spw_request *a = spw_request_create(2, 3, 1), *b = spw_request_create(2, 3, 0);
    assert_true(a->id != b->id);
    assert_non_null(a->tops);
    assert_null(b->tops);
    assert_true(a->prompt_tokens == 2 && a->output_tokens_max == 3);
    for (int i = 0; i < 2; i++) {
        spw_request_release(a);
        spw_request_release(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_door, close_door)
        TEST(a_request_goes_its_way),
        TEST(wake_fd_is_readable_after_a_flush),
        TEST(cancel_before_the_loop_looked),
        TEST(cancel_while_it_runs),
        TEST(full_is_an_answer),
        TEST(an_unread_ring_stops_the_loop_and_nothing_is_lost),
        TEST(any_order_of_events_keeps_count),
        TEST(two_threads),
        TEST(a_closed_door_frees_what_is_under_way),
        cmocka_unit_test(stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
