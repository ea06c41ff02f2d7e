/* fake_service.h - a deployment without a model: one token per byte, answers that repeat the
 * prompt.
 *
 * Doors, streams and requests are the real ones; the loop is a thread that publishes token i as
 * prompt[i % prompt_tokens]. The tokenizer's functions are replaced (link no spw_tokenizer). Ids:
 * 0 unknown, 1 BOS, 2 EOS, byte + 3.
 *
 * A text prompt that begins with "!full", "!lost" or "!slow" (after BOS) ends with SPW_FULL
 * (retry after 7 s), SPW_PEER_LOST or SPW_TIMEOUT.
 */
#ifndef FAKE_SERVICE_H
#define FAKE_SERVICE_H

#include "runtime/door.h"

#include <pthread.h>

#define FAKE_VOCAB   259u
#define FAKE_CONTEXT 4096u

struct fake_service {
    struct spw_service service;
    struct spw_model_config model;
    struct spw_tenants *tenants; /* default, research, web */
    struct spw_door *door;
    pthread_t thread;
    atomic_bool stop;
    atomic_bool paused; /* no tokens */
    atomic_bool unready, unhealthy;
    atomic_uint tokens_per_turn; /* 0: all at once */
    atomic_uint turn_us;         /* rest between turns with work */
    atomic_uint live, cancelled, finished, failed;
    atomic_ulong published; /* tokens */
    atomic_uint tenant;     /* of the last request taken */
    int wake_fd;
};

void fake_service_init(struct fake_service *fake);
void fake_service_wake(void *context); /* wake_loop of the doors */
void fake_service_start(struct fake_service *fake, struct spw_door *door);
/* Ends every request with CANCELLED and stops. */
void fake_service_stop(struct fake_service *fake);
void fake_service_done(struct fake_service *fake);

#endif
