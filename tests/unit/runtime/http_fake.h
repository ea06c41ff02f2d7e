/* http_fake.h - a deployment without an engine for tests of the HTTP door: the demo model's
 * tokenizer and template, and a loop thread that answers with tokens anybody can compute.
 */
#ifndef SPW_TEST_HTTP_FAKE_H
#define SPW_TEST_HTTP_FAKE_H

#include "runtime/door_http_int.h"
#include "runtime/model/model.h"

#include <pthread.h>

#define HTTP_FAKE_LIVE_MAX 1024

/* What a request asked of the loop. */
struct http_fake_asked {
    struct spw_sampling sampling;
    uint8_t priority;
    uint64_t deadline_ns;
    bool ignore_eos;
    int32_t stop_tokens[SPW_REQUEST_STOP_TOKENS_MAX];
    uint32_t stop_token_count, output_tokens_max, prompt_tokens;
    uint32_t tenant, hash_count;
    struct spw_sched_hash first_hash; /* with hash_count */
    int32_t prompt[64];               /* the first of them */
};

struct http_fake {
    struct spw_service service;
    struct spw_model *model;
    struct spw_tokenizer *tokenizer;
    struct spw_chat_template *chat_template;
    struct spw_tenants *tenants; /* default, research, web */
    struct spw_door_http *http;
    pthread_t thread;
    int wake_fd;
    atomic_bool stop, ready, healthy;

    /* what the loop does; may be changed while it runs */
    atomic_bool paused;  /* no tokens; submissions and cancels are taken */
    atomic_bool holding; /* nothing at all is taken from the door */
    atomic_uint turn_us; /* pause between turns */
    atomic_uint eos_at;  /* this token (counted from 1) is the end-of-text token; 0: never */
    atomic_int refuse;   /* submissions end with this status; SPW_OK: none */
    atomic_int fail;     /* running ones end with this status after fail_after tokens */
    atomic_uint fail_after;
    _Atomic(const struct spw_token_list *) script; /* answer with these tokens, over and over */

    /* what the loop saw */
    atomic_uint taken, gone, stopped, ended, live;
    struct http_fake_asked last; /* read when taken has grown */
    pthread_mutex_t lock;

    struct spw_request *requests[HTTP_FAKE_LIVE_MAX];
    uint32_t count;
};

#define HTTP_FAKE_BLOCK_TOKENS 8
#define HTTP_FAKE_CACHED       3 /* of each prompt, as the loop says */

/* Token `index` of the answer to this prompt, and its logprob. */
int32_t http_fake_token(const int32_t *prompt, size_t count, uint32_t index);
float http_fake_logprob(uint32_t index);

/* Loads the demo model; the door is not started. NULL with the reason printed. */
struct http_fake *http_fake_create(void);
void http_fake_destroy(struct http_fake *fake);
/* Start and stop door and loop; the controls are reset at start. */
void http_fake_start(struct http_fake *fake, const struct spw_door_http_config *config,
                     const struct spw_http_limits *limits);
void http_fake_stop(struct http_fake *fake, uint64_t drain_ns);
/* Wait until *counter is at least `wanted`; false after 10 s. */
bool http_fake_wait(const atomic_uint *counter, unsigned wanted);
struct http_fake_asked http_fake_last(struct http_fake *fake);

#endif
