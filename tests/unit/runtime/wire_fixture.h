/* wire_fixture.h - plans to encode and what is decoded from them, for the test and the fuzz target.
 *
 * Room:      tests
 */
#ifndef SPW_TEST_WIRE_FIXTURE_H
#define SPW_TEST_WIRE_FIXTURE_H

#include "runtime/wire.h"

#define SEQS_MAX   8u
#define ROWS_MAX   64u
#define BLOCKS_MAX 32u

/* Room for one decoded step. */
struct wire_room {
    struct spw_wire_seq seqs[SEQS_MAX];
    int32_t tokens[ROWS_MAX];
    uint32_t blocks[BLOCKS_MAX];
};

static inline struct spw_wire_scratch wire_scratch(struct wire_room *room)
{
    return (struct spw_wire_scratch){room->seqs, room->tokens, room->blocks,
                                     SEQS_MAX,   ROWS_MAX,     BLOCKS_MAX};
}

/* A decoded step as the plan that it came from. */
struct wire_again {
    const struct spw_wire_step *step;
    struct spw_plan_seq seqs[SEQS_MAX];
    struct spw_plan plan;
};

static inline int32_t again_token(void *context, const struct spw_plan_seq *seq, uint32_t position)
{
    const struct wire_again *again = context;
    return again->step->seqs[seq - again->seqs].tokens[position - seq->position];
}

static inline const struct spw_sampling *again_sampling(void *context,
                                                        const struct spw_plan_seq *seq)
{
    const struct wire_again *again = context;
    return &again->step->seqs[seq - again->seqs].sampling;
}

static inline void wire_step_encode_again(struct spw_buffer *out, const struct spw_wire_step *step)
{
    struct wire_again again = {.step = step};
    for (uint32_t i = 0; i < step->seq_count; i++)
        again.seqs[i] = step->seqs[i].plan;
    again.plan = (struct spw_plan){.step = step->step,
                                   .replica = step->replica,
                                   .seq_count = step->seq_count,
                                   .row_count = step->row_count,
                                   .sample_count = step->sample_count,
                                   .block_count = step->block_count,
                                   .seqs = again.seqs,
                                   .blocks = (uint32_t *)(uintptr_t)step->blocks};
    spw_wire_step_encode(out, &again.plan, again_token, again_sampling, &again);
}

#endif
