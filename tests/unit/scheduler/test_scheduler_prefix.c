/* test_scheduler_prefix.c - computed blocks are shared by hash: by exact counts, on the model that
 * knows what every block holds. */
#include "tests/unit/scheduler/sched_cases.h"

/* The blocks are in the index as soon as they are planned: the step after may read them. */
static void the_next_step_shares_what_is_in_flight(void **state)
{
    (void)state;
    struct model *model = cases_begin(&cases_base);
    const uint32_t a = cases_ask(model, 1, 8, 10, 4);
    assert_true(model_plan(model, 0));
    cases_expect_seq(model, 0, a, true, 0, 0, 10, 3);
    const uint32_t first = model->plan.blocks[0], second = model->plan.blocks[1];
    const uint32_t b = cases_ask(model, 1, 8, 11, 4);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 2);
    cases_expect_seq(model, 1, b, true, 8, 8, 3, 3); /* two taken, one new */
    assert_int_equal(model->plan.seqs[1].block_begin, 0);
    const uint32_t *blocks = model->plan.blocks + model->plan.seqs[1].block_offset;
    assert_int_equal(blocks[0], first);
    assert_int_equal(blocks[1], second);
    assert_int_equal(cases_totals(model).kv_blocks_used, 4);
    assert_int_equal(cases_totals(model).prompt_tokens, 21);
    assert_int_equal(cases_totals(model).cached_tokens, 8);
    model_finish(model, 100000);
    assert_int_equal(cases_totals(model).prefill_tokens, 10 + 3);
    /* a wrote 13 positions and b 14: three full blocks each, of which they share two */
    assert_int_equal(cases_totals(model).kv_blocks_cached, 4);
    model_destroy(model);
}

/* At least one token is computed, as somebody has to sample from it. */
static void one_token_is_always_computed(void **state)
{
    (void)state;
    const struct {
        uint32_t prompt, cached;
    } cases[] = {{4, 0}, {5, 4}, {8, 4}, {9, 8}, {12, 8}, {13, 12}, {16, 12}, {3, 0}, {1, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct model *model = cases_begin(&cases_base);
        cases_ask(model, 1, 20, 20, 1);
        assert_true(model_plan(model, 0));
        model_commit(model, 0);
        assert_int_equal(cases_known(model, 1, cases[i].prompt), cases[i].cached);
        const uint32_t b = cases_ask(model, 1, cases[i].prompt, cases[i].prompt, 1);
        assert_true(model_plan(model, 0));
        cases_expect_seq(model, 0, b, true, cases[i].cached, cases[i].cached,
                         cases[i].prompt - cases[i].cached, (cases[i].prompt + 3) / 4);
        cases_finish(model);
    }
}

/* Two that come together: the second waits a step and shares, and keeps nobody behind it. */
static void the_same_step_computes_a_block_once(void **state)
{
    (void)state;
    struct model *model = cases_begin(&cases_base);
    const uint32_t a = cases_ask(model, 1, 9, 9, 2);
    const uint32_t b = cases_ask(model, 1, 9, 9, 2);
    const uint32_t c = cases_ask(model, 2, 9, 9, 2);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 2);
    cases_expect_seq(model, 0, a, true, 0, 0, 9, 3);
    cases_expect_seq(model, 1, c, true, 0, 0, 9, 3);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 3);
    cases_expect_seq(model, 2, b, true, 8, 8, 1, 3);
    model_finish(model, 100000);
    assert_int_equal(cases_totals(model).prefill_tokens, 9 + 9 + 1);
    model_destroy(model);
}

/* What they do not share does not wait: a block that is not full has no hash. */
static void different_words_do_not_wait(void **state)
{
    (void)state;
    struct model *model = cases_begin(&cases_base);
    cases_ask(model, 1, 3, 9, 2); /* three words in common, blocks of four */
    cases_ask(model, 1, 3, 9, 2);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 2);
    assert_int_equal(model->plan.row_count, 18);
    model_finish(model, 100000);
    assert_int_equal(cases_totals(model).cached_tokens, 0);
    model_destroy(model);
}

/* b runs and is in the middle of its prompt when a, of higher priority, overtakes it with the same
 * words: b takes what a has computed. */
static void a_running_prefill_adopts_blocks(void **state)
{
    (void)state;
    struct spw_sched_config config = cases_base;
    config.prefill_chunk_max = 8;
    config.step_tokens_max = 12;
    struct model *model = cases_begin(&config);
    const struct model_text text = cases_text(1, 32, 5, 33);
    const uint32_t b = cases_ask_text(model, 1, 33, 1, &text);
    assert_true(model_plan(model, 0));
    cases_expect_seq(model, 0, b, true, 0, 0, 8, 2);
    const uint32_t a = cases_ask_text(model, 0, 33, 1, &text);
    model_commit(model, 0);
    assert_true(model_plan(model, 0)); /* a has b's first blocks and goes on; b waits for them */
    assert_int_equal(model->plan.seq_count, 1);
    cases_expect_seq(model, 0, a, true, 8, 8, 8, 4);
    model_commit(model, 0);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 1);
    cases_expect_seq(model, 0, a, false, 0, 16, 8, 2);
    model_commit(model, 0);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 1);
    cases_expect_seq(model, 0, a, false, 0, 24, 8, 2);
    model_commit(model, 0);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.seq_count, 2);
    cases_expect_seq(model, 0, a, false, 0, 32, 1, 1);
    cases_expect_seq(model, 1, b, false, 24, 32, 1, 7); /* six taken over, one new */
    model_finish(model, 100000);
    assert_int_equal(cases_totals(model).prefill_tokens, 33 + 1);
    model_destroy(model);
}

/* The count: 16 requests share 400 tokens; these are computed once. */
static void sixteen_share_four_hundred_tokens(void **state)
{
    (void)state;
    const struct {
        uint32_t step_tokens, chunk, pipeline, slots, together;
    } cases[] = {
        {64, 64, 1, 16, 16}, {512, 512, 1, 16, 16}, {2048, 512, 1, 16, 16}, {100, 30, 3, 16, 16},
        {64, 64, 1, 4, 16},  {512, 512, 4, 5, 16},  {128, 100, 1, 16, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct spw_sched_config config = cases_base;
        config.block_tokens = 16;
        config.kv_blocks = 200;
        config.context_tokens_max = 512;
        config.slots = cases[i].slots;
        config.step_seqs_max = 16;
        config.step_tokens_max = cases[i].step_tokens;
        config.prefill_chunk_max = cases[i].chunk;
        config.pipeline = cases[i].pipeline;
        struct model *model = cases_begin(&config);
        for (uint32_t j = 0; j < 16; j++) {
            cases_ask(model, 9, 400, 420, 8);
            if ((j + 1) % cases[i].together == 0) {
                model_plan_all(model);
                model_commit(model, 0);
            }
        }
        model_finish(model, 100000);
        assert_int_equal(cases_totals(model).prefill_tokens, 400 + 16 * 20);
        assert_int_equal(cases_totals(model).prompt_tokens, 16 * 420);
        assert_int_equal(cases_totals(model).cached_tokens, 15 * 400);
        assert_int_equal(cases_totals(model).preempted, 0);
        model_destroy(model);
    }
}

/* A conversation's next turn has the answer's blocks as well, if their tokens were told. */
static void the_next_turn_finds_the_answer(void **state)
{
    (void)state;
    for (uint32_t told = 0; told < 2; told++) {
        struct model *model = cases_begin(&cases_base);
        model->tell_every = told;
        struct model_text text = cases_text(1, 10, 5, 10);
        cases_ask_text(model, 1, 10, 7, &text);
        cases_serve(model);
        /* 16 positions are written: the last token never is */
        assert_int_equal(cases_totals(model).kv_blocks_cached, told ? 4 : 2);
        text.seeds[1] = text.answer;
        text.until[1] = 17;
        text.seeds[2] = 77;
        text.until[2] = 21;
        text.count = 3;
        const uint32_t b = cases_ask_text(model, 1, 21, 1, &text);
        assert_true(model_plan(model, 0));
        cases_expect_seq(model, 0, b, true, told ? 16 : 8, told ? 16 : 8, told ? 5 : 13, 6);
        cases_finish(model);
    }
}

static void another_salt_shares_nothing(void **state)
{
    (void)state;
    struct model *model = cases_begin(&cases_base);
    struct model_text text = cases_text(1, 16, 5, 17);
    cases_ask_text(model, 1, 17, 1, &text);
    model_plan_all(model);
    model_commit(model, 0);
    text.salt = 2;
    const uint32_t b = cases_ask_text(model, 1, 17, 1, &text);
    assert_true(model_plan(model, 0));
    cases_expect_seq(model, 0, b, true, 0, 0, 17, 5);
    model_finish(model, 100000);
    assert_int_equal(cases_totals(model).cached_tokens, 0);
    model_destroy(model);
}

static void without_index_nothing_is_kept(void **state)
{
    (void)state;
    struct spw_sched_config config = cases_base;
    config.prefix = false;
    struct model *model = cases_begin(&config);
    cases_ask(model, 1, 16, 17, 1);
    cases_ask(model, 1, 16, 17, 1);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.row_count, 34);
    model_commit(model, 0);
    assert_int_equal(cases_totals(model).kv_blocks_cached, 0);
    assert_int_equal(cases_totals(model).kv_blocks_used, 0);
    cases_ask(model, 1, 16, 17, 1);
    assert_true(model_plan(model, 0));
    assert_int_equal(model->plan.row_count, 17);
    model_finish(model, 100000);
    assert_int_equal(cases_totals(model).prefill_tokens, 51);
    model_destroy(model);
}

/* Six blocks: two prompts of two whole blocks stay; a third needs two of them. */
static struct model *fill_six(enum spw_sched_evict evict, uint32_t uses_of_first)
{
    struct spw_sched_config config = cases_base;
    config.kv_blocks = 6;
    config.evict = evict;
    config.cost = (struct spw_sched_cost){.fixed_ns = 1000, .row_ps = 1000000};
    struct model *model = cases_begin(&config);
    for (uint32_t i = 0; i < uses_of_first + 1; i++) {
        model->now_ns += 1000;
        cases_ask(model, i < uses_of_first ? 1 : 2, 9, 9, 1);
        model_plan_all(model);
        model_commit(model, 0);
    }
    assert_int_equal(cases_totals(model).kv_blocks_cached, 4);
    assert_int_equal(cases_totals(model).kv_blocks_used, 0);
    assert_int_equal(cases_known(model, 1, 9), 8);
    assert_int_equal(cases_known(model, 2, 9), 8);
    model->now_ns += 1000;
    return model;
}

static void the_longest_unused_goes_first(void **state)
{
    (void)state;
    struct model *model = fill_six(SPW_SCHED_EVICT_LRU, 3);
    cases_ask(model, 3, 13, 13, 1);
    assert_true(model_plan(model, 0)); /* nobody waits for cached blocks */
    assert_int_equal(model->plan.row_count, 13);
    assert_int_equal(cases_totals(model).evicted_blocks, 2);
    assert_int_equal(cases_totals(model).kv_blocks_used, 4);
    model_finish(model, 100);
    assert_int_equal(cases_known(model, 1, 9), 0);
    assert_int_equal(cases_known(model, 2, 9), 8);
    cases_finish(model);
}

/* A block never outlives what it follows: the deeper goes first. */
static void the_end_of_a_chain_goes_first(void **state)
{
    (void)state;
    for (int evict = 0; evict < 2; evict++) {
        struct model *model = fill_six((enum spw_sched_evict)evict, 1);
        cases_ask(model, 3, 9, 9, 1);
        assert_true(model_plan(model, 0));
        assert_int_equal(cases_totals(model).evicted_blocks, 1);
        model_finish(model, 100);
        const uint32_t left = cases_known(model, 1, 9) + cases_known(model, 2, 9);
        assert_int_equal(left, 12);
        if (evict == SPW_SCHED_EVICT_LRU)
            assert_int_equal(cases_known(model, 1, 9), 4);
        cases_finish(model);
    }
}

/* By cost, what was asked for often stays, though something else was used later. */
static void what_is_asked_for_stays(void **state)
{
    (void)state;
    struct model *model = fill_six(SPW_SCHED_EVICT_COST, 6);
    cases_ask(model, 3, 13, 13, 1);
    assert_true(model_plan(model, 0));
    assert_int_equal(cases_totals(model).evicted_blocks, 2);
    model_finish(model, 100);
    assert_int_equal(cases_known(model, 1, 9), 8);
    assert_int_equal(cases_known(model, 2, 9), 0);
    cases_finish(model);
}

/* Cached blocks count as room: a request that needs every block is placed at once. */
static void cached_blocks_keep_nobody_waiting(void **state)
{
    (void)state;
    struct spw_sched_config config = cases_base;
    config.kv_blocks = 8;
    config.context_tokens_max = 33;
    struct model *model = cases_begin(&config);
    cases_ask(model, 1, 28, 29, 2);
    cases_serve(model);
    assert_int_equal(cases_totals(model).kv_blocks_cached, 7);
    const uint32_t b = cases_ask(model, 2, 28, 32, 1);
    assert_true(model_plan(model, 0));
    cases_expect_seq(model, 0, b, true, 0, 0, 32, 8);
    assert_int_equal(cases_totals(model).evicted_blocks, 7);
    assert_int_equal(cases_totals(model).kv_blocks_used, 8);
    assert_int_equal(cases_totals(model).kv_blocks_cached, 0);
    cases_finish(model);
}

/* The writer goes away while its step is in flight; the reader holds on to the blocks. */
static void the_reader_outlives_the_writer(void **state)
{
    (void)state;
    struct model *model = cases_begin(&cases_base);
    const uint32_t a = cases_ask(model, 1, 8, 10, 8);
    assert_true(model_plan(model, 0));
    const uint32_t b = cases_ask(model, 1, 8, 10, 4);
    model_cancel(model, a, false);
    assert_true(model_plan(model, 0));
    cases_expect_seq(model, 0, b, true, 8, 8, 2, 3);
    assert_int_equal(cases_totals(model).kv_blocks_used, 4);
    model_commit(model, 0);
    assert_int_equal(model->requests[a].ends, 1);
    assert_int_equal(cases_totals(model).kv_blocks_used, 3);
    model_finish(model, 100000);
    assert_int_equal(cases_totals(model).prefill_tokens, 12);
    model_destroy(model);
}

/* Five blocks of four: the older takes the last, the younger is sent back and finds its first block
 * again. */
static void a_preempted_request_takes_its_blocks_up_again(void **state)
{
    (void)state;
    struct spw_sched_config config = cases_base;
    config.kv_blocks = 5;
    config.context_tokens_max = 21;
    struct model *model = cases_begin(&config);
    cases_ask(model, 1, 4, 4, 12);
    const uint32_t b = cases_ask(model, 2, 6, 6, 6);
    while (model->requests[b].preempted == 0) {
        model_plan_all(model);
        model_commit(model, 0);
        assert_true(model->live == 2);
    }
    const uint32_t known_tokens = 6 + model->requests[b].emitted;
    while (model->requests[b].replica == SPW_SCHED_NONE && model->live > 0) {
        if (!model_plan(model, 0))
            model_commit(model, 0);
    }
    const struct spw_plan_seq *seq = &model->plan.seqs[model->plan.seq_count - 1];
    const uint32_t again = seq->rows;
    assert_int_equal(seq->request, model->requests[b].handle);
    assert_true(seq->open);
    /* All its full blocks may have been needed; the computed part is what was not found. */
    assert_int_equal(seq->position + seq->rows, known_tokens);
    model_finish(model, 100000);
    const struct spw_sched_totals totals = cases_totals(model);
    assert_int_equal(totals.preempted, 1);
    assert_int_equal(totals.prefill_tokens, 4 + 6 + again);
    model_destroy(model);
}

static void a_lost_replica_has_no_index(void **state)
{
    (void)state;
    struct spw_sched_config config = cases_base;
    config.replicas = 2;
    struct model *model = cases_begin(&config);
    cases_ask(model, 1, 16, 17, 1);
    model_plan_all(model);
    model_commit(model, 0);
    assert_int_equal(cases_known(model, 1, 17), 16);
    assert_int_equal(cases_totals(model).kv_blocks_cached, 4);
    model_down(model, 0);
    assert_int_equal(cases_known(model, 1, 17), 0);
    assert_int_equal(cases_totals(model).kv_blocks_cached, 0);
    model_up(model, 0);
    assert_int_equal(cases_known(model, 1, 17), 0);
    cases_ask(model, 1, 16, 17, 1);
    model_plan_all(model);
    model_finish(model, 100000);
    assert_int_equal(cases_totals(model).prefill_tokens, 34);
    model_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_step_shares_what_is_in_flight),
        cmocka_unit_test(one_token_is_always_computed),
        cmocka_unit_test(the_same_step_computes_a_block_once),
        cmocka_unit_test(different_words_do_not_wait),
        cmocka_unit_test(a_running_prefill_adopts_blocks),
        cmocka_unit_test(sixteen_share_four_hundred_tokens),
        cmocka_unit_test(the_next_turn_finds_the_answer),
        cmocka_unit_test(another_salt_shares_nothing),
        cmocka_unit_test(without_index_nothing_is_kept),
        cmocka_unit_test(the_longest_unused_goes_first),
        cmocka_unit_test(the_end_of_a_chain_goes_first),
        cmocka_unit_test(what_is_asked_for_stays),
        cmocka_unit_test(cached_blocks_keep_nobody_waiting),
        cmocka_unit_test(the_reader_outlives_the_writer),
        cmocka_unit_test(a_preempted_request_takes_its_blocks_up_again),
        cmocka_unit_test(a_lost_replica_has_no_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
