/* test_scheduler_tiers.c - cached blocks move to host and disk and come back; by exact counts, on
 * the model that knows what every block and slot holds. */
#include "tests/unit/scheduler/sched_cases.h"

/* Computing is dear, copies are cheap. */
static struct spw_sched_config tiers(uint32_t host_blocks, uint32_t disk_blocks)
{
    struct spw_sched_config config = cases_base;
    config.kv_blocks = 32;
    config.host_blocks = host_blocks;
    config.disk_blocks = disk_blocks;
    config.transfers_max = 2;
    config.cost = (struct spw_sched_cost){
        .fixed_ns = 1000, .row_ps = 1000000, .host_block_ns = 10, .disk_block_ns = 50};
    return config;
}

/* Serves one prompt of the group to its end, all transfers with it. */
static void serve_one(struct model *model, uint64_t group, uint32_t prompt)
{
    model->now_ns += 10000;
    cases_ask(model, group, prompt, prompt, 1);
    cases_serve(model);
    for (int i = 0; i < 8; i++) { /* what is done in the background */
        model_transfers_end(model);
        model_plan_all(model);
    }
}

/* Whichever transfer is in flight first on replica 0 of this kind; -1: none. */
static int in_flight(const struct model *model, enum spw_sched_tier from, enum spw_sched_tier to)
{
    for (uint32_t i = 0; i < model->config.transfers_max; i++) {
        const struct model_transfer *transfer = &model->replicas[0].transfers[i];
        if (transfer->active && transfer->order.from == from && transfer->order.to == to)
            return (int)i;
    }
    return -1;
}

static uint64_t done(const struct model *model, enum spw_sched_tier from, enum spw_sched_tier to)
{
    return model->counts.transfers[from][to];
}

/* Twenty prompts of two whole blocks each: the device holds sixteen. */
static void serve_twenty(struct model *model)
{
    for (uint32_t group = 1; group <= 20; group++)
        serve_one(model, group, 9);
    model->now_ns += 10000;
}

static void the_host_keeps_what_the_device_drops(void **state)
{
    (void)state;
    const struct spw_sched_config config = tiers(64, 0);
    struct model *model = cases_begin(&config);
    serve_twenty(model);
    const struct spw_sched_totals totals = cases_totals(model);
    assert_int_equal(totals.prefill_tokens, 20 * 9);
    assert_int_equal(totals.host_blocks_total, 64);
    assert_int_equal(totals.evicted_blocks, 0); /* nothing was lost: all forty are somewhere */
    assert_true(totals.kv_blocks_cached + totals.host_blocks_used >= 40);
    assert_in_range(totals.host_blocks_used, 8, 40);
    assert_int_equal(done(model, SPW_SCHED_DEVICE, SPW_SCHED_HOST), totals.host_blocks_used);
    for (uint32_t group = 1; group <= 20; group++)
        assert_int_equal(cases_known(model, group, 9), 8);
    serve_one(model, 1, 9); /* brought back, one token computed */
    assert_int_equal(cases_totals(model).prefill_tokens, 20 * 9 + 1);
    assert_int_equal(done(model, SPW_SCHED_HOST, SPW_SCHED_DEVICE), 2);
    cases_finish(model);
}

static void computing_is_cheaper_than_a_slow_copy(void **state)
{
    (void)state;
    struct spw_sched_config config = tiers(64, 0);
    config.cost.host_block_ns = 1000000000;
    struct model *model = cases_begin(&config);
    serve_twenty(model);
    serve_one(model, 1, 9);
    assert_int_equal(done(model, SPW_SCHED_HOST, SPW_SCHED_DEVICE), 0);
    assert_int_equal(cases_totals(model).prefill_tokens, 21 * 9);
    cases_finish(model);
}

/* The first group's blocks lie on the host alone. */
static struct model *only_on_host(const struct spw_sched_config *config)
{
    struct model *model = cases_begin(config);
    serve_twenty(model);
    assert_int_equal(cases_known(model, 1, 9), 8);
    return model;
}

static void nobody_is_planned_before_its_blocks_are_there(void **state)
{
    (void)state;
    const struct spw_sched_config config = tiers(64, 0);
    struct model *model = only_on_host(&config);
    const uint64_t before = cases_totals(model).prefill_tokens;
    const uint32_t a = cases_ask(model, 1, 9, 9, 1);
    assert_int_equal(model->replicas[0].transfer_count, 2); /* started at once, both */
    assert_false(model_plan(model, 0));
    const uint32_t b = cases_ask(model, 40, 3, 3, 1); /* others are served meanwhile */
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 1);
    cases_expect_seq(model, 0, b, true, 0, 0, 3, 1);
    model_commit(model, 0);
    model_transfer_end(model, 0, (uint32_t)in_flight(model, SPW_SCHED_HOST, SPW_SCHED_DEVICE),
                       true);
    assert_false(model_plan(model, 0));
    model_transfer_end(model, 0, (uint32_t)in_flight(model, SPW_SCHED_HOST, SPW_SCHED_DEVICE),
                       true);
    assert_true(model_plan(model, 0));
    cases_expect_seq(model, 0, a, true, 8, 8, 1, 3);
    model_finish(model, 1000);
    assert_int_equal(cases_totals(model).prefill_tokens, before + 3 + 1);
    cases_finish(model);
}

/* What cannot be read is computed, and not asked for again. */
static void a_failed_load_is_computed(void **state)
{
    (void)state;
    for (uint32_t which = 0; which < 2; which++) {
        const struct spw_sched_config config = tiers(64, 0);
        struct model *model = only_on_host(&config);
        const uint64_t before = cases_totals(model).prefill_tokens;
        const uint32_t a = cases_ask(model, 1, 9, 9, 1);
        assert_int_equal(model->replicas[0].transfer_count, 2);
        for (uint32_t i = 0; i < 2; i++) { /* the block of this index is damaged */
            const int id = in_flight(model, SPW_SCHED_HOST, SPW_SCHED_DEVICE);
            assert_true(id >= 0);
            const uint32_t index = model->replicas[0].transfers[id].order.index;
            model_transfer_end(model, 0, (uint32_t)id, index != which);
        }
        assert_true(model_plan(model, 0));
        /* a later block is of no use without the one before it */
        cases_expect_seq(model, 0, a, true, which * 4, which * 4, 9 - which * 4, 3);
        model_finish(model, 1000);
        assert_int_equal(cases_totals(model).transfers_failed, 1);
        assert_int_equal(cases_totals(model).prefill_tokens, before + 9 - which * 4);
        assert_int_equal(cases_known(model, 1, 9), 8);
        cases_finish(model);
    }
}

/* Cancelled while its blocks are on their way: ends at once, the copies end later. */
static void cancelled_while_it_is_loaded(void **state)
{
    (void)state;
    const struct spw_sched_config config = tiers(64, 0);
    struct model *model = only_on_host(&config);
    const uint32_t a = cases_ask(model, 1, 9, 9, 1);
    assert_int_equal(model->replicas[0].transfer_count, 2);
    model_cancel(model, a, false);
    assert_int_equal(model->requests[a].ends, 1);
    /* somebody who needs nearly all blocks gets none of those that the copies write */
    const uint32_t b = cases_ask(model, 50, 116, 116, 1);
    for (uint32_t rounds = 0; !model_plan(model, 0); rounds++) { /* it waits for copies outwards */
        assert_true(rounds < 16);
        model_transfers_end(model);
    }
    assert_true(cases_planned(model, b));
    model_transfers_end(model);
    model_finish(model, 1000);
    assert_int_equal(model->requests[b].end, SPW_SCHED_END_FINISHED);
    assert_int_equal(cases_totals(model).kv_blocks_used, 0);
    cases_finish(model);
}

/* One prompt of two whole blocks, written to disk in the background; then the replica is lost and
 * comes back. */
static struct model *back_from_disk(void)
{
    struct spw_sched_config config = tiers(64, 64);
    config.replicas = 2; /* somebody has to be there meanwhile */
    struct model *model = cases_begin(&config);
    model_replica_drain(model, 1, true);
    serve_one(model, 1, 9);
    assert_int_equal(cases_totals(model).disk_blocks_used, 2);
    assert_int_equal(cases_totals(model).disk_blocks_total, 128);
    model_down(model, 0);
    assert_int_equal(cases_totals(model).disk_blocks_used, 0);
    assert_int_equal(cases_totals(model).disk_blocks_total, 64);
    assert_int_equal(cases_known(model, 1, 9), 0);
    model->find_all = true;
    model_up(model, 0);
    assert_int_equal(model->counts.disk_found, 2);
    assert_int_equal(cases_totals(model).disk_blocks_used, 2);
    assert_int_equal(cases_known(model, 1, 9), 8);
    return model;
}

static void the_disk_survives_the_replica(void **state)
{
    (void)state;
    struct model *model = back_from_disk();
    serve_one(model, 1, 9);
    assert_int_equal(done(model, SPW_SCHED_DISK, SPW_SCHED_DEVICE), 2);
    assert_int_equal(cases_totals(model).prefill_tokens, 9 + 1);
    cases_finish(model);
}

static void a_damaged_file_is_computed_again(void **state)
{
    (void)state;
    struct model *model = back_from_disk();
    for (uint32_t i = 0; i < 64; i++)
        model->replicas[0].stores[SPW_SCHED_DISK].damaged[i] = true;
    serve_one(model, 1, 9);
    assert_int_equal(done(model, SPW_SCHED_DISK, SPW_SCHED_DEVICE), 0);
    assert_int_equal(cases_totals(model).transfers_failed, 2);
    assert_int_equal(cases_totals(model).prefill_tokens, 9 + 9);
    serve_one(model, 1, 9); /* not asked for again: it is on the device */
    assert_int_equal(cases_totals(model).transfers_failed, 2);
    assert_int_equal(cases_totals(model).prefill_tokens, 9 + 9 + 1);
    cases_finish(model);
}

static void what_cannot_be_found_is_refused(void **state)
{
    (void)state;
    const struct spw_sched_config config = tiers(4, 4);
    struct model *model = model_create(&config, 1);
    const struct spw_sched_hash none = {0, 0}, a = {1, 2}, b = {3, 4}, c = {5, 6};
    assert_false(spw_sched_disk_found(model->sched, 0, 0, b, a, 1));    /* parent unknown */
    assert_false(spw_sched_disk_found(model->sched, 0, 4, a, none, 0)); /* out of range */
    assert_true(spw_sched_disk_found(model->sched, 0, 2, a, none, 0));
    assert_false(spw_sched_disk_found(model->sched, 0, 2, c, none, 0)); /* slot is taken */
    assert_false(spw_sched_disk_found(model->sched, 0, 1, a, none, 0)); /* known */
    assert_false(spw_sched_disk_found(model->sched, 0, 1, b, a, 2));    /* not what follows */
    assert_false(spw_sched_disk_found(model->sched, 0, 1, none, a, 1));
    assert_true(spw_sched_disk_found(model->sched, 0, 1, b, a, 1));
    spw_sched_check(model->sched);
    model_destroy(model);

    struct spw_sched_config off = config;
    off.disk_blocks = 0;
    model = model_create(&off, 1);
    assert_false(spw_sched_disk_found(model->sched, 0, 0, a, none, 0));
    model_destroy(model);
}

/* The younger is sent back for a block, its own are kept on the host and brought back. */
static struct model *preempt_one(const struct spw_sched_config *config, uint32_t *out_victim)
{
    struct model *model = cases_begin(config);
    const struct model_text text = cases_text(1, 8, 5, 8), other = cases_text(2, 9, 6, 9);
    cases_ask_text(model, 1, 8, 14, &text); /* 21 positions: all six blocks in the end */
    *out_victim = cases_ask_text(model, 1, 9, 6, &other);
    while (model->requests[*out_victim].preempted == 0) {
        assert_int_equal(model->live, 2);
        cases_turn(model, 0);
        model_transfers_end(model);
    }
    return model;
}

static void a_victim_is_swapped_when_that_is_cheaper(void **state)
{
    (void)state;
    struct spw_sched_config config = tiers(16, 0);
    config.kv_blocks = 6;
    config.context_tokens_max = 24;
    config.transfers_max = 8;
    uint32_t victim;
    struct model *model = preempt_one(&config, &victim);
    const uint32_t computed = 9 + model->requests[victim].emitted;
    assert_int_equal(cases_totals(model).swapped, 1);
    model_finish(model, 1000);
    assert_int_equal(cases_totals(model).preempted, 1);
    const uint32_t full = (computed - 1) / 4 * 4;
    assert_int_equal(cases_totals(model).prefill_tokens, 8 + 9 + computed - full);
    cases_finish(model);

    config.cost.host_block_ns = 1000000000; /* a copy takes far longer than computing */
    model = preempt_one(&config, &victim);
    assert_int_equal(cases_totals(model).swapped, 0);
    model_finish(model, 1000);
    assert_int_equal(done(model, SPW_SCHED_HOST, SPW_SCHED_DEVICE), 0);
    cases_finish(model);
}

/* Ids are free again when the replica is lost, and nothing of its copies is told. */
static void transfers_of_a_lost_replica_are_void(void **state)
{
    (void)state;
    struct spw_sched_config config = tiers(64, 0);
    config.replicas = 2;
    struct model *model = cases_begin(&config);
    model_replica_drain(model, 1, true);
    serve_twenty(model);
    const uint32_t a = cases_ask(model, 1, 9, 9, 1);
    assert_int_equal(model->replicas[0].transfer_count, 2);
    model_down(model, 0);
    assert_int_equal(model->counts.voided, 2);
    model_replica_drain(model, 1, false);
    assert_true(model_plan(model, 1));
    cases_expect_seq(model, 0, a, true, 0, 0, 9, 3);
    model_up(model, 0);
    model_replica_drain(model, 1, true);
    model_finish(model, 1000);
    serve_twenty(model);
    serve_one(model, 2, 9);
    assert_int_equal(model->counts.voided, 2);
    cases_finish(model);
}

/* A copy takes longer than to compute one of the first blocks, and not as long as one of the last:
 * without the first, the others on disk would be of no use. */
static void the_disk_has_beginnings_too(void **state)
{
    (void)state;
    struct spw_sched_config config = tiers(64, 64);
    config.replicas = 2;
    config.cost =
        (struct spw_sched_cost){.row_ps = 1, .prefill_context_ps = 1000, .host_block_ns = 30};
    struct model *model = cases_begin(&config);
    model_replica_drain(model, 1, true);
    serve_one(model, 1, 33);
    for (int i = 0; i < 16; i++) /* one at a time */
        model_transfers_end(model);
    assert_int_equal(cases_totals(model).disk_blocks_used, 8);
    model_down(model, 0);
    model->find_all = true;
    model_up(model, 0);
    assert_int_equal(model->counts.disk_found, 8);
    cases_finish(model);
}

/* Saves, then loses the replica and finds what is on its disk. */
static void save_and_restart(struct model *model)
{
    model_save(model, 0);
    const uint32_t used = cases_totals(model).disk_blocks_used;
    model_down(model, 0);
    model->find_all = true;
    const uint64_t before = model->counts.disk_found;
    model_up(model, 0);
    assert_int_equal(model->counts.disk_found - before, used); /* no block without its beginning */
}

/* Five prompts of eight blocks, of which copies have just begun; nothing of it was needed
 * elsewhere. Through a host of any size, all is on disk in the end. */
static void everything_is_saved_before_the_end(void **state)
{
    (void)state;
    for (uint32_t host = 1; host < 50; host = 2 * host + 1) {
        struct spw_sched_config config = tiers(host, 64);
        config.kv_blocks = 64;
        config.replicas = 2;
        struct model *model = cases_begin(&config);
        model_replica_drain(model, 1, true);
        for (uint32_t group = 1; group <= 5; group++) {
            cases_ask(model, group, 33, 33, 1);
            cases_serve(model);
        }
        assert_true(cases_totals(model).disk_blocks_used < 30);
        save_and_restart(model);
        for (uint32_t group = 1; group <= 5; group++)
            assert_int_equal(cases_known(model, group, 33), 32);
        cases_finish(model);
    }
}

/* A disk with less room than what there is: whole beginnings, and what was there before and is
 * worth less makes room. */
static void what_fits_is_saved(void **state)
{
    (void)state;
    struct spw_sched_config config = tiers(16, 12);
    config.evict = SPW_SCHED_EVICT_LRU;
    config.replicas = 2;
    struct model *model = cases_begin(&config);
    model_replica_drain(model, 1, true);
    serve_one(model, 1, 17); /* four blocks, on disk at once */
    save_and_restart(model);
    assert_int_equal(cases_totals(model).disk_blocks_used, 4);
    for (uint32_t group = 2; group <= 4; group++) {
        cases_ask(model, group, 17, 17, 1);
        cases_serve(model);
    }
    save_and_restart(model);
    assert_int_equal(cases_totals(model).disk_blocks_used, 12);
    for (uint32_t group = 2; group <= 4; group++)
        assert_int_equal(cases_known(model, group, 17), 16);
    assert_int_equal(cases_known(model, 1, 17), 0);
    for (uint32_t group = 5; group <= 8; group++) { /* sixteen blocks for twelve */
        cases_ask(model, group, 17, 17, 1);
        cases_serve(model);
    }
    save_and_restart(model);
    assert_int_equal(cases_totals(model).disk_blocks_used, 12);
    cases_finish(model);
}

/* Copies that fail are not tried again and do not hold the others up. */
static void saving_ends_when_copies_fail(void **state)
{
    (void)state;
    for (uint32_t every = 1; every < 5; every++) {
        struct spw_sched_config config = tiers(6, 64);
        struct model *model = cases_begin(&config);
        for (uint32_t group = 1; group <= 5; group++)
            cases_ask(model, group, 17, 17, 1);
        cases_serve(model);
        model_save(model, every);
        assert_true(cases_totals(model).transfers_failed > 0);
        model_save(model, 0);
        model_destroy(model);
    }
}

/* A full host drops what is worth least; whatever happens, the model's content holds. */
static void a_small_host_is_used_again_and_again(void **state)
{
    (void)state;
    for (uint32_t host = 1; host < 5; host++) {
        const struct spw_sched_config config = tiers(host, host > 2 ? 2 : 0);
        struct model *model = cases_begin(&config);
        for (uint32_t i = 0; i < 100; i++) {
            serve_one(model, i * 7 % 25, 5 + i % 13);
            assert_true(cases_totals(model).host_blocks_used <= host);
        }
        assert_true(done(model, SPW_SCHED_DEVICE, SPW_SCHED_HOST) > 0);
        cases_finish(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_keeps_what_the_device_drops),
        cmocka_unit_test(computing_is_cheaper_than_a_slow_copy),
        cmocka_unit_test(nobody_is_planned_before_its_blocks_are_there),
        cmocka_unit_test(a_failed_load_is_computed),
        cmocka_unit_test(cancelled_while_it_is_loaded),
        cmocka_unit_test(the_disk_survives_the_replica),
        cmocka_unit_test(a_damaged_file_is_computed_again),
        cmocka_unit_test(what_cannot_be_found_is_refused),
        cmocka_unit_test(a_victim_is_swapped_when_that_is_cheaper),
        cmocka_unit_test(transfers_of_a_lost_replica_are_void),
        cmocka_unit_test(a_small_host_is_used_again_and_again),
        cmocka_unit_test(the_disk_has_beginnings_too),
        cmocka_unit_test(everything_is_saved_before_the_end),
        cmocka_unit_test(what_fits_is_saved),
        cmocka_unit_test(saving_ends_when_copies_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
