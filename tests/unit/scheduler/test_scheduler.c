/* test_scheduler.c - each event and rule of the scheduler, by exact counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "scheduler/scheduler.h"

static const struct spw_sched_config base = {
    .replicas = 1,
    .requests_max = 16,
    .waiting_max = 8,
    .slots = 4,
    .block_tokens = 4,
    .kv_blocks = 16,
    .context_tokens_max = 64,
    .step_tokens_max = 16,
    .step_seqs_max = 4,
    .prefill_chunk_max = 8,
    .pipeline = 1,
    .tenants = 1,
};

struct fixture {
    struct spw_sched *sched;
    void *memory;
    struct spw_plan plan;
    struct spw_plan_seq seqs[64];
    uint32_t blocks[256];
    struct spw_sched_row rows[64];
};

static void start(struct fixture *f, const struct spw_sched_config *config, uint32_t up)
{
    const size_t bytes = spw_sched_bytes(config, NULL);
    assert_true(bytes > 0 && bytes % 64 == 0);
    f->memory = aligned_alloc(64, bytes);
    assert_non_null(f->memory);
    memset(f->memory, 0xee, bytes);
    f->sched = spw_sched_init(f->memory, config);
    f->plan.seqs = f->seqs;
    f->plan.blocks = f->blocks;
    memset(f->rows, 0, sizeof(f->rows));
    for (uint32_t i = 0; i < up; i++)
        spw_sched_replica_up(f->sched, 0, i);
}

static void stop(struct fixture *f)
{
    spw_sched_check(f->sched);
    free(f->memory);
}

static enum spw_sched_answer ask(struct fixture *f, uint64_t id, uint8_t priority, uint32_t prompt,
                                 uint32_t output, uint64_t deadline_ns, uint32_t *out_handle)
{
    const struct spw_sched_request request = {.id = id,
                                              .priority = priority,
                                              .prompt_tokens = prompt,
                                              .output_tokens_max = output,
                                              .deadline_ns = deadline_ns};
    const enum spw_sched_answer answer = spw_sched_submit(f->sched, 0, &request, out_handle);
    spw_sched_check(f->sched);
    return answer;
}

static uint32_t submit(struct fixture *f, uint64_t id, uint8_t priority, uint32_t prompt,
                       uint32_t output)
{
    uint32_t handle = SPW_SCHED_NONE;
    assert_int_equal(ask(f, id, priority, prompt, output, 0, &handle), SPW_SCHED_ACCEPTED);
    return handle;
}

static bool plan(struct fixture *f, uint32_t replica)
{
    const bool planned = spw_sched_plan(f->sched, 0, replica, &f->plan);
    spw_sched_check(f->sched);
    return planned;
}

static void commit(struct fixture *f, uint32_t replica, uint64_t step, uint32_t rows)
{
    spw_sched_commit(f->sched, 0, replica, step, f->rows, rows);
    spw_sched_check(f->sched);
}

static void expect_seq(const struct fixture *f, uint32_t i, uint32_t request, uint32_t position,
                       uint32_t rows, uint32_t block_begin, uint32_t block_count)
{
    assert_true(i < f->plan.seq_count);
    assert_int_equal(f->seqs[i].request, request);
    assert_int_equal(f->seqs[i].position, position);
    assert_int_equal(f->seqs[i].rows, rows);
    assert_int_equal(f->seqs[i].block_begin, block_begin);
    assert_int_equal(f->seqs[i].block_count, block_count);
}

static void expect_flags(const struct fixture *f, uint32_t i, bool open, bool sample, bool feedback)
{
    assert_int_equal(f->seqs[i].open, open);
    assert_int_equal(f->seqs[i].sample, sample);
    assert_int_equal(f->seqs[i].feedback, feedback);
}

static void expect_verdict(struct fixture *f, enum spw_sched_verdict_kind kind,
                           enum spw_sched_end end, uint64_t id)
{
    struct spw_sched_verdict verdict;
    assert_true(spw_sched_poll(f->sched, &verdict));
    assert_int_equal(verdict.kind, kind);
    assert_int_equal(verdict.id, id);
    if (kind == SPW_SCHED_ENDED)
        assert_int_equal(verdict.end, end);
    spw_sched_check(f->sched);
}

static void expect_quiet(struct fixture *f)
{
    struct spw_sched_verdict verdict;
    assert_false(spw_sched_poll(f->sched, &verdict));
}

static void expect_refused(const struct spw_sched_config *config, const char *name)
{
    const char *reason = NULL;
    assert_int_equal(spw_sched_bytes(config, &reason), 0);
    assert_non_null(reason);
    assert_non_null(strchr(reason, ':')); /* names come before what is allowed */
    assert_non_null(strstr(reason, name));
    assert_true(strstr(reason, name) < strchr(reason, ':'));
    assert_int_equal(spw_sched_bytes(config, NULL), 0);
}

static void config_out_of_range_names_the_field(void **state)
{
    (void)state;
    const struct {
        size_t offset;
        uint32_t low, high;
        const char *name;
    } fields[] = {
#define FIELD(name, low, high) {offsetof(struct spw_sched_config, name), low, high, #name}
        FIELD(replicas, 0, 65537),
        FIELD(requests_max, 0, (1u << 24) + 1),
        FIELD(waiting_max, 0, 17), /* requests_max is 16 */
        FIELD(slots, 0, 65537),
        FIELD(block_tokens, 0, 65537),
        FIELD(kv_blocks, 0, (1u << 24) + 1),
        FIELD(context_tokens_max, 1, (1u << 26) + 1),
        FIELD(step_tokens_max, 0, (1u << 20) + 1),
        FIELD(step_seqs_max, 0, 65537),
        FIELD(prefill_chunk_max, 0, 17), /* step_tokens_max is 16 */
        FIELD(pipeline, 0, 65),
        FIELD(tenants, SPW_SCHED_TENANTS_MAX + 1, UINT32_MAX),
        FIELD(prompt_weight, 1001, UINT32_MAX),
        FIELD(output_weight, 1001, UINT32_MAX),
        FIELD(batch_permille, 1001, UINT32_MAX),
#undef FIELD
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        for (int high = 0; high < 2; high++) {
            struct spw_sched_config config = base;
            memcpy((char *)&config + fields[i].offset, high ? &fields[i].high : &fields[i].low,
                   sizeof(uint32_t));
            expect_refused(&config, fields[i].name);
        }
    }
    struct spw_sched_config config = base;
    config.prefix = true;
    config.disk_blocks = 1;
    expect_refused(&config, "disk_blocks"); /* without host_blocks */
    config.host_blocks = 1;
    expect_refused(&config, "transfers_max"); /* 0 */
    config.transfers_max = 1;
    assert_true(spw_sched_bytes(&config, NULL) > 0);
}

static void plan_blocks_bound_is_exact(void **state)
{
    (void)state;
    struct spw_sched_config config = base;
    /* 16 rows in 4 sequences, blocks of 4: 13 + 1 + 1 + 1 rows need 4 + 1 + 1 + 1 */
    assert_int_equal(spw_sched_plan_blocks_max(&config), 7);
    config.kv_blocks = 5;
    assert_int_equal(spw_sched_plan_blocks_max(&config), 5);
    config = base;
    config.block_tokens = 1;
    assert_int_equal(spw_sched_plan_blocks_max(&config), 16);
    config = base;
    config.slots = 1;
    assert_int_equal(spw_sched_plan_blocks_max(&config), 4);
}

/* Prompt 10, 3 tokens: chunks of 8 and 2, two decode rows, 12 positions in 3 blocks. */
static void one_request_from_begin_to_end(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_totals totals;
    start(&f, &base, 1);
    assert_true(spw_sched_idle(f.sched));
    assert_int_equal(spw_sched_ready(f.sched), SPW_SCHED_NONE);
    const uint32_t a = submit(&f, 77, 1, 10, 3);
    assert_false(spw_sched_idle(f.sched));
    assert_int_equal(spw_sched_ready(f.sched), 0);

    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.step, 1);
    assert_int_equal(f.plan.seq_count, 1);
    assert_int_equal(f.plan.row_count, 8);
    assert_int_equal(f.plan.sample_count, 0);
    assert_int_equal(f.plan.block_count, 2);
    expect_seq(&f, 0, a, 0, 8, 0, 2);
    expect_flags(&f, 0, true, false, false);
    assert_int_equal(f.seqs[0].slot, 0);

    assert_true(plan(&f, 0)); /* the next chunk does not wait */
    assert_int_equal(f.plan.step, 2);
    expect_seq(&f, 0, a, 8, 2, 2, 1);
    expect_flags(&f, 0, false, true, false);
    assert_false(plan(&f, 0)); /* pipeline + 1 in flight */
    assert_int_equal(spw_sched_ready(f.sched), SPW_SCHED_NONE);

    commit(&f, 0, 1, 0);
    assert_true(plan(&f, 0)); /* one step ahead: its token is still in flight */
    assert_int_equal(f.plan.step, 3);
    expect_seq(&f, 0, a, 10, 1, 3, 0);
    expect_flags(&f, 0, false, true, true);

    f.rows[0].stop = false;
    commit(&f, 0, 2, 1);
    assert_int_equal(f.rows[0].request, a);
    assert_int_equal(f.rows[0].output_index, 0);
    assert_false(f.rows[0].last);
    assert_true(plan(&f, 0));
    expect_seq(&f, 0, a, 11, 1, 3, 0);
    expect_flags(&f, 0, false, true, true);
    commit(&f, 0, 3, 1);
    assert_int_equal(f.rows[0].output_index, 1);
    assert_false(plan(&f, 0)); /* three tokens are planned: never past the end */
    expect_quiet(&f);
    commit(&f, 0, 4, 1);
    assert_int_equal(f.rows[0].request, a);
    assert_int_equal(f.rows[0].output_index, 2);
    assert_true(f.rows[0].last);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_FINISHED, 77);
    expect_quiet(&f);
    assert_true(spw_sched_idle(f.sched));
    spw_sched_totals(f.sched, &totals);
    assert_int_equal(totals.accepted, 1);
    assert_int_equal(totals.finished, 1);
    assert_int_equal(totals.prefill_tokens, 10);
    assert_int_equal(totals.decode_tokens, 2);
    assert_int_equal(totals.steps, 4);
    assert_int_equal(totals.kv_blocks_used, 0);
    assert_int_equal(totals.kv_blocks_total, 16);
    assert_int_equal(totals.preempted, 0);
    stop(&f);
}

static void submit_answers(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.requests_max = 4;
    config.waiting_max = 2;
    config.slots = 1;
    config.context_tokens_max = 40;
    config.kv_blocks = 8; /* 32 positions */
    start(&f, &config, 0);
    uint32_t h = SPW_SCHED_NONE;
    assert_int_equal(ask(&f, 1, 0, 1, 1, 0, &h), SPW_SCHED_NO_REPLICA);
    spw_sched_replica_up(f.sched, 0, 0);
    assert_int_equal(ask(&f, 1, 0, 40, 1, 0, &h), SPW_SCHED_NEVER_FITS); /* context */
    assert_int_equal(ask(&f, 1, 0, UINT32_MAX, UINT32_MAX, 0, &h), SPW_SCHED_NEVER_FITS);
    assert_int_equal(ask(&f, 1, 0, 32, 2, 0, &h), SPW_SCHED_NEVER_FITS); /* 33 positions */
    assert_int_equal(h, SPW_SCHED_NONE);
    assert_int_equal(ask(&f, 1, 0, 32, 1, 0, &h), SPW_SCHED_ACCEPTED); /* 32 exactly */
    spw_sched_drain(f.sched, true);
    assert_int_equal(ask(&f, 2, 0, 1, 1, 0, &h), SPW_SCHED_DRAINING);
    spw_sched_drain(f.sched, false);
    submit(&f, 2, 0, 1, 1);
    submit(&f, 3, 0, 1, 1);
    assert_int_equal(ask(&f, 4, 0, 1, 1, 0, &h), SPW_SCHED_QUEUE_FULL);
    struct spw_sched_totals totals;
    spw_sched_totals(f.sched, &totals);
    assert_int_equal(totals.accepted, 3);
    assert_int_equal(totals.refused, 6);
    assert_int_equal(totals.waiting, 2);
    assert_int_equal(totals.running, 1);
    stop(&f);
}

/* Handles are bounded too, and free again only after ENDED was read. */
static void handles_are_bounded(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.requests_max = 2;
    config.waiting_max = 2;
    start(&f, &config, 1);
    const uint32_t a = submit(&f, 1, 0, 4, 4);
    submit(&f, 2, 0, 4, 4);
    uint32_t h = SPW_SCHED_NONE;
    assert_int_equal(ask(&f, 3, 0, 4, 4, 0, &h), SPW_SCHED_QUEUE_FULL);
    spw_sched_cancel(f.sched, 0, a, false);
    assert_int_equal(ask(&f, 3, 0, 4, 4, 0, &h), SPW_SCHED_QUEUE_FULL);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_CANCELLED, 1);
    assert_int_equal(ask(&f, 3, 0, 4, 4, 0, &h), SPW_SCHED_ACCEPTED);
    assert_int_equal(h, a);
    stop(&f);
}

static void priority_then_age(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.slots = 1;
    start(&f, &config, 1);
    submit(&f, 1, 1, 4, 1);
    submit(&f, 2, 1, 4, 1);
    submit(&f, 3, 1, 4, 1);
    submit(&f, 4, 0, 4, 1);
    submit(&f, 5, 0, 4, 1);
    const uint64_t order[5] = {1, 4, 5, 2, 3}; /* 1 had the slot when the others came */
    for (uint64_t i = 0; i < 5; i++) {
        assert_true(plan(&f, 0));
        assert_int_equal(f.plan.seq_count, 1);
        commit(&f, 0, i + 1, 1);
        assert_true(f.rows[0].last);
        expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_FINISHED, order[i]);
    }
    assert_true(spw_sched_idle(f.sched));
    stop(&f);
}

/* Two decode rows first, then chunks until 16 rows are there. */
static void decode_first_then_chunks_fill_the_budget(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, &base, 1);
    const uint32_t a = submit(&f, 1, 1, 2, 8);
    const uint32_t b = submit(&f, 2, 1, 3, 8);
    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.row_count, 5);
    const uint32_t c = submit(&f, 3, 1, 20, 2);
    const uint32_t d = submit(&f, 4, 0, 7, 2);
    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.seq_count, 4);
    assert_int_equal(f.plan.row_count, 16);
    assert_int_equal(f.plan.sample_count, 3);
    expect_seq(&f, 0, a, 2, 1, 1, 0);
    expect_flags(&f, 0, false, true, true);
    expect_seq(&f, 1, b, 3, 1, 1, 0);
    expect_seq(&f, 2, d, 0, 7, 0, 2); /* priority 0 before the older one */
    expect_flags(&f, 2, true, true, false);
    expect_seq(&f, 3, c, 0, 7, 0, 2); /* 16 - 2 - 7 */
    expect_flags(&f, 3, true, false, false);
    assert_int_equal(f.seqs[0].block_offset, 0);
    assert_int_equal(f.seqs[3].block_offset, 2);
    commit(&f, 0, 1, 2);
    assert_int_equal(f.rows[1].request, b);
    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.seq_count, 4);
    expect_seq(&f, 3, c, 7, 8, 2, 2);
    stop(&f);
}

static void stop_discards_what_was_planned_ahead(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_replica_totals totals;
    start(&f, &base, 1);
    const uint32_t a = submit(&f, 5, 0, 4, 9);
    assert_true(plan(&f, 0));
    assert_true(plan(&f, 0));
    assert_int_equal(f.seqs[0].feedback, 1);
    f.rows[0].stop = true;
    commit(&f, 0, 1, 1);
    assert_int_equal(f.rows[0].request, a);
    assert_true(f.rows[0].last);
    expect_quiet(&f);                       /* a row of it is in flight */
    spw_sched_cancel(f.sched, 0, a, false); /* too late: it has finished */
    expect_quiet(&f);
    spw_sched_replica_totals(f.sched, 0, &totals);
    assert_true(totals.up);
    assert_int_equal(totals.running, 1);
    assert_int_equal(totals.kv_blocks_used, 2);
    assert_int_equal(totals.steps_in_flight, 1);
    assert_false(plan(&f, 0));
    f.rows[0].stop = false;
    commit(&f, 0, 2, 1);
    assert_int_equal(f.rows[0].request, SPW_SCHED_NONE);
    assert_false(f.rows[0].last);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_FINISHED, 5);
    spw_sched_replica_totals(f.sched, 0, &totals);
    assert_int_equal(totals.running, 0);
    assert_int_equal(totals.kv_blocks_used, 0);
    assert_int_equal(totals.steps_planned, 2);
    assert_int_equal(totals.steps_committed, 2);
    stop(&f);
}

static void cancel_waiting_running_and_in_flight(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.slots = 2;
    start(&f, &config, 1);
    const uint32_t a = submit(&f, 1, 0, 4, 9);
    const uint32_t b = submit(&f, 2, 0, 4, 9);
    const uint32_t c = submit(&f, 3, 0, 4, 9);
    spw_sched_cancel(f.sched, 0, c, false); /* waits */
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_CANCELLED, 3);
    spw_sched_cancel(f.sched, 0, b, true); /* has a slot, nothing in flight */
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_FINISHED, 2);
    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.seq_count, 1);
    spw_sched_cancel(f.sched, 0, a, false); /* in flight */
    spw_sched_cancel(f.sched, 0, a, true);  /* twice: the first counts */
    expect_quiet(&f);
    assert_false(plan(&f, 0));
    commit(&f, 0, 1, 1);
    assert_int_equal(f.rows[0].request, SPW_SCHED_NONE);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_CANCELLED, 1);
    struct spw_sched_totals totals;
    spw_sched_totals(f.sched, &totals);
    assert_int_equal(totals.cancelled, 2);
    assert_int_equal(totals.finished, 1);
    assert_true(spw_sched_idle(f.sched));
    stop(&f);
}

static void placed_where_most_blocks_are_free(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.replicas = 3;
    start(&f, &config, 2);   /* the third is down */
    submit(&f, 1, 0, 8, 2);  /* 2 blocks on 0 */
    submit(&f, 2, 0, 4, 2);  /* 1 block on 1 */
    submit(&f, 3, 0, 12, 2); /* 3 blocks on 1 */
    submit(&f, 4, 0, 1, 2);  /* on 0 */
    assert_int_equal(spw_sched_ready(f.sched), 0);
    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.seq_count, 2);
    assert_int_equal(f.plan.row_count, 9);
    assert_int_equal(spw_sched_ready(f.sched), 1); /* taken in turn */
    assert_true(plan(&f, 1));
    assert_int_equal(f.plan.replica, 1);
    assert_int_equal(f.plan.row_count, 12);
    assert_false(plan(&f, 2));
    stop(&f);
}

/* Block ids of 4 blocks: the older needs the fourth block, so the younger goes back with its two
 * tokens, and later prefills prompt and output together. */
static void preempts_the_youngest_and_resumes_it(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.kv_blocks = 4;
    config.context_tokens_max = 17;
    start(&f, &config, 1);
    const uint32_t a = submit(&f, 1, 1, 4, 10);
    const uint32_t b = submit(&f, 2, 1, 3, 5);
    assert_true(plan(&f, 0)); /* 4 + 3 rows, 2 blocks */
    commit(&f, 0, 1, 2);
    assert_true(plan(&f, 0)); /* a at 4: its second block; b at 3 */
    assert_int_equal(f.plan.block_count, 1);
    commit(&f, 0, 2, 2);
    for (uint32_t i = 0; i < 3; i++) { /* a to 7, b to 6; b takes the fourth block */
        assert_true(plan(&f, 0));
        assert_int_equal(f.plan.seq_count, 2);
        assert_int_equal(f.plan.block_count, i == 0);
        commit(&f, 0, 3 + i, 2);
    }
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_FINISHED, 2); /* five tokens */
    const uint32_t c = submit(&f, 3, 1, 4, 5);
    assert_true(plan(&f, 0));
    expect_seq(&f, 0, a, 8, 1, 2, 1);
    expect_seq(&f, 1, c, 0, 4, 0, 1);
    assert_int_not_equal(c, b);
    commit(&f, 0, 6, 2);
    for (uint32_t i = 0; i < 3; i++) { /* a 9..11 in its third block; c 4..6 has none: goes back */
        assert_true(plan(&f, 0));
        assert_int_equal(f.plan.seq_count, 1);
        expect_seq(&f, 0, a, 9 + i, 1, 3, 0);
        if (i == 0)
            expect_verdict(&f, SPW_SCHED_PREEMPTED, SPW_SCHED_END_FINISHED, 3);
        expect_quiet(&f);
        commit(&f, 0, 7 + i, 1);
    }
    assert_true(plan(&f, 0)); /* a's last row, position 12, takes the block that c gave back */
    expect_seq(&f, 0, a, 12, 1, 3, 1);
    assert_int_equal(f.plan.seq_count, 1);
    commit(&f, 0, 10, 1);
    assert_true(f.rows[0].last);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_FINISHED, 1);
    assert_true(plan(&f, 0)); /* c again: 4 of the prompt and 1 of its output */
    expect_seq(&f, 0, c, 0, 5, 0, 2);
    expect_flags(&f, 0, true, true, false);
    commit(&f, 0, 11, 1);
    assert_int_equal(f.rows[0].request, c);
    assert_int_equal(f.rows[0].output_index, 1);
    struct spw_sched_totals totals;
    spw_sched_totals(f.sched, &totals);
    assert_int_equal(totals.preempted, 1);
    stop(&f);
}

/* The victim has a row in flight: it leaves when that has committed, and the token counts. */
static void preempts_after_what_is_in_flight(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.kv_blocks = 4;
    config.block_tokens = 2;
    config.context_tokens_max = 9;
    start(&f, &config, 1);
    const uint32_t a = submit(&f, 1, 0, 2, 6);
    const uint32_t b = submit(&f, 2, 1, 2, 6);
    assert_true(plan(&f, 0)); /* both prompts: a has 1, b has 1 */
    assert_true(plan(&f, 0)); /* both at 2: 2 and 2; full */
    assert_int_equal(f.plan.seq_count, 2);
    commit(&f, 0, 1, 2);
    assert_true(plan(&f, 0)); /* both at 3 */
    commit(&f, 0, 2, 2);
    assert_false(plan(&f, 0)); /* a at 4 needs b's blocks; b is in flight */
    expect_quiet(&f);
    commit(&f, 0, 3, 2);
    assert_int_equal(f.rows[1].request, b);
    assert_int_equal(f.rows[1].output_index, 2);
    expect_verdict(&f, SPW_SCHED_PREEMPTED, SPW_SCHED_END_FINISHED, 2);
    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.seq_count, 1);
    expect_seq(&f, 0, a, 4, 1, 2, 1);
    expect_flags(&f, 0, false, true, false);
    stop(&f);
}

/* P = 2, four sequences: two in each step, the third step feeds back the first. */
static void pipeline_splits_the_decoding(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.pipeline = 2;
    start(&f, &config, 1);
    uint32_t h[4];
    for (uint32_t i = 0; i < 4; i++)
        h[i] = submit(&f, i, 1, 2, 10);
    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.seq_count, 4);
    commit(&f, 0, 1, 4);
    for (uint32_t step = 2; step < 8; step++) {
        assert_true(plan(&f, 0));
        assert_int_equal(f.plan.step, step);
        assert_int_equal(f.plan.seq_count, 2);
        const uint32_t first = step % 2 ? 2 : 0;
        assert_int_equal(f.seqs[0].request, h[first]);
        assert_int_equal(f.seqs[1].request, h[first + 1]);
        assert_int_equal(f.seqs[0].position, 2 + (step - 2) / 2);
        assert_int_equal(f.seqs[0].feedback, step >= 4);
        if (step >= 4) { /* three in flight */
            assert_false(plan(&f, 0));
            commit(&f, 0, step - 2, 2);
        }
    }
    stop(&f);
}

/* P = 3, one sequence: rather a row that waits in the pipeline than an empty step, but never more
 * than two tokens ahead. */
static void pipeline_alone(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.pipeline = 3;
    start(&f, &config, 1);
    submit(&f, 1, 1, 2, 10);
    assert_true(plan(&f, 0));
    assert_true(plan(&f, 0));
    assert_int_equal(f.seqs[0].feedback, 1);
    assert_false(plan(&f, 0));
    commit(&f, 0, 1, 1);
    assert_true(plan(&f, 0));
    assert_int_equal(f.seqs[0].position, 3);
    assert_int_equal(f.seqs[0].feedback, 1);
    assert_false(plan(&f, 0));
    stop(&f);
}

static void deadlines(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.slots = 1;
    start(&f, &config, 1);
    uint32_t h;
    assert_int_equal(spw_sched_expire(f.sched, 5), UINT64_MAX);
    assert_int_equal(ask(&f, 1, 0, 4, 2, 10, &h), SPW_SCHED_ACCEPTED); /* runs */
    assert_int_equal(spw_sched_expire(f.sched, 5), UINT64_MAX);
    assert_int_equal(ask(&f, 2, 0, 4, 2, 30, &h), SPW_SCHED_ACCEPTED);
    assert_int_equal(ask(&f, 3, 0, 4, 2, 20, &h), SPW_SCHED_ACCEPTED);
    assert_int_equal(ask(&f, 4, 0, 4, 2, 20, &h), SPW_SCHED_ACCEPTED);
    assert_int_equal(ask(&f, 5, 0, 4, 2, 0, &h), SPW_SCHED_ACCEPTED);
    assert_int_equal(spw_sched_expire(f.sched, 19), 20);
    expect_quiet(&f);
    assert_int_equal(spw_sched_expire(f.sched, 20), 30);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_EXPIRED, 3);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_EXPIRED, 4);
    expect_quiet(&f);
    assert_true(plan(&f, 0));
    f.rows[0].stop = true;
    commit(&f, 0, 1, 1); /* 1 is over, 2 runs */
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_FINISHED, 1);
    assert_int_equal(spw_sched_expire(f.sched, 99), UINT64_MAX);
    expect_quiet(&f);
    struct spw_sched_totals totals;
    spw_sched_totals(f.sched, &totals);
    assert_int_equal(totals.expired, 2);
    stop(&f);
}

static void lost_replica_gives_its_requests_back_in_order(void **state)
{
    (void)state;
    struct fixture f;
    struct spw_sched_config config = base;
    config.replicas = 2;
    config.slots = 2;
    start(&f, &config, 1);
    const uint32_t a = submit(&f, 1, 1, 4, 4);
    const uint32_t b = submit(&f, 2, 1, 4, 4);
    submit(&f, 3, 1, 4, 4);
    assert_true(plan(&f, 0));
    commit(&f, 0, 1, 2); /* one token each */
    assert_true(plan(&f, 0));
    assert_true(plan(&f, 0));
    spw_sched_cancel(f.sched, 0, b, false);    /* in flight when the replica goes */
    spw_sched_replica_up(f.sched, 0, 1);       /* takes 3 */
    const uint32_t d = submit(&f, 4, 1, 4, 4); /* and 4 */
    spw_sched_replica_down(f.sched, 0, 0);
    spw_sched_check(f.sched);
    expect_verdict(&f, SPW_SCHED_PREEMPTED, SPW_SCHED_END_FINISHED, 1);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_CANCELLED, 2);
    expect_quiet(&f);
    const uint32_t e = submit(&f, 5, 1, 4, 4);
    assert_false(plan(&f, 0));
    spw_sched_replica_up(f.sched, 0, 0);
    assert_true(plan(&f, 0));
    assert_int_equal(f.plan.step, 4); /* numbers go on */
    assert_int_equal(f.plan.seq_count, 2);
    expect_seq(&f, 0, a, 0, 5, 0, 2); /* prompt and its token; what was in flight is recomputed */
    expect_flags(&f, 0, true, true, false);
    expect_seq(&f, 1, e, 0, 4, 0, 1);
    commit(&f, 0, 4, 2);
    assert_int_equal(f.rows[0].output_index, 1);

    spw_sched_replica_down(f.sched, 0, 1);
    expect_verdict(&f, SPW_SCHED_PREEMPTED, SPW_SCHED_END_FINISHED, 3);
    expect_verdict(&f, SPW_SCHED_PREEMPTED, SPW_SCHED_END_FINISHED, 4);
    spw_sched_cancel(f.sched, 0, d, false);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_CANCELLED, 4);
    spw_sched_replica_down(f.sched, 0, 0); /* the last one */
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_NO_REPLICA, 1);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_NO_REPLICA, 5);
    expect_verdict(&f, SPW_SCHED_ENDED, SPW_SCHED_END_NO_REPLICA, 3);
    expect_quiet(&f);
    assert_true(spw_sched_idle(f.sched));
    stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_out_of_range_names_the_field),
        cmocka_unit_test(plan_blocks_bound_is_exact),
        cmocka_unit_test(one_request_from_begin_to_end),
        cmocka_unit_test(submit_answers),
        cmocka_unit_test(handles_are_bounded),
        cmocka_unit_test(priority_then_age),
        cmocka_unit_test(decode_first_then_chunks_fill_the_budget),
        cmocka_unit_test(stop_discards_what_was_planned_ahead),
        cmocka_unit_test(cancel_waiting_running_and_in_flight),
        cmocka_unit_test(placed_where_most_blocks_are_free),
        cmocka_unit_test(preempts_the_youngest_and_resumes_it),
        cmocka_unit_test(preempts_after_what_is_in_flight),
        cmocka_unit_test(pipeline_splits_the_decoding),
        cmocka_unit_test(pipeline_alone),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(lost_replica_gives_its_requests_back_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
