/* sched_cases.h - what the tests by theme have in common: requests on the model, exact plans.
 *
 * Room:      tests/unit/scheduler
 * Errors:    cmocka's assertions
 */
#ifndef SPW_TEST_SCHED_CASES_H
#define SPW_TEST_SCHED_CASES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/scheduler/sched_model.h"

/* One replica, blocks of 4, two tenants, the index on. */
extern const struct spw_sched_config cases_base;

/* All replicas up, time 1. */
struct model *cases_begin(const struct spw_sched_config *config);
void cases_finish(struct model *model);

/* Up to `shared` tokens of the common beginning `group`, then words of its own. */
struct model_text cases_text(uint64_t group, uint32_t shared, uint64_t own, uint32_t prompt);

/* Submit now, must be accepted; the request's index. */
uint32_t cases_ask_text(struct model *model, uint8_t priority, uint32_t prompt, uint32_t output,
                        const struct model_text *text);
/* Priority 1, tenant 0. */
uint32_t cases_ask(struct model *model, uint64_t group, uint32_t shared, uint32_t prompt,
                   uint32_t output);
/* Without hashes. deadline_ns 0: none. */
uint32_t cases_ask_as(struct model *model, uint32_t tenant, uint8_t priority, uint32_t prompt,
                      uint32_t output, uint64_t deadline_ns);

/* What would become of a prompt of the group's beginning. */
struct spw_sched_prediction cases_predict(const struct model *model, uint64_t group,
                                          uint32_t prompt, uint64_t deadline_ns);
/* How much of it would be taken from the index. */
uint32_t cases_known(const struct model *model, uint64_t group, uint32_t prompt);

struct spw_sched_totals cases_totals(const struct model *model);

/* The i-th entry of the newest plan is this. */
void cases_expect_seq(const struct model *model, uint32_t i, uint32_t index, bool open,
                      uint32_t cached, uint32_t position, uint32_t rows, uint32_t blocks);
/* Is the request in the newest plan? */
bool cases_planned(const struct model *model, uint32_t index);
/* Plan a replica until it says no, then commit its oldest step. */
void cases_turn(struct model *model, uint32_t replica);
/* Turns of replica 0 until nobody is left, transfers ending in each. */
void cases_serve(struct model *model);

#endif
