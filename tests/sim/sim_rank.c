/* sim_rank.c - the played ranks: plans come in, stages compute them one after the other.
 *
 * Every rank holds the tokens of its blocks where a real one holds its shard of keys and values. A
 * stage writes a step's rows when it starts and reads the whole context when it ends, as everything
 * between may be read or written at any time.
 */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

static struct sim_step *step_at(struct sim *sim, uint32_t replica, uint64_t step)
{
    return &sim->replicas[replica].steps[step % sim->steps_max];
}

static struct sim_rank *stage_rank(struct sim *sim, uint32_t replica, uint32_t stage,
                                   uint32_t tensor)
{
    return &sim->ranks[spw_layout_worker(&sim->knobs.config, replica, stage, tensor)];
}

static struct sim_rank *rank_of_tp(struct sim *sim, const struct spw_tp *tp)
{
    return &sim->ranks[tp->rank];
}

/* ---- messages in ---- */

static void plan_arrives(struct sim *sim, uint64_t index, uint64_t step)
{
    struct sim_rank *rank = &sim->ranks[index];
    if (rank->dead)
        return;
    SIM_CHECK(sim, "plan-order", step == rank->arrived + 1, "rank %llu: step %llu after %llu",
              (unsigned long long)index, (unsigned long long)step,
              (unsigned long long)rank->arrived);
    rank->arrived = step;
    sim_stages_start(sim, rank->place.replica);
}

/* The first rank that is told decodes the step; the others must have been told the same. */
static void take_plan(struct sim *sim, struct sim_rank *rank, const void *data, size_t bytes)
{
    uint32_t replica = rank->place.replica;
    struct sim_step *step = step_at(sim, replica, rank->got + 1);
    if (step->bytes.bytes == 0 || step->wire.step != rank->got + 1) {
        spw_buffer_clear(&step->bytes);
        spw_buffer_add(&step->bytes, data, bytes);
        enum spw_status status =
            spw_wire_step_decode(step->bytes.data, bytes, &step->scratch, &step->wire);
        SIM_CHECK(sim, "plan-wire", status == SPW_OK && step->wire.step == rank->got + 1,
                  "rank %u: plan after step %llu: %s", rank->tp->rank,
                  (unsigned long long)rank->got, spw_status_name(status));
        step->context = 0;
        for (uint32_t i = 0; i < step->wire.seq_count; i++) {
            const struct spw_plan_seq *plan = &step->wire.seqs[i].plan;
            step->context +=
                (uint64_t)plan->rows * plan->position + (uint64_t)plan->rows * (plan->rows + 1) / 2;
            step->hidden_known[i] = false;
        }
    }
    SIM_CHECK(sim, "plan-agreed",
              bytes == step->bytes.bytes && memcmp(data, step->bytes.data, bytes) == 0,
              "rank %u was told another step %llu than its peers", rank->tp->rank,
              (unsigned long long)step->wire.step);
    rank->got++;
    uint64_t due_ns = sim->now_ns + sim_message_ns(sim);
    rank->in_due_ns = SPW_MAX(rank->in_due_ns, due_ns); /* in the order they were sent */
    sim_at(sim, rank->in_due_ns, plan_arrives, rank->tp->rank, step->wire.step);
}

static void on_step(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct sim_inbound *in = context;
    SIM_CHECK(in->sim, "plan-sender", peer == 0, "rank %u sent a plan", peer);
    take_plan(in->sim, rank_of_tp(in->sim, in->tp), data, bytes);
}

static void on_stop(void *context, uint32_t peer, const void *data, size_t bytes)
{
    struct sim_inbound *in = context;
    (void)data, (void)bytes, (void)peer;
    struct sim_rank *rank = rank_of_tp(in->sim, in->tp);
    rank->stop_seen = true;
    sim_rank_stop_answer(in->sim, in->tp->rank);
}

/* ---- messages out ---- */

static void report(struct sim *sim, uint32_t index, enum spw_rank_state state)
{
    struct sim_rank *rank = &sim->ranks[index];
    struct spw_wire_status status = {.state = (uint8_t)state,
                                     .steps = rank->steps,
                                     .step_now = rank->arrived > rank->steps ? rank->steps + 1 : 0,
                                     .waiting_for = "played",
                                     .waiting_rank = UINT32_MAX,
                                     .kv_blocks = sim->knobs.kv_blocks,
                                     .kv_host_block_ns = sim->knobs.host_block_ns,
                                     .kv_disk_block_ns = sim->knobs.disk_block_ns};
    struct spw_buffer out;
    spw_buffer_init(&out, 4096);
    spw_wire_status_encode(&out, &status);
    spw_tp_send(rank->tp, 0, SPW_WIRE_STATUS, out.data, out.bytes);
    spw_buffer_done(&out);
}

static void report_ready(struct sim *sim, uint64_t index, uint64_t unused)
{
    (void)unused;
    if (sim->ranks[index].dead || sim->ranks[index].stopped)
        return;
    if (!sim->ranks[index].told_found)
        sim_kv_tell_found(sim, &sim->ranks[index]);
    sim->ranks[index].told_found = true;
    if (sim->ranks[index].stuck_until_ns <= sim->now_ns)
        report(sim, (uint32_t)index, SPW_RANK_READY);
    sim_at(sim, sim->now_ns + SPW_SECOND, report_ready, index, 0);
}

void sim_rank_stop_answer(struct sim *sim, uint32_t index)
{
    struct sim_rank *rank = &sim->ranks[index];
    if (rank->dead || rank->stopped || rank->stuck_until_ns > sim->now_ns)
        return;
    rank->stopped = true;
    report(sim, index, SPW_RANK_STOPPED);
}

static void result_sent(struct sim *sim, uint64_t index, uint64_t number)
{
    struct sim_rank *rank = &sim->ranks[index];
    struct sim_replica *replica = &sim->replicas[rank->place.replica];
    if (rank->dead)
        return;
    const struct sim_step *step = step_at(sim, rank->place.replica, number);
    struct spw_buffer out;
    spw_buffer_init(&out, SPW_TP_MESSAGE_MAX);
    spw_wire_result_encode(&out, rank->place.replica, number, step->compute_ns, step->samples,
                           step->digests, step->wire.sample_count);
    size_t bytes = out.bytes;
    if (rank->damage) {
        rank->damage--;
        bytes -= 1 + sim_below(&sim->harm, 8);
        sim->probes->seen[SIM_PROBE_DAMAGED_RESULT]++;
    }
    if (replica->lost)
        sim->probes->seen[SIM_PROBE_LATE_RESULT]++;
    spw_tp_send(rank->tp, 0, SPW_WIRE_RESULT, out.data, bytes);
    spw_buffer_done(&out);
    replica->results = number;
    sim_note(sim, "result replica=%llu step=%llu", rank->place.replica, number, 0, 0, 0, 0);
}

/* ---- a stage ---- */

/* Rows of the step into the rank's blocks. */
static void write_rows(struct sim *sim, struct sim_rank *rank, const struct sim_step *step)
{
    uint32_t size = sim->knobs.config.block_tokens;
    for (uint32_t i = 0; i < step->wire.seq_count; i++) {
        const struct spw_wire_seq *seq = &step->wire.seqs[i];
        const struct spw_plan_seq *plan = &seq->plan;
        uint32_t *table = rank->tables + (size_t)plan->slot * sim->table_max;
        uint32_t *count = &rank->table_counts[plan->slot];
        if (plan->open)
            *count = 0;
        SIM_CHECK(sim, "worker-table",
                  plan->block_begin == *count && *count + plan->block_count <= sim->table_max,
                  "step %llu slot %u: entries from %u, the table has %u",
                  (unsigned long long)step->wire.step, plan->slot, plan->block_begin, *count);
        for (uint32_t b = 0; b < plan->block_count; b++)
            table[(*count)++] = step->wire.blocks[plan->block_offset + b];
        SIM_CHECK(sim, "worker-room", plan->position + plan->rows <= *count * size,
                  "step %llu slot %u: %u positions in %u blocks",
                  (unsigned long long)step->wire.step, plan->slot, plan->position + plan->rows,
                  *count);
        for (uint32_t r = 0; r < plan->rows; r++) {
            uint32_t position = plan->position + r, block = table[position / size];
            rank->tokens[SPW_SCHED_DEVICE][block * size + position % size] =
                plan->feedback ? step->fed[i] : seq->tokens[r];
            rank->stamps[SPW_SCHED_DEVICE][block] =
                (struct sim_stamp){.client = step->clients[i], .step = step->wire.step};
        }
    }
}

static uint64_t read_context(const struct sim *sim, const struct sim_rank *rank,
                             const struct spw_plan_seq *plan)
{
    uint32_t size = sim->knobs.config.block_tokens;
    const uint32_t *table = rank->tables + (size_t)plan->slot * sim->table_max;
    uint64_t state = SIM_MODEL_BEGIN;
    for (uint32_t i = 0; i < plan->position + plan->rows; i++)
        state =
            sim_model_add(state, rank->tokens[SPW_SCHED_DEVICE][table[i / size] * size + i % size]);
    return state;
}

/* A sampled token is not the one that this request alone would get: which block lies? */
_Noreturn static void explain_wrong(struct sim *sim, const struct sim_rank *rank,
                                    const struct sim_step *step, uint32_t i)
{
    const struct spw_plan_seq *plan = &step->wire.seqs[i].plan;
    const struct sim_client *client = &sim->clients[step->clients[i]];
    uint32_t size = sim->knobs.config.block_tokens;
    const uint32_t *table = rank->tables + (size_t)plan->slot * sim->table_max;
    for (uint32_t p = 0; p < plan->position + plan->rows; p++) {
        int32_t right = sim_client_token(client, p);
        uint32_t block = table[p / size];
        if (rank->tokens[SPW_SCHED_DEVICE][block * size + p % size] != right)
            sim_fail(sim, "kv-content",
                     "client %u step %llu rank %u: position %u in block %u holds token %d, not %d; "
                     "the block was written last for client %u in step %llu",
                     client->index, (unsigned long long)step->wire.step, rank->tp->rank, p, block,
                     (int)rank->tokens[SPW_SCHED_DEVICE][block * size + p % size], (int)right,
                     rank->stamps[SPW_SCHED_DEVICE][block].client,
                     (unsigned long long)rank->stamps[SPW_SCHED_DEVICE][block].step);
    }
    sim_fail(sim, "sampled-token", "client %u step %llu: all that was read is right, the token not",
             client->index, (unsigned long long)step->wire.step);
}

static void read_rows(struct sim *sim, struct sim_rank *rank, struct sim_step *step)
{
    for (uint32_t i = 0; i < step->wire.seq_count; i++) {
        const struct spw_wire_seq *seq = &step->wire.seqs[i];
        if (!seq->plan.sample)
            continue;
        uint64_t hidden = read_context(sim, rank, &seq->plan);
        if (!step->hidden_known[i]) {
            const struct sim_client *client = &sim->clients[step->clients[i]];
            uint32_t index = seq->plan.position + seq->plan.rows - client->prompt_tokens;
            step->hidden_known[i] = true;
            step->hidden[i] = hidden;
            if (index < client->expected_count &&
                sim_model_next(sim->model, hidden, seq->sampling.seed) != client->expected[index])
                explain_wrong(sim, rank, step, i);
        }
        SIM_CHECK(sim, "ranks-agree", hidden == step->hidden[i],
                  "rank %u: step %llu slot %u: read something else than its peers", rank->tp->rank,
                  (unsigned long long)step->wire.step, seq->plan.slot);
    }
}

static void sample_rows(struct sim *sim, struct sim_replica *replica, struct sim_step *step)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < step->wire.seq_count; i++) {
        const struct spw_wire_seq *seq = &step->wire.seqs[i];
        if (!seq->plan.sample)
            continue;
        int32_t token = sim_model_next(sim->model, step->hidden[i], seq->sampling.seed);
        step->samples[count++] = (struct spw_sample){.token = token, .logprob = -(float)token};
        replica->slot_token[seq->plan.slot] = token;
        replica->slot_token_step[seq->plan.slot] = step->wire.step;
    }
    SIM_CHECK(sim, "plan-samples", count == step->wire.sample_count, "step %llu: %u samples of %u",
              (unsigned long long)step->wire.step, count, step->wire.sample_count);
}

static void stage_ends(struct sim *sim, uint64_t place, uint64_t number)
{
    const struct spw_config *config = &sim->knobs.config;
    uint32_t index = (uint32_t)(place / config->pipeline);
    uint32_t stage = (uint32_t)(place % config->pipeline);
    struct sim_replica *replica = &sim->replicas[index];
    struct sim_step *step = step_at(sim, index, number);
    for (uint32_t t = 0; t < config->tensor; t++)
        if (stage_rank(sim, index, stage, t)->dead)
            return; /* the others wait for it for ever */
    for (uint32_t t = 0; t < config->tensor; t++) {
        struct sim_rank *rank = stage_rank(sim, index, stage, t);
        read_rows(sim, rank, step);
        rank->steps++;
    }
    replica->stages[stage].busy = false;
    replica->stages[stage].done = number;
    if (stage + 1 == config->pipeline) {
        struct sim_rank *rank = stage_rank(sim, index, stage, 0);
        sample_rows(sim, replica, step);
        uint64_t due_ns = sim->now_ns + sim_message_ns(sim);
        rank->out_due_ns = SPW_MAX(rank->out_due_ns, due_ns);
        sim_at(sim, rank->out_due_ns, result_sent, rank->tp->rank, number);
    }
    sim_stages_start(sim, index);
}

/* Tokens that are fed back are known once the last stage has sampled them. */
static bool feed_back(struct sim *sim, struct sim_replica *replica, struct sim_step *step)
{
    for (uint32_t i = 0; i < step->wire.seq_count; i++) {
        const struct spw_plan_seq *plan = &step->wire.seqs[i].plan;
        if (!plan->feedback)
            continue;
        SIM_CHECK(sim, "feedback", replica->slot_sample_step[plan->slot] != 0,
                  "step %llu slot %u: nothing was sampled there to be fed back",
                  (unsigned long long)step->wire.step, plan->slot);
        if (replica->slot_token_step[plan->slot] != replica->slot_sample_step[plan->slot])
            return false;
    }
    for (uint32_t i = 0; i < step->wire.seq_count; i++) {
        const struct spw_plan_seq *plan = &step->wire.seqs[i].plan;
        if (plan->feedback)
            step->fed[i] = replica->slot_token[plan->slot];
        if (plan->open)
            replica->slot_sample_step[plan->slot] = 0;
        if (plan->sample)
            replica->slot_sample_step[plan->slot] = step->wire.step;
    }
    return true;
}

static void retry(struct sim *sim, uint64_t replica, uint64_t unused)
{
    (void)unused;
    sim_stages_start(sim, (uint32_t)replica);
}

/* The time from when all ranks of the stage can work, UINT64_MAX for never. */
static uint64_t free_at(struct sim *sim, uint32_t index, uint32_t stage, uint64_t number,
                        uint32_t *out_slow)
{
    uint64_t at = sim->now_ns;
    *out_slow = 1000;
    for (uint32_t t = 0; t < sim->knobs.config.tensor; t++) {
        const struct sim_rank *rank = stage_rank(sim, index, stage, t);
        if (rank->dead || rank->arrived < number)
            return UINT64_MAX;
        at = SPW_MAX(at, rank->stuck_until_ns);
        *out_slow = SPW_MAX(*out_slow, rank->slow_permille);
    }
    return at;
}

static void start_stage(struct sim *sim, uint32_t index, uint32_t stage)
{
    const struct sim_knobs *knobs = &sim->knobs;
    struct sim_replica *replica = &sim->replicas[index];
    struct sim_stage *state = &replica->stages[stage];
    uint64_t number = state->done + 1;
    uint32_t slow = 1000;
    if (state->busy || (stage > 0 && replica->stages[stage - 1].done < number))
        return;
    uint64_t at = free_at(sim, index, stage, number, &slow);
    if (at == UINT64_MAX)
        return;
    if (at > sim->now_ns) {
        if (state->retry_ns != at)
            sim_at(sim, at, retry, index, 0);
        state->retry_ns = at;
        return;
    }
    struct sim_step *step = step_at(sim, index, number);
    if (stage == 0 && !feed_back(sim, replica, step))
        return;
    for (uint32_t t = 0; t < knobs->config.tensor; t++)
        write_rows(sim, stage_rank(sim, index, stage, t), step);
    uint64_t cost = knobs->fixed_ns + step->wire.row_count * knobs->row_ns +
                    step->context * knobs->context_ps / 1000;
    cost += cost * sim_below(&sim->world, knobs->jitter_permille + 1) / 1000;
    cost = cost * slow / 1000 / knobs->config.pipeline + 1;
    step->compute_ns = cost;
    state->busy = true;
    sim_at(sim, sim->now_ns + cost, stage_ends, index * knobs->config.pipeline + stage, number);
}

void sim_stages_start(struct sim *sim, uint32_t replica)
{
    for (uint32_t stage = 0; stage < sim->knobs.config.pipeline; stage++)
        start_stage(sim, replica, stage);
}

void sim_rank_kill(struct sim *sim, uint32_t index)
{
    sim->ranks[index].dead = true;
    spw_tp_hub_kill(sim->hub, index);
}

void sim_ranks_pump(struct sim *sim)
{
    for (uint32_t rank = 1; rank < sim->rank_count; rank++)
        if (!sim->ranks[rank].dead)
            spw_tp_poll(sim->ranks[rank].tp, 256);
}

/* ---- set-up ---- */

static void *take(size_t count, size_t bytes)
{
    void *memory = calloc(SPW_MAX(count, 1), bytes);
    assert(memory);
    return memory;
}

static void open_rank(struct sim *sim, uint32_t index)
{
    const struct spw_config *config = &sim->knobs.config;
    struct sim_rank *rank = &sim->ranks[index];
    rank->place = spw_layout_place(config, index);
    rank->slow_permille = 1000;
    enum spw_status status = spw_tp_local_open(sim->hub, index, &rank->tp);
    assert(status == SPW_OK);
    struct sim_inbound *in = take(1, sizeof(*in));
    *in = (struct sim_inbound){.sim = sim, .tp = rank->tp};
    spw_tp_handle(rank->tp, SPW_WIRE_STEP, on_step, in);
    spw_tp_handle(rank->tp, SPW_WIRE_STOP, on_stop, in);
    spw_tp_handle(rank->tp, SPW_WIRE_KV, sim_kv_on_message, in);
    sim_at(sim, sim->now_ns + sim_below(&sim->world, 30) * SPW_MS, report_ready, index, 0);
    if (rank->place.role != SPW_ROLE_WORKER)
        return;
    sim_kv_open(sim, rank);
    rank->tables = take((size_t)config->slots * sim->table_max, sizeof(*rank->tables));
    rank->table_counts = take(config->slots, sizeof(*rank->table_counts));
}

static void open_replica(struct sim *sim, struct sim_replica *replica)
{
    const struct spw_config *config = &sim->knobs.config;
    replica->steps = take(sim->steps_max, sizeof(*replica->steps));
    replica->stages = take(config->pipeline, sizeof(*replica->stages));
    replica->slot_token = take(config->slots, sizeof(*replica->slot_token));
    replica->slot_token_step = take(config->slots, sizeof(*replica->slot_token_step));
    replica->slot_sample_step = take(config->slots, sizeof(*replica->slot_sample_step));
    for (uint32_t i = 0; i < sim->steps_max; i++) {
        struct sim_step *step = &replica->steps[i];
        uint32_t blocks = spw_sched_plan_blocks_max(&sim->loop->sched_config);
        spw_buffer_init(&step->bytes, SPW_TP_MESSAGE_MAX);
        step->scratch = (struct spw_wire_scratch){
            .seqs = take(config->slots, sizeof(struct spw_wire_seq)),
            .tokens = take(config->step_tokens, sizeof(int32_t)),
            .blocks = take(blocks, sizeof(uint32_t)),
            .seqs_max = config->slots,
            .rows_max = config->step_tokens,
            .blocks_max = blocks,
        };
        step->clients = take(config->slots, sizeof(*step->clients));
        step->fed = take(config->slots, sizeof(*step->fed));
        step->hidden = take(config->slots, sizeof(*step->hidden));
        step->hidden_known = take(config->slots, sizeof(*step->hidden_known));
        step->samples = take(config->slots, sizeof(*step->samples));
        step->digests = take(config->slots, sizeof(*step->digests));
    }
}

void sim_ranks_open(struct sim *sim)
{
    const struct spw_config *config = &sim->knobs.config;
    sim->steps_max = config->pipeline + 3;
    sim->table_max = sim->knobs.context_tokens / config->block_tokens + 3;
    sim->ranks = take(sim->rank_count, sizeof(*sim->ranks));
    for (uint32_t rank = 1; rank < sim->rank_count; rank++)
        open_rank(sim, rank);
    sim->replicas = take(config->replicas, sizeof(*sim->replicas));
    for (uint32_t i = 0; i < config->replicas; i++)
        open_replica(sim, &sim->replicas[i]);
}

void sim_ranks_close(struct sim *sim)
{
    for (uint32_t i = 0; i < sim->knobs.config.replicas; i++) {
        struct sim_replica *replica = &sim->replicas[i];
        for (uint32_t s = 0; s < sim->steps_max; s++) {
            struct sim_step *step = &replica->steps[s];
            void *all[] = {
                step->scratch.seqs, step->scratch.tokens, step->scratch.blocks, step->clients,
                step->fed,          step->hidden,         step->hidden_known,   step->samples,
                step->digests};
            for (size_t m = 0; m < SPW_ARRAY_COUNT(all); m++)
                free(all[m]);
            spw_buffer_done(&step->bytes);
        }
        free(replica->steps);
        free(replica->stages);
        free(replica->slot_token);
        free(replica->slot_token_step);
        free(replica->slot_sample_step);
    }
    free(sim->replicas);
    for (uint32_t i = 1; i < sim->rank_count; i++) {
        struct sim_rank *rank = &sim->ranks[i];
        free(rank->tp->handler_contexts[SPW_WIRE_STEP]);
        spw_tp_close(rank->tp);
        sim_kv_close(rank);
        free(rank->tables);
        free(rank->table_counts);
    }
    free(sim->ranks);
}
