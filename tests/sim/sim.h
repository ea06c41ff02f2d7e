/* sim.h - the coordinator in virtual time: real loop, scheduler, wire, door and stream code; ranks
 * and clients are played, and everything follows from one seed.
 *
 * Room:      tests
 * Threads:   one
 * Errors:    a failed check prints its name and the seed, and aborts
 *
 * spw_loop_run runs as it does in a deployment. Its endpoint is one of tp_local's with three of its
 * functions watched: `send` shows each plan as it leaves, `poll` and `wait` each turn as it ends;
 * `wait` moves the clock to the next event. Nothing else moves it.
 */
#ifndef SPW_SIM_H
#define SPW_SIM_H

#include "runtime/loop_int.h"
#include "runtime/stream.h"
#include "tests/sim/sim_probe.h"
#include "tests/sim/sim_random.h"
#include "transport/tp_local.h"

#define SIM_DOORS_MAX   2u
#define SIM_CLIENTS_MAX 1024u
#define SIM_TENANTS_MAX 6u
#define SIM_FAULTS_MAX  8u
#define SIM_VOCAB       276u
#define SIM_EOS         275
#define SIM_START_NS    (100 * SPW_SECOND)

struct sim;

/* ---- events ---- */

typedef void (*sim_event_fn)(struct sim *sim, uint64_t a, uint64_t b);

struct sim_event {
    uint64_t at_ns;
    uint64_t seq; /* equal times: first come, first served */
    sim_event_fn run;
    uint64_t a, b;
};

/* run(sim, a, b) happens at at_ns, at the earliest now. */
void sim_at(struct sim *sim, uint64_t at_ns, sim_event_fn run, uint64_t a, uint64_t b);
/* The next event's time, UINT64_MAX when there is none. */
uint64_t sim_next_at(const struct sim *sim);
/* Events up to until_ns, in order, each at its own time; then it is until_ns. */
void sim_run_until(struct sim *sim, uint64_t until_ns);

/* ---- knobs ---- */

struct sim_knobs {
    struct spw_config config; /* what a deployment is told */
    uint32_t kv_blocks, context_tokens;
    uint32_t host_blocks, disk_blocks;
    bool disk_found; /* the disks hold blocks of an earlier run */
    uint32_t tenants;
    bool one_floods;   /* most requests are the default tenant's */
    bool sizes_differ; /* every other tenant asks little at a time */
    uint32_t doors;

    uint64_t fixed_ns, row_ns, context_ps; /* what a step costs */
    uint64_t host_block_ns, disk_block_ns;
    uint32_t jitter_permille;
    uint64_t lag_ns;     /* the loop looks so long after something happened */
    uint64_t message_ns; /* on the way, each */
    uint64_t door_ns;    /* a door reads notices so long after the first */

    uint32_t clients; /* at first; answers that are continued come on top */
    uint64_t gap_ns;  /* mean time between arrivals */
    uint32_t prompt_max, output_max;
    uint32_t groups, group_tokens; /* prompts that begin alike */
    uint32_t burst_permille, follow_permille, cancel_permille, deadline_permille, stop_permille;
    uint32_t batch_permille; /* clients of the batch lane */
    uint32_t faults;
    bool lose_all; /* no replica has to stay */
};

void sim_knobs_draw(struct sim_knobs *knobs, uint64_t seed);
void sim_knobs_print(const struct sim_knobs *knobs);

/* ---- the played model ---- */

struct sim_model {
    struct spw_tokenizer *tokenizer;
    struct spw_model_config config;
    int32_t outputs[SIM_VOCAB]; /* tokens that answers are made of: whole characters */
    uint32_t output_count;
    struct spw_buffer bytes; /* text of all tokens */
    uint32_t text_begin[SIM_VOCAB + 1];
};

/* Once per process. */
void sim_model_open(struct sim_model *model);
void sim_model_close(struct sim_model *model);
/* The next token depends on all tokens before it, in order, and on the request's seed. */
#define SIM_MODEL_BEGIN 1469598103934665603ull
static inline uint64_t sim_model_add(uint64_t state, int32_t token)
{
    return (state ^ (uint64_t)(token + 1)) * 1099511628211ull;
}
int32_t sim_model_next(const struct sim_model *model, uint64_t state, uint64_t seed);

/* ---- played ranks ---- */

/* Who wrote a block last; beside the device also what it is (C4). */
struct sim_stamp {
    uint32_t client;
    uint64_t step;
    struct spw_sched_hash hash;
    uint32_t index;
    bool damaged;
};

struct sim_copy;

struct sim_inbound { /* context of a rank's handlers */
    struct sim *sim;
    struct spw_tp *tp;
};

struct sim_rank {
    struct spw_tp *tp;
    struct spw_place place;
    int32_t *tokens[3]; /* by tier, [blocks][block_tokens]: tokens stand for keys and values */
    struct sim_stamp *stamps[3];
    struct sim_copy *copies; /* by id */
    uint32_t fail_copies;    /* its next ones fail */
    uint32_t *tables;        /* [slots][table_max] */
    uint32_t *table_counts;
    uint64_t got;                   /* plans taken off the wire */
    uint64_t arrived;               /* of them those that it may work on */
    uint64_t steps;                 /* finished */
    uint64_t in_due_ns, out_due_ns; /* late messages keep their order */
    uint64_t stuck_until_ns;
    uint32_t slow_permille; /* 1000: as fast as ever */
    bool dead, stop_seen, stopped, told_found;
    uint32_t damage; /* its next results are cut */
};

/* A step of a replica, as its ranks were told. */
struct sim_step {
    uint64_t step;
    struct spw_buffer bytes;
    struct spw_wire_step wire;
    struct spw_wire_scratch scratch;
    uint64_t context;   /* pairs of row and position attended to */
    uint32_t *clients;  /* [slots] whose sequences these are */
    int32_t *fed;       /* [slots] what feedback rows take */
    uint64_t *hidden;   /* [slots] what the ranks read, as a hash */
    bool *hidden_known; /* [slots] */
    struct spw_sample *samples;
    uint64_t *digests;
    uint64_t compute_ns;
};

struct sim_stage {
    bool busy;
    uint64_t done; /* steps */
    uint64_t retry_ns;
};

struct sim_replica {
    struct sim_step *steps; /* [steps_max] by step number */
    struct sim_stage *stages;
    int32_t *slot_token; /* sampled last, in step ... */
    uint64_t *slot_token_step;
    uint64_t *slot_sample_step; /* last step that samples */
    uint64_t planned, results;  /* steps sent by the loop, results sent to it */
    uint64_t committed;         /* steps that the scheduler knows the end of */
    uint64_t stuck_until_ns;    /* of its ranks */
    uint32_t copies;            /* of blocks, under way */
    bool doomed;                /* a fault that costs it was drawn */
    bool up_before;             /* at the end of the last turn */
    bool lost;                  /* the loop has given it up */
};

void sim_ranks_open(struct sim *sim);
void sim_ranks_close(struct sim *sim);
/* Ranks take what was sent to them. */
void sim_ranks_pump(struct sim *sim);
/* Start whatever stages of a replica can start. */
void sim_stages_start(struct sim *sim, uint32_t replica);
void sim_rank_kill(struct sim *sim, uint32_t rank);
void sim_rank_stop_answer(struct sim *sim, uint32_t rank);

/* ---- blocks beside the device ---- */

/* A block that the disk held before the run: of a group's prefix. */
struct sim_found {
    struct spw_kv_found found;
    uint32_t group;
};

void sim_kv_open(struct sim *sim, struct sim_rank *rank);
void sim_kv_close(struct sim_rank *rank);
void sim_kv_on_message(void *context, uint32_t peer, const void *data, size_t bytes);
void sim_kv_draw_found(struct sim *sim);
void sim_kv_tell_found(struct sim *sim, struct sim_rank *rank);
void sim_kv_damage(struct sim *sim, struct sim_rank *rank);

/* ---- clients ---- */

enum sim_client_state {
    SIM_CLIENT_PLANNED,
    SIM_CLIENT_SENT,   /* reads its answer */
    SIM_CLIENT_GONE,   /* hung up before the end */
    SIM_CLIENT_ENDED,  /* saw the end, once */
    SIM_CLIENT_UNSENT, /* refused before it was a request */
};

enum sim_cancel { SIM_CANCEL_NO, SIM_CANCEL_AT_TIME, SIM_CANCEL_AT_TOKEN };

struct sim_client {
    /* drawn */
    uint64_t id;
    uint32_t index, door;
    int32_t block[256]; /* scratch of sim_kv.c */
    bool raw;           /* speaks to the door itself, without a stream */
    bool text;          /* its prompt is text */
    bool hangs_up;      /* when it cancels: does not wait for the end */
    bool include_stop, ignore_eos;
    uint8_t priority;
    uint32_t tenant;
    uint32_t turns_left;
    struct spw_sampling sampling;
    int32_t *prompt;
    uint32_t prompt_tokens, output_max;
    uint64_t arrive_ns, deadline_ns;
    enum sim_cancel cancel;
    uint64_t cancel_at; /* after arrival in ns, or tokens seen */
    uint32_t stop_draw; /* != 0: a stop string is made from its answer */
    int32_t stop_token; /* ends its answer, -1: none */

    /* worked out */
    int32_t *expected;
    uint32_t expected_count; /* tokens of the whole answer */
    enum spw_request_end expected_end;
    char *expected_text;
    size_t text_bytes;     /* of the whole answer */
    size_t expected_bytes; /* of the text shown: fewer with a stop string */
    uint32_t shown_count;  /* tokens shown: fewer with a stop string */
    char stop[4];

    /* seen */
    enum sim_client_state state;
    struct spw_request *request; /* a reference of the simulator's own, to the end */
    struct spw_stream *stream;
    uint32_t seen;
    size_t seen_bytes;
    uint32_t ends;
    bool cancelled, refused;
    bool cancel_counts; /* the loop had not ended it before */
    uint64_t sent_ns;

    /* seen in plans */
    bool planned;
    uint32_t placements;
    uint32_t planned_end; /* positions planned so far, of this placement */
    uint32_t prefill_end; /* what was known when it was placed */
    uint32_t replica;
    uint64_t last_sample_step;
    uint32_t in_flight; /* steps */
    bool back;          /* its replica was lost, and it has no other yet */
};

/* Of prompt and right answer together. */
static inline int32_t sim_client_token(const struct sim_client *client, uint32_t position)
{
    return position < client->prompt_tokens ? client->prompt[position]
                                            : client->expected[position - client->prompt_tokens];
}

void sim_workload_draw(struct sim *sim);
void sim_workload_free(struct sim *sim);
void sim_client_arrives(struct sim *sim, uint64_t client, uint64_t unused);
void sim_client_cancels(struct sim *sim, uint64_t client, uint64_t unused);
void sim_client_expect(struct sim *sim, struct sim_client *client);
/* An answer went well and is continued. */
void sim_client_follow(struct sim *sim, struct sim_client *before);
/* Doors with notices read them soon. */
void sim_doors_pump(struct sim *sim);
void sim_door_reads(struct sim *sim, uint64_t door, uint64_t unused);
bool sim_doors_quiet(const struct sim *sim);
struct sim_client *sim_client_of(struct sim *sim, const struct spw_request *request);

/* ---- faults ---- */

void sim_faults_draw(struct sim *sim);
void sim_heal(struct sim *sim, uint64_t unused, uint64_t unused_too);
/* What a message takes now. */
uint64_t sim_message_ns(struct sim *sim);

/* ---- checks ---- */

/* The seed has shown an error: says so and aborts. */
_Noreturn void sim_fail(struct sim *sim, const char *check, const char *format, ...)
    SPW_PRINTF(3, 4);
#define SIM_CHECK(sim, name, condition, ...)                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            sim_fail(sim, name, __VA_ARGS__);                                                      \
    } while (0)

/* Into the trace hash, and with --verbose to standard output; words has up to 6 %llu. */
void sim_note(struct sim *sim, const char *words, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
              uint64_t e, uint64_t f);

void sim_check_plan(struct sim *sim, const struct spw_plan *plan);
void sim_check_turn(struct sim *sim);
void sim_check_end(struct sim *sim, struct sim_client *client);
void sim_check_closing(struct sim *sim);

/* Two tenants that both wait since some turn. */
struct sim_window {
    bool open, counted;
    double base, from;
};

void sim_check_shares(struct sim *sim, const struct spw_sched_totals *now);

struct sim_check {
    struct spw_sched_totals totals; /* after the last turn */
    uint32_t replicas_lost;
    bool none_up; /* there was a moment when the last one that served was lost */
    struct sim_window windows[SIM_TENANTS_MAX][SIM_TENANTS_MAX];
    uint64_t rows, batch_rows; /* planned */
    bool batch_open, batch_counted;
    uint64_t rows_from, batch_from;
    bool turn_checked;
    uint32_t turns_at_once;
    uint64_t full_ns;
};

/* ---- all of it ---- */

struct sim {
    struct spw_tp_ops ops; /* of the coordinator's endpoint */
    const struct spw_tp_ops *local;
    uint64_t seed;
    uint64_t now_ns;
    bool verbose;
    uint64_t hash;
    struct sim_knobs knobs;
    struct sim_random work, world, harm;
    struct sim_model *model;
    struct sim_probes *probes;

    struct sim_event *events; /* heap */
    uint32_t event_count, event_capacity;
    uint64_t event_seq;

    struct spw_tp_hub *hub;
    struct spw_tp *tp;
    struct sim_rank *ranks; /* by rank; 0 is the coordinator's and unused */
    uint32_t rank_count;
    struct sim_replica *replicas;
    uint32_t steps_max, table_max;

    struct spw_tenants *tenants;
    struct sim_found *found; /* in ascending index */
    uint32_t found_count;
    struct spw_service service;
    struct spw_door doors[SIM_DOORS_MAX];
    struct spw_door *door_list[SIM_DOORS_MAX];
    bool door_reads[SIM_DOORS_MAX]; /* an event is on its way */
    struct spw_loop *loop;
    struct spw_error error;
    enum spw_status result; /* of spw_loop_run */
    atomic_int stop;
    bool loop_done;

    struct sim_client *clients;
    uint32_t client_count;
    uint32_t arrivals_left, open_clients;
    uint64_t tokens;                   /* read by clients */
    uint32_t prompt_most, output_most; /* of requests sent so far */
    int32_t *group_prefix;             /* [groups][group_tokens] */
    uint64_t horizon_ns;               /* the last drawn arrival */

    bool healed, draining;
    uint64_t drain_ns;
    uint32_t dooms; /* replicas that faults may cost */
    uint64_t late_until_ns, late_ns;
    struct sim_check check;
};

struct sim_result {
    uint64_t hash;
    uint64_t clients, steps, tokens;
    uint64_t virtual_ns;
};

/* One seed, one run. */
struct sim_result sim_run(uint64_t seed, bool verbose, struct sim_model *model,
                          struct sim_probes *probes);

#endif
