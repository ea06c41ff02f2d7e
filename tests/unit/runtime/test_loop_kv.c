/* The loop's side of KV transfers, with workers and a scheduler's wishes that the test plays: the
 * scheduler's functions for transfers are replaced when the program is linked.
 */
#include "tests/unit/runtime/loop_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WISHES_MAX 2048u

/* ---- the scheduler that is played ---- */

bool __wrap_spw_sched_transfer_next(struct spw_sched *sched,
                                    struct spw_sched_transfer *out_transfer);
void __wrap_spw_sched_transfer_done(struct spw_sched *sched, uint64_t now_ns, uint32_t replica,
                                    uint32_t id, bool ok);
bool __wrap_spw_sched_disk_found(struct spw_sched *sched, uint32_t replica, uint32_t disk_block,
                                 struct spw_sched_hash hash, struct spw_sched_hash parent,
                                 uint32_t index);

static struct fixture fx;
static struct spw_sched_transfer wishes[WISHES_MAX];
static uint32_t wish_count, wish_next;
static struct {
    uint32_t replica, id;
    bool ok;
} ends[WISHES_MAX];
static uint32_t end_count;
static struct spw_kv_found found[WISHES_MAX];
static uint32_t found_count;

bool __wrap_spw_sched_transfer_next(struct spw_sched *sched,
                                    struct spw_sched_transfer *out_transfer)
{
    (void)sched;
    if (wish_next == wish_count)
        return false;
    *out_transfer = wishes[wish_next++];
    return true;
}

void __wrap_spw_sched_transfer_done(struct spw_sched *sched, uint64_t now_ns, uint32_t replica,
                                    uint32_t id, bool ok)
{
    (void)sched;
    assert_true(now_ns > 0 && end_count < WISHES_MAX);
    assert_true(fx.loop->replicas[replica].up); /* ends of a lost replica are not told */
    ends[end_count].replica = replica;
    ends[end_count].id = id;
    ends[end_count++].ok = ok;
}

bool __wrap_spw_sched_disk_found(struct spw_sched *sched, uint32_t replica, uint32_t disk_block,
                                 struct spw_sched_hash hash, struct spw_sched_hash parent,
                                 uint32_t index)
{
    (void)sched;
    assert_false(fx.loop->replicas[replica].up); /* before it serves */
    assert_true(found_count < WISHES_MAX);
    found[found_count++] =
        (struct spw_kv_found){.hash = hash, .parent = parent, .index = index, .slot = disk_block};
    return disk_block % 2 == 0;
}

static void wish(uint32_t replica, uint32_t id);
static uint32_t save_calls, saves_wanted;

/* One copy a call, until so many are wanted; over when all have ended. */
bool __wrap_spw_sched_save(struct spw_sched *sched, uint64_t now_ns);
bool __wrap_spw_sched_save(struct spw_sched *sched, uint64_t now_ns)
{
    assert_true(spw_sched_idle(sched) && now_ns > 0);
    if (save_calls < saves_wanted)
        wish(0, save_calls);
    save_calls++;
    return end_count < saves_wanted;
}

static void wish(uint32_t replica, uint32_t id)
{
    assert_true(wish_count < WISHES_MAX);
    wishes[wish_count++] = (struct spw_sched_transfer){.replica = replica,
                                                       .id = id,
                                                       .from = SPW_SCHED_HOST,
                                                       .to = SPW_SCHED_DISK,
                                                       .from_block = id + 1,
                                                       .to_block = id + 2,
                                                       .hash = {.low = id, .high = 3},
                                                       .parent = {.low = id, .high = 4},
                                                       .index = id + 5};
}

/* ---- workers that are played ---- */

static struct {
    uint32_t messages;
    struct spw_wire_kv last[SPW_WIRE_KV_MAX];
    uint32_t last_count;
} inbox[FIXTURE_RANKS_MAX];

static bool answers_at_once;
static void answer(uint32_t rank, uint32_t id, enum spw_status status);

static void on_kv(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct fake_worker *worker = context;
    uint32_t rank = worker->tp->rank;
    assert_int_equal(peer, 0);
    assert_int_equal(
        spw_wire_kv_decode(data, bytes, inbox[rank].last, SPW_WIRE_KV_MAX, &inbox[rank].last_count),
        SPW_OK);
    inbox[rank].messages++;
    for (uint32_t i = 0; i < inbox[rank].last_count; i++)
        assert_int_equal(inbox[rank].last[i].transfer.replica, worker->place.replica);
    for (uint32_t i = 0; i < inbox[rank].last_count && answers_at_once; i++)
        answer(rank, inbox[rank].last[i].transfer.id, SPW_OK);
}

/* Two replicas of tensor 2 and pipeline 2: ranks 1-4 and 5-8. */
static void open_loop(bool ready)
{
    fixture_init(&fx);
    wish_count = wish_next = end_count = found_count = 0;
    save_calls = saves_wanted = 0;
    answers_at_once = false;
    memset(inbox, 0, sizeof(inbox));
    fx.config.tensor = fx.config.pipeline = fx.config.replicas = 2;
    fx.host_blocks = 300;
    fx.disk_blocks = 400;
    fixture_open(&fx, false);
    for (uint32_t rank = 1; rank < fx.rank_count; rank++)
        spw_tp_handle(fx.workers[rank].tp, SPW_WIRE_KV, on_kv, &fx.workers[rank]);
    for (uint32_t rank = 1; rank < fx.rank_count && ready; rank++)
        fixture_report(&fx, rank, SPW_RANK_READY, "");
    fixture_turns(&fx, 1);
    assert_int_equal(spw_loop_ready(fx.loop), ready);
    fixture_log();
}

/* Turns until the workers have their mail. */
static void go(void)
{
    fixture_turns(&fx, 3);
}

static void answer_raw(uint32_t rank, uint32_t id, uint64_t serial, enum spw_status status)
{
    struct spw_wire_kv_done done = {.id = id, .serial = serial, .status = status};
    struct spw_buffer out;
    spw_buffer_init(&out, 4096);
    spw_wire_kv_done_encode(&out, &done, 1);
    spw_tp_send(fx.workers[rank].tp, 0, SPW_WIRE_KV_DONE, out.data, out.bytes);
    spw_buffer_done(&out);
}

static void answer(uint32_t rank, uint32_t id, enum spw_status status)
{
    for (uint32_t i = 0; i < inbox[rank].last_count; i++)
        if (inbox[rank].last[i].transfer.id == id)
            answer_raw(rank, id, inbox[rank].last[i].serial, status);
}

static void expect_log(const char *words)
{
    const char *log = fixture_log();
    if (!strstr(log, words))
        fail_msg("'%s' is not in the log: %s", words, log);
}

/* ---- tests ---- */

static void every_rank_gets_each_transfer_once(void **state)
{
    (void)state;
    open_loop(true);
    wish(0, 7);
    wish(1, 3);
    wish(0, 9);
    go();
    for (uint32_t rank = 1; rank <= 8; rank++) {
        assert_int_equal(inbox[rank].messages, 1); /* one for each replica and turn */
        assert_int_equal(inbox[rank].last_count, rank <= 4 ? 2 : 1);
        struct spw_sched_transfer expected = wishes[rank <= 4 ? 0 : 1];
        assert_memory_equal(&inbox[rank].last[0].transfer, &expected, sizeof(expected));
    }
    assert_memory_equal(&inbox[1].last[1].transfer, &wishes[2], sizeof(wishes[2]));
    assert_int_equal(end_count, 0);
    for (uint32_t rank = 1; rank <= 8; rank++)
        for (uint32_t i = inbox[rank].last_count; i-- > 0;)
            answer(rank, inbox[rank].last[i].transfer.id, SPW_OK);
    go();
    assert_int_equal(end_count, 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(ends[i].ok);
    fixture_close(&fx);
}

/* The end comes with the last rank's answer, and is good only if all are. */
static void an_end_is_the_worst_of_all_ranks(void **state)
{
    (void)state;
    open_loop(true);
    for (uint32_t round = 0; round < 64; round++) {
        uint32_t before = end_count, bad = round & 15;
        wish(0, round % 5); /* ids come again */
        go();
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t rank = 1 + (i * (1 + 2 * (round / 16 % 2)) + round) % 4; /* any order */
            assert_int_equal(end_count, before);
            answer(rank, round % 5, bad >> (rank - 1) & 1 ? SPW_CORRUPT : SPW_OK);
            go();
        }
        assert_int_equal(end_count, before + 1);
        assert_int_equal(ends[before].id, round % 5);
        assert_int_equal(ends[before].ok, bad == 0);
    }
    fixture_close(&fx);
}

static void answers_that_were_not_asked_for_are_dropped(void **state)
{
    (void)state;
    open_loop(true);
    wish(0, 0);
    go();
    uint64_t serial = inbox[1].last[0].serial;
    static const char words[] = "ended KV transfers that are not in flight rank=1 count=1\n";
    answer(1, 0, SPW_OK);
    go();
    assert_null(strstr(fixture_log(), "not in flight"));
    answer(1, 0, SPW_OK); /* twice by one rank: counted as two, it would end before the others */
    go();
    expect_log(words);
    answer(1, 0, SPW_OK);
    answer(1, 0, SPW_OK);
    go();
    assert_int_equal(end_count, 0);
    fixture_log();
    const struct {
        uint32_t id;
        uint64_t serial;
    } bad[] = {{1, serial},          {255, serial},   {256, serial},
               {UINT32_MAX, serial}, {0, serial - 1}, {0, serial + 1}};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(bad); i++) {
        answer_raw(1, bad[i].id, bad[i].serial, SPW_OK);
        go();
        expect_log(words);
    }
    answer_raw(2, 0, serial - 1, SPW_OK); /* by one that has not answered yet */
    go();
    expect_log("not in flight rank=2 count=1\n");
    answer_raw(5, 0, serial, SPW_OK); /* of the other replica */
    go();
    expect_log("not in flight rank=5 count=1\n");
    for (uint32_t rank = 2; rank <= 4; rank++)
        answer(rank, 0, SPW_OK);
    go();
    assert_int_equal(end_count, 1);
    for (uint32_t rank = 1; rank <= 4; rank++)
        answer(rank, 0, SPW_OK); /* after its end */
    go();
    assert_int_equal(end_count, 1);
    fixture_close(&fx);
}

static void a_damaged_answer_ends_the_replica(void **state)
{
    (void)state;
    open_loop(true);
    wish(0, 0);
    wish(1, 0);
    go();
    spw_tp_send(fx.workers[3].tp, 0, SPW_WIRE_KV_DONE, "damage", 6);
    go();
    assert_true(fx.loop->replicas[0].lost && !fx.loop->replicas[1].lost);
    expect_log("replica lost replica=0 status=CORRUPT: damaged ends of KV transfers from rank 3\n");
    for (uint32_t rank = 1; rank <= 8; rank++)
        answer(rank, 0, SPW_OK);
    go();
    assert_int_equal(end_count, 1); /* of the replica that goes on */
    assert_int_equal(ends[0].replica, 1);
    fixture_close(&fx);
}

static void a_rank_that_never_answers_is_named_and_given_up(void **state)
{
    (void)state;
    open_loop(true);
    wish(0, 4);
    wish(0, 5);
    wish(1, 4);
    go();
    for (uint32_t rank = 1; rank <= 8; rank++) {
        if (rank != 3)
            answer(rank, 4, SPW_OK);
        answer(rank, 5, SPW_OK);
    }
    go();
    assert_int_equal(end_count, 2);
    fx.now_ns += 20 * SPW_SECOND; /* the limit is 60 */
    for (uint32_t rank = 1; rank <= 8; rank++)
        fixture_report(&fx, rank, SPW_RANK_READY, "");
    go();
    assert_true(spw_loop_healthy(fx.loop));
    fx.now_ns += 15 * SPW_SECOND;
    go();
    assert_false(spw_loop_healthy(fx.loop));
    expect_log("replica 0: no KV transfer has ended for 35.0 s; rank 3 on host-3 has not "
               "answered, last heard of 15.0 s ago: its disk or memory stands still\n");
    go();
    assert_null(strstr(fixture_log(), "no KV transfer")); /* said once */
    assert_false(fx.loop->replicas[0].lost);
    fx.now_ns += 25 * SPW_SECOND;
    go();
    assert_true(fx.loop->replicas[0].lost && !fx.loop->replicas[1].lost);
    expect_log("replica lost replica=0 status=TIMEOUT: replica 0: no KV transfer has ended for "
               "60.0 s; rank 3 on host-3");
    answer(3, 4, SPW_OK); /* too late */
    go();
    assert_int_equal(end_count, 2);
    assert_true(spw_loop_healthy(fx.loop));
    fixture_close(&fx);
}

/* A slow disk is not a dead one: while copies end, none is late. */
static void slow_copies_are_waited_for(void **state)
{
    (void)state;
    open_loop(true);
    for (uint32_t id = 0; id < 10; id++)
        wish(0, id);
    go();
    for (uint32_t id = 10; id-- > 0;) {
        fx.now_ns += 25 * SPW_SECOND;
        for (uint32_t rank = 1; rank <= 4; rank++)
            answer(rank, id, SPW_OK);
        go();
        assert_true(spw_loop_healthy(fx.loop));
    }
    assert_int_equal(end_count, 10);
    fx.now_ns += 1000 * SPW_SECOND; /* nothing is in flight */
    go();
    assert_true(spw_loop_healthy(fx.loop));
    fixture_close(&fx);
}

static void a_lost_replica_voids_what_is_in_flight(void **state)
{
    (void)state;
    for (uint32_t before = 0; before < 4; before++) {
        open_loop(true);
        for (uint32_t id = 0; id < 256; id++) {
            wish(0, id);
            wish(1, id);
        }
        go();
        for (uint32_t rank = 1; rank <= before; rank++)
            for (uint32_t id = 0; id < 256; id++)
                answer(rank, id, SPW_OK);
        go();
        spw_tp_hub_kill(fx.hub, 4);
        for (uint32_t rank = 1; rank <= 8; rank++)
            for (uint32_t id = 0; id < 256; id++)
                answer(rank, id, SPW_OK);
        fixture_turns(&fx, 30);
        assert_true(fx.loop->replicas[0].lost && !fx.loop->replicas[1].lost);
        assert_int_equal(end_count, 256);
        for (uint32_t i = 0; i < end_count; i++)
            assert_true(ends[i].replica == 1 && ends[i].ok);
        fixture_close(&fx);
    }
}

/* Ends that came in the same turn as the loss, before it was known, are void too. */
static void ends_of_the_turn_of_the_loss_are_void(void **state)
{
    (void)state;
    open_loop(true);
    wish(0, 6);
    wish(1, 6);
    go();
    for (uint32_t rank = 1; rank <= 8; rank++)
        answer(rank, 6, SPW_OK);
    spw_tp_send(fx.workers[3].tp, 0, SPW_WIRE_RESULT, "damage", 6); /* taken before the ends */
    go();
    assert_true(fx.loop->replicas[0].lost && !fx.loop->replicas[1].lost);
    assert_int_equal(end_count, 1);
    assert_int_equal(ends[0].replica, 1);
    fixture_close(&fx);
}

/* ---- what is on disk ---- */

static struct spw_kv_found block(uint32_t index, uint32_t slot)
{
    return (struct spw_kv_found){.hash = {.low = 100 + slot, .high = index},
                                 .parent = {.low = 99 + slot, .high = index},
                                 .index = index,
                                 .slot = slot};
}

static void send_found(uint32_t rank, const struct spw_kv_found *blocks, uint32_t count, bool last)
{
    struct spw_buffer out;
    spw_buffer_init(&out, SPW_TP_MESSAGE_MAX);
    spw_wire_kv_found_encode(&out, blocks, count, last);
    assert_int_equal(spw_tp_send(fx.workers[rank].tp, 0, SPW_WIRE_KV_FOUND, out.data, out.bytes),
                     SPW_OK);
    spw_buffer_done(&out);
}

static void all_ready(void)
{
    for (uint32_t rank = 1; rank <= 8; rank++)
        fixture_report(&fx, rank, SPW_RANK_READY, "");
    go();
    assert_true(spw_loop_ready(fx.loop));
}

static void what_all_ranks_have_is_told(void **state)
{
    (void)state;
    open_loop(false);
    for (uint32_t rank = 1; rank <= 8; rank++) {
        struct spw_kv_found list[6];
        uint32_t count = 0;
        list[count++] = block(0, 10);
        if (rank != 2)
            list[count++] = block(0, 11); /* rank 2 has lost it */
        list[count++] = block(1, 6);
        list[count++] = block(1, 20);
        if (rank == 3)
            list[count - 1].hash.low++; /* it holds another block there */
        list[count++] = block(2, rank == 4 ? 30 : 5);
        list[count++] = block(7, 399);
        if (rank == 1)
            list[count - 1].parent.high++;
        send_found(rank, list, 2, false); /* in pieces */
        send_found(rank, list + 2, count - 2, false);
        send_found(rank, NULL, 0, true);
    }
    assert_int_equal(found_count, 0);
    all_ready();
    static const struct {
        uint32_t index, slot;
    } expected[] = {{0, 10}, {1, 6}, /* and of the other replica: */
                    {0, 10}, {0, 11}, {1, 6}, {1, 20}, {2, 5}, {7, 399}};
    assert_int_equal(found_count, SPW_ARRAY_COUNT(expected));
    for (uint32_t i = 0; i < found_count; i++) {
        struct spw_kv_found right = block(expected[i].index, expected[i].slot);
        assert_memory_equal(&found[i], &right, sizeof(right));
    }
    expect_log("KV blocks on disk replica=0 found=2 used=2\n");
    fixture_close(&fx);
}

/* Ascending by index, whatever the slots; as many as there are slots. */
static void parents_come_first(void **state)
{
    (void)state;
    static struct spw_kv_found list[400];
    open_loop(false);
    for (uint32_t i = 0; i < 400; i++)
        list[i] = block(i / 2, (i * 7 + 3) % 400);
    for (uint32_t i = 0; i < 400; i += 2)
        if (list[i].slot > list[i + 1].slot) {
            struct spw_kv_found swap = list[i];
            list[i] = list[i + 1];
            list[i + 1] = swap;
        }
    for (uint32_t rank = 1; rank <= 8; rank++) {
        send_found(rank, list, 150, false);
        send_found(rank, list + 150, 250, true);
    }
    all_ready();
    assert_int_equal(found_count, 800);
    for (uint32_t i = 0; i < 800; i++)
        assert_memory_equal(&found[i], &list[i % 400], sizeof(list[0]));
    fixture_close(&fx);
}

static void lists_that_do_not_hold_together_are_not_used(void **state)
{
    (void)state;
    static const char words[] =
        "the list of KV blocks on the disk of rank 2 does not hold together: "
        "replica 0 starts without them\n";
    for (int what = 0; what < 7; what++) {
        open_loop(false);
        for (uint32_t rank = 1; rank <= 8; rank++) {
            struct spw_kv_found list[3] = {block(0, 1), block(1, 2), block(1, 3)};
            bool bad = rank == 2;
            if (bad && what == 0)
                list[1] = block(0, 1); /* twice: it would count for a rank that has it not */
            if (bad && what == 1)
                list[2] = block(0, 9); /* not in order */
            if (bad && what == 2)
                list[2] = block(1, 400); /* no such slot */
            if (bad && what == 3) {
                spw_tp_send(fx.workers[rank].tp, 0, SPW_WIRE_KV_FOUND, "damage", 6);
                continue;
            }
            if (bad && what == 4) /* goes on after its end */
                send_found(rank, list, 1, true);
            if (bad && what == 5) /* has no end */
                send_found(rank, list, 3, false);
            else if (!bad || what != 6) /* does not come at all */
                send_found(rank, list, 3, true);
        }
        all_ready();
        assert_int_equal(found_count, 3); /* of the other replica */
        if (what < 5)
            expect_log(words);
        send_found(1, NULL, 0, true); /* later ones change nothing */
        go();
        assert_int_equal(found_count, 3);
        fixture_close(&fx);
    }
}

/* ---- figures ---- */

/* A stop in the middle of answers: they end, then blocks are saved, then all is over. */
static void blocks_are_saved_before_the_end(void **state)
{
    (void)state;
    open_loop(true);
    for (int i = 0; i < 10; i++)
        fixture_submit(&fx, fixture_client(&fx, 10, 30));
    fixture_turns(&fx, 2);
    saves_wanted = 5;
    answers_at_once = true;
    atomic_store(&fx.stop, SPW_STOP_DRAIN);
    assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_OK);
    fixture_read_notices(&fx);
    for (int i = 0; i < 10; i++)
        fixture_expect_answer(&fx.clients[i]);
    assert_int_equal(end_count, 5);
    assert_null(strstr(fixture_log(), "not all KV blocks were saved"));
    assert_true(fx.workers[1].stop_seen);
    fixture_close(&fx);
}

/* A disk that stands still holds up no stop; a second signal waits for nothing. */
static void saving_is_bounded(void **state)
{
    (void)state;
    for (int stop = SPW_STOP_DRAIN; stop <= SPW_STOP_NOW; stop++) {
        open_loop(true);
        saves_wanted = 3;
        fx.clock_step_ns = 50 * SPW_MS;
        const uint64_t begin_ns = fx.now_ns;
        atomic_store(&fx.stop, stop);
        assert_int_equal(spw_loop_run(fx.loop, &fx.error), SPW_OK);
        assert_true(fx.now_ns - begin_ns < 5 * SPW_SECOND);
        assert_int_equal(end_count, 0);
        const bool said = strstr(fixture_log(), "not all KV blocks were saved limit_s=2") != NULL;
        assert_int_equal(said, stop == SPW_STOP_DRAIN);
        assert_int_equal(save_calls > 0, stop == SPW_STOP_DRAIN);
        fixture_close(&fx);
    }
}

static void block_times_are_those_of_the_slowest(void **state)
{
    (void)state;
    uint64_t host_ns = 1, disk_ns = 1;
    open_loop(true);
    spw_loop_kv_block_ns(fx.loop, &host_ns, &disk_ns);
    assert_true(host_ns == 0 && disk_ns == 0);
    for (uint32_t rank = 1; rank <= 8; rank++) {
        fx.loop->ranks[rank].status.kv_host_block_ns = 100 + rank * 3 % 8;
        fx.loop->ranks[rank].status.kv_disk_block_ns = 1000 + rank * 5 % 8;
    }
    spw_loop_kv_block_ns(fx.loop, &host_ns, &disk_ns);
    assert_true(host_ns == 107 && disk_ns == 1007);
    fixture_close(&fx);
}

static void reports_show_the_tiers(void **state)
{
    (void)state;
    struct spw_buffer text;
    spw_buffer_init(&text, 1 << 20);
    open_loop(true);
    for (uint32_t rank = 1; rank <= 8; rank++) {
        struct spw_wire_status *status = &fx.loop->ranks[rank].status;
        status->kv_host_bytes = 1000 + rank;
        status->kv_disk_bytes = 2000 + rank;
        status->kv_transfers_done = 3000 + rank;
        status->kv_transfers_failed = 40 + rank;
        status->kv_damaged = 5 + rank;
        status->kv_host_block_ns = 250000000;
    }
    fx.loop->report_ns = 0;
    fixture_turns(&fx, 1);
    spw_loop_status_json(fx.loop, &text);
    assert_non_null(strstr(spw_buffer_text(&text),
                           "\"kv_tiers\":{\"host_bytes\":1003,\"disk_bytes\":2003,"
                           "\"transfers_done\":3003,\"transfers_failed\":43,"
                           "\"blocks_damaged\":8,\"host_block_seconds\":0.25,"
                           "\"disk_block_seconds\":0.0}"));
    spw_buffer_clear(&text);
    spw_loop_metrics(fx.loop, &text);
    static const char *const lines[] = {
        "spillway_kv_host_bytes{model_name=\"demo\"} 8036\n",
        "spillway_kv_disk_bytes{model_name=\"demo\"} 16036\n",
        "spillway_kv_copies_total{model_name=\"demo\"} 24036\n",
        "spillway_kv_copies_failed_total{model_name=\"demo\"} 356\n",
        "spillway_kv_blocks_damaged_total{model_name=\"demo\"} 76\n"};
    for (size_t i = 0; i < SPW_ARRAY_COUNT(lines); i++)
        assert_non_null(strstr(spw_buffer_text(&text), lines[i]));
    spw_buffer_done(&text);
    fixture_close(&fx);
    /* a deployment without tiers has none in its reports */
    fixture_init(&fx);
    fixture_open(&fx, true);
    spw_buffer_init(&text, 1 << 20);
    spw_loop_status_json(fx.loop, &text);
    spw_loop_metrics(fx.loop, &text);
    assert_null(strstr(spw_buffer_text(&text), "kv_tiers"));
    assert_null(strstr(spw_buffer_text(&text), "spillway_kv_disk_bytes"));
    spw_buffer_done(&text);
    fixture_close(&fx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_gets_each_transfer_once),
        cmocka_unit_test(an_end_is_the_worst_of_all_ranks),
        cmocka_unit_test(answers_that_were_not_asked_for_are_dropped),
        cmocka_unit_test(a_damaged_answer_ends_the_replica),
        cmocka_unit_test(a_rank_that_never_answers_is_named_and_given_up),
        cmocka_unit_test(slow_copies_are_waited_for),
        cmocka_unit_test(a_lost_replica_voids_what_is_in_flight),
        cmocka_unit_test(ends_of_the_turn_of_the_loss_are_void),
        cmocka_unit_test(what_all_ranks_have_is_told),
        cmocka_unit_test(parents_come_first),
        cmocka_unit_test(lists_that_do_not_hold_together_are_not_used),
        cmocka_unit_test(blocks_are_saved_before_the_end),
        cmocka_unit_test(saving_is_bounded),
        cmocka_unit_test(block_times_are_those_of_the_slowest),
        cmocka_unit_test(reports_show_the_tiers),
    };
    return cmocka_run_group_tests(tests, fixture_log_open, fixture_log_close);
}
