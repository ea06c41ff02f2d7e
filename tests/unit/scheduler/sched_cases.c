/* sched_cases.c - see sched_cases.h. */
#include "tests/unit/scheduler/sched_cases.h"

#include <stdlib.h>

const struct spw_sched_config cases_base = {
    .replicas = 1,
    .requests_max = 64,
    .waiting_max = 64,
    .slots = 8,
    .block_tokens = 4,
    .kv_blocks = 64,
    .context_tokens_max = 128,
    .step_tokens_max = 64,
    .step_seqs_max = 8,
    .prefill_chunk_max = 64,
    .pipeline = 1,
    .tenants = 2,
    .prefix = true,
};

struct model *cases_begin(const struct spw_sched_config *config)
{
    struct model *model = model_create(config, 2000);
    model->now_ns = 1;
    for (uint32_t r = 0; r < config->replicas; r++)
        model_up(model, r);
    return model;
}

void cases_finish(struct model *model)
{
    model_finish(model, 100000);
    model_destroy(model);
}

struct model_text cases_text(uint64_t group, uint32_t shared, uint64_t own, uint32_t prompt)
{
    return (struct model_text){
        .salt = 1, .count = 2, .seeds = {group, own}, .until = {shared, prompt}, .answer = own};
}

uint32_t cases_ask_text(struct model *model, uint8_t priority, uint32_t prompt, uint32_t output,
                        const struct model_text *text)
{
    const uint32_t index = model->request_count;
    const struct spw_sched_request request = {.id = 100 + index,
                                              .priority = priority,
                                              .prompt_tokens = prompt,
                                              .output_tokens_max = output};
    assert_int_equal(model_submit_text(model, &request, SPW_SCHED_NONE, text), SPW_SCHED_ACCEPTED);
    return index;
}

uint32_t cases_ask(struct model *model, uint64_t group, uint32_t shared, uint32_t prompt,
                   uint32_t output)
{
    const struct model_text text = cases_text(group, shared, 7000 + model->request_count, prompt);
    return cases_ask_text(model, 1, prompt, output, &text);
}

uint32_t cases_ask_as(struct model *model, uint32_t tenant, uint8_t priority, uint32_t prompt,
                      uint32_t output, uint64_t deadline_ns)
{
    const uint32_t index = model->request_count;
    const struct spw_sched_request request = {.id = 100 + index,
                                              .priority = priority,
                                              .prompt_tokens = prompt,
                                              .output_tokens_max = output,
                                              .deadline_ns = deadline_ns,
                                              .tenant = tenant};
    assert_int_equal(model_submit(model, &request, SPW_SCHED_NONE), SPW_SCHED_ACCEPTED);
    return index;
}

struct spw_sched_prediction cases_predict(const struct model *model, uint64_t group,
                                          uint32_t prompt, uint64_t deadline_ns)
{
    const struct model_text text = cases_text(group, prompt, 1, prompt);
    const uint32_t count = prompt / model->config.block_tokens;
    struct spw_sched_hash *hashes = model_zeroed(count, sizeof(*hashes));
    uint64_t *chain = model_zeroed(prompt, sizeof(*chain));
    model_text_chain(&text, prompt, chain);
    for (uint32_t i = 0; i < count; i++)
        hashes[i] = model_block_hash(model, chain, i);
    const struct spw_sched_request request = {.priority = 1,
                                              .prompt_tokens = prompt,
                                              .output_tokens_max = 1,
                                              .deadline_ns = deadline_ns,
                                              .hashes = hashes,
                                              .hash_count = count};
    struct spw_sched_prediction prediction;
    spw_sched_predict(model->sched, model->now_ns, &request, &prediction);
    free(hashes);
    free(chain);
    return prediction;
}

uint32_t cases_known(const struct model *model, uint64_t group, uint32_t prompt)
{
    return cases_predict(model, group, prompt, 0).cached_tokens;
}

struct spw_sched_totals cases_totals(const struct model *model)
{
    struct spw_sched_totals totals;
    spw_sched_totals(model->sched, &totals);
    return totals;
}

void cases_expect_seq(const struct model *model, uint32_t i, uint32_t index, bool open,
                      uint32_t cached, uint32_t position, uint32_t rows, uint32_t blocks)
{
    assert_true(i < model->plan.seq_count);
    const struct spw_plan_seq *seq = &model->plan.seqs[i];
    assert_int_equal(seq->request, model->requests[index].handle);
    assert_int_equal(seq->open, open);
    assert_int_equal(seq->cached, cached);
    assert_int_equal(seq->position, position);
    assert_int_equal(seq->rows, rows);
    assert_int_equal(seq->block_count, blocks);
}

bool cases_planned(const struct model *model, uint32_t index)
{
    for (uint32_t i = 0; i < model->plan.seq_count; i++) {
        if (model->plan.seqs[i].request == model->requests[index].handle)
            return true;
    }
    return false;
}

void cases_turn(struct model *model, uint32_t replica)
{
    while (model_plan(model, replica))
        ;
    if (model->replicas[replica].in_flight > 0)
        model_commit(model, replica);
}

void cases_serve(struct model *model)
{
    for (uint32_t turns = 0; model->live > 0; turns++) {
        assert_true(turns < 100000);
        cases_turn(model, 0);
        model_transfers_end(model);
    }
}
