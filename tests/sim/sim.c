/* sim.c - one seed, one run: the loop between the played ranks and clients. */
#include "tests/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define TURNS_AT_ONCE_MAX 2000u
#define HUB_BYTES         (4u << 20)

static struct sim *sim_of(struct spw_tp *tp)
{
    return (struct sim *)((char *)(uintptr_t)tp->ops - offsetof(struct sim, ops));
}

static uint64_t read_clock(void *context)
{
    return ((struct sim *)context)->now_ns;
}

/* ---- the coordinator's endpoint ---- */

static enum spw_status watch_send(struct spw_tp *tp, uint32_t peer, uint32_t type, const void *data,
                                  size_t bytes)
{
    struct sim *sim = sim_of(tp);
    const struct spw_plan *plan = &sim->loop->plan;
    if (type == SPW_WIRE_STEP && sim->replicas[plan->replica].planned != plan->step)
        sim_check_plan(sim, plan);
    if (type == SPW_WIRE_STOP)
        sim->loop_done = true; /* nobody looks at the doors any more */
    return sim->local->send(tp, peer, type, data, bytes);
}

static uint32_t watch_poll(struct spw_tp *tp, uint32_t messages_max)
{
    struct sim *sim = sim_of(tp);
    if (messages_max == 1) { /* a send found no room: ranks take what is there */
        sim->now_ns += SPW_MS;
        sim_ranks_pump(sim);
    } else {
        sim_check_turn(sim);
        sim->check.turn_checked = false;
        sim->check.turns_at_once++;
        SIM_CHECK(sim, "spinning", sim->check.turns_at_once < TURNS_AT_ONCE_MAX,
                  "%u turns and the loop still says that something moved", TURNS_AT_ONCE_MAX);
    }
    return sim->local->poll(tp, messages_max);
}

/* Nothing moves any more: to the next event. */
static void watch_wait(struct spw_tp *tp, uint64_t timeout_ns)
{
    struct sim *sim = sim_of(tp);
    sim_check_turn(sim);
    sim->check.turns_at_once = 0;
    sim_ranks_pump(sim);
    sim_doors_pump(sim);
    if (sim->arrivals_left == 0 && sim_doors_quiet(sim) && spw_sched_idle(sim->loop->sched) &&
        atomic_load(&sim->stop) == 0) {
        atomic_store(&sim->stop, SPW_STOP_DRAIN);
        return;
    }
    uint64_t at_ns = sim_next_at(sim), until_ns = sim->now_ns + timeout_ns;
    bool nobody = sim->open_clients == 0 && atomic_load(&sim->stop) == 0;
    if (at_ns > until_ns && !nobody) {
        sim->now_ns = until_ns;
        return;
    }
    sim_run_until(sim, at_ns + sim->knobs.lag_ns);
}

/* ---- set-up ---- */

/* As the coordinator does. */
static void open_tenants(struct sim *sim)
{
    const struct spw_config *config = &sim->knobs.config;
    bool all = strcmp(config->prefix_cache, "all") == 0;
    enum spw_status status =
        spw_tenants_parse(config->tenants, config->queue, &sim->tenants, &sim->error);
    SIM_CHECK(sim, "create", status == SPW_OK, "%s", sim->error.text);
    sim->service.tenants = sim->tenants;
    if (strcmp(config->prefix_cache, "off") == 0)
        return;
    sim->service.prefix_block_tokens = config->block_tokens;
    for (uint32_t i = 0; i < sim->tenants->count; i++) {
        struct spw_tenant *tenant = &sim->tenants->list[i];
        tenant->chain =
            spw_prefix_salt("00", "played", config->block_tokens, all ? NULL : tenant->name);
    }
}

static void open_loop(struct sim *sim)
{
    struct sim_knobs *knobs = &sim->knobs;
    struct spw_config *config = &knobs->config;
    sim->service = (struct spw_service){
        .model_name = "played",
        .model = &sim->model->config,
        .tokenizer = sim->model->tokenizer,
        .engine_class = "played",
        .context_tokens_max = knobs->context_tokens,
        .requests_max = config->queue + config->replicas * config->slots,
    };
    open_tenants(sim);
    for (uint32_t d = 0; d < knobs->doors; d++) {
        enum spw_status status =
            spw_door_init(&sim->doors[d], d ? "grpc" : "http", &sim->service, NULL, NULL);
        assert(status == SPW_OK);
        sim->door_list[d] = &sim->doors[d];
    }
    sim->rank_count = spw_layout_ranks(config);
    sim->hub = spw_tp_hub_create(sim->rank_count, HUB_BYTES);
    assert(sim->hub);
    enum spw_status status = spw_tp_local_open(sim->hub, 0, &sim->tp);
    assert(status == SPW_OK);
    struct spw_loop_config loop = {
        .config = config,
        .model = &sim->model->config,
        .model_name = "played",
        .engine_class = "played",
        .model_digest_hex = "00",
        .tp = sim->tp,
        .clock = {.now_ns = read_clock, .context = sim},
        .doors = sim->door_list,
        .door_count = knobs->doors,
        .kv_blocks = knobs->kv_blocks,
        .host_blocks = knobs->host_blocks,
        .disk_blocks = knobs->disk_blocks,
        .context_tokens = knobs->context_tokens,
        .stop = &sim->stop,
    };
    status = spw_loop_create(&loop, &sim->loop, &sim->error);
    SIM_CHECK(sim, "create", status == SPW_OK, "%s", sim->error.text);
    sim->local = sim->tp->ops;
    sim->ops = *sim->local;
    sim->ops.send = watch_send;
    sim->ops.poll = watch_poll;
    sim->ops.wait = watch_wait;
    sim->tp->ops = &sim->ops;
}

static void close_all(struct sim *sim)
{
    spw_loop_destroy(sim->loop);
    for (uint32_t d = 0; d < sim->knobs.doors; d++)
        spw_door_done(&sim->doors[d]);
    sim_ranks_close(sim);
    spw_tp_close(sim->tp);
    spw_tp_hub_destroy(sim->hub);
    sim_workload_free(sim);
    spw_tenants_destroy(sim->tenants);
    free(sim->found);
    free(sim->events);
    free(sim);
}

struct sim_result sim_run(uint64_t seed, bool verbose, struct sim_model *model,
                          struct sim_probes *probes)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    struct sim_result result = {0};
    assert(sim);
    sim->seed = seed;
    sim->now_ns = SIM_START_NS;
    sim->verbose = verbose;
    sim->model = model;
    sim->probes = probes;
    sim->work = sim_stream(seed, 1);
    sim->world = sim_stream(seed, 2);
    sim->harm = sim_stream(seed, 3);
    sim_knobs_draw(&sim->knobs, seed);
    if (verbose)
        sim_knobs_print(&sim->knobs);
    open_loop(sim);
    sim_ranks_open(sim);
    sim_workload_draw(sim);
    sim_kv_draw_found(sim);
    sim_faults_draw(sim);

    sim->result = spw_loop_run(sim->loop, &sim->error);
    sim->loop_done = true;
    sim_check_turn(sim);
    for (uint32_t d = 0; d < sim->knobs.doors; d++)
        sim_door_reads(sim, d, 0);
    sim_check_closing(sim);

    struct spw_sched_totals totals;
    spw_sched_totals(sim->loop->sched, &totals);
    sim_note(sim, "closing result=%llu accepted=%llu prefill=%llu decode=%llu steps=%llu",
             (uint64_t)-sim->result, totals.accepted, totals.prefill_tokens, totals.decode_tokens,
             totals.steps, 0);
    result.hash = sim->hash;
    result.clients = sim->client_count;
    result.steps = totals.steps;
    result.tokens = sim->tokens;
    result.virtual_ns = sim->now_ns - SIM_START_NS;
    close_all(sim);
    return result;
}
