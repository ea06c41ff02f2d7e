/* loop_fixture.h - a coordinator's loop with workers that the test plays, in one thread.
 *
 * Room:      tests
 * Threads:   one; the workers move whenever the loop reads its clock
 *
 * A worker keeps tokens where a real one keeps keys and values: written to and read from the blocks
 * that plans name. Its "model" is a hash of all tokens before, so an answer is right only if every
 * plan was right: blocks, positions, chunks, fed-back tokens, recomputation.
 */
#ifndef SPW_TEST_LOOP_FIXTURE_H
#define SPW_TEST_LOOP_FIXTURE_H

#include "runtime/loop_int.h"
#include "transport/tp_local.h"

#define FIXTURE_VOCAB       100u
#define FIXTURE_EOS         0
#define FIXTURE_CLIENTS_MAX 400u
#define FIXTURE_RANKS_MAX   40u

enum worker_mode {
    WORKER_SERVES,
    WORKER_SILENT,      /* takes plans, answers nothing */
    WORKER_DAMAGES,     /* its next result is cut */
    WORKER_MISCOUNTS,   /* its next result has a token too few */
    WORKER_WRONG_STEP,  /* ... names another step */
    WORKER_WRONG_PLACE, /* ... names another replica */
    WORKER_FLOODS,      /* ... comes a thousand times */
};

struct worker_slot {
    uint32_t *blocks;
    uint32_t block_count;
    int32_t token; /* sampled last */
};

struct fixture;

struct fake_worker {
    struct fixture *fixture;
    struct spw_tp *tp;
    struct spw_place place;
    enum worker_mode mode;
    uint32_t delay; /* pumps between a plan and its result */
    struct {
        uint8_t *data;
        size_t bytes;
        uint64_t due;
    } queue[80];
    uint32_t queue_head, queue_count;
    struct worker_slot *slots;
    int32_t *kv; /* [kv_blocks][block_tokens] */
    uint64_t steps;
    uint64_t fed_back, opened; /* rows and slots seen */
    bool stop_seen, answered_stop;
};

struct client {
    struct spw_request *request; /* the test holds a reference to the end */
    int32_t expected[256];
    uint32_t expected_count;
    enum spw_request_end expected_end;
    uint32_t seen; /* tokens looked at */
    uint32_t ends; /* times it was seen to end: 1 in the end */
    bool cancelled;
};

struct fixture {
    struct spw_config config;
    struct spw_model_config model;
    uint32_t kv_blocks;
    uint32_t host_blocks, disk_blocks; /* beside them; 0: none */
    uint32_t context_tokens;
    struct spw_service service;
    struct spw_door door;
    struct spw_door *doors[1];
    struct spw_tp_hub *hub;
    struct spw_tp *tp;
    struct fake_worker workers[FIXTURE_RANKS_MAX]; /* by rank; gateways too */
    struct spw_rank_info ranks[FIXTURE_RANKS_MAX];
    uint32_t rank_count;
    struct spw_loop *loop;
    struct spw_error error;
    uint64_t now_ns;
    uint64_t clock_step_ns; /* what the clock moves each time it is read */
    uint64_t pumps;
    atomic_int stop;
    uint32_t ready_calls;
    uint64_t loading_done, loading_total;
    struct client clients[FIXTURE_CLIENTS_MAX];
    uint32_t client_count;
    uint64_t draws;
};

/* Small sizes: tensor 1, pipeline 1, replicas 1, gateways 0, slots 4, queue 16, blocks of 8. Change
 * fixture->config and the sizes beside it, then fixture_open. */
void fixture_init(struct fixture *fixture);
/* Makes the loop; all ranks report READY unless told not to. */
void fixture_open(struct fixture *fixture, bool ready);
/* Asserts that every client ended exactly once and that no reference is left. */
void fixture_close(struct fixture *fixture);

uint32_t fixture_below(struct fixture *fixture, uint32_t limit);
/* A rank that gives up, and the code of it. */
void fixture_report_failure(struct fixture *fixture, uint32_t rank, enum spw_status failure,
                            const char *error);
void fixture_report(struct fixture *fixture, uint32_t rank, enum spw_rank_state state,
                    const char *error);

/* A request with a random prompt. The caller may change it before fixture_submit. */
struct client *fixture_client(struct fixture *fixture, uint32_t prompt_tokens, uint32_t output_max);
/* Works out the right answer, names the prompt's blocks and hands the request to the loop. */
void fixture_submit(struct fixture *fixture, struct client *client);
/* Turns and reads notices; tokens are compared as they come. */
void fixture_turns(struct fixture *fixture, uint32_t turns);
/* Until all clients have ended, at most `turns`. */
void fixture_finish(struct fixture *fixture, uint32_t turns);
/* Its whole answer came, and it is right. */
void fixture_expect_answer(const struct client *client);
/* It ended with an error of that status whose words contain `words`. */
void fixture_expect_error(const struct client *client, enum spw_status status, const char *words);
void fixture_read_notices(struct fixture *fixture);

/* The log since the last call. */
const char *fixture_log(void);
int fixture_log_open(void **state);
int fixture_log_close(void **state);

#endif
