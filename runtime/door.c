#include "runtime/door.h"

#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Each request goes through the ring to the loop at most twice (submit, cancel) and has at most one
 * unread notice. With at most requests_max in the loop and at most requests_max submissions in the
 * ring there are at most 3 * requests_max entries; see submit and spw_door_loop_next, which keep
 * these bounds.
 */
#define RING_FACTOR 4u

enum spw_status spw_door_init(struct spw_door *door, const char *name,
                              const struct spw_service *service, void (*wake_loop)(void *context),
                              void *context)
{
    memset(door, 0, sizeof(*door));
    door->name = name;
    door->service = service;
    door->wake_loop = wake_loop;
    door->wake_loop_context = context;
    door->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    bool made = spw_ring_create(&door->to_loop, RING_FACTOR * service->requests_max) &&
                spw_ring_create(&door->from_loop, RING_FACTOR * service->requests_max);
    if (door->wake_fd < 0 || !made) {
        spw_door_done(door);
        return SPW_NO_MEMORY;
    }
    return SPW_OK;
}

void spw_door_done(struct spw_door *door)
{
    if (door->to_loop.slots)
        for (struct spw_request *left; (left = spw_ring_pop(&door->to_loop));)
            spw_request_release(left);
    if (door->from_loop.slots)
        for (struct spw_request *left; (left = spw_ring_pop(&door->from_loop));)
            spw_request_release(left);
    spw_ring_done(&door->to_loop);
    spw_ring_done(&door->from_loop);
    if (door->wake_fd >= 0)
        close(door->wake_fd);
    door->wake_fd = -1;
}

static void wake(struct spw_door *door)
{
    if (door->wake_loop)
        door->wake_loop(door->wake_loop_context);
}

enum spw_status spw_door_submit(struct spw_door *door, struct spw_request *request)
{
    if (spw_ring_count(&door->to_loop) >= door->service->requests_max)
        return SPW_FULL;
    request->door = door;
    bool pushed = spw_ring_push(&door->to_loop, request);
    assert(pushed);
    wake(door);
    return SPW_OK;
}

void spw_door_cancel(struct spw_door *door, struct spw_request *request, bool stopped)
{
    int wanted = SPW_REQUEST_WANTED;
    if (!atomic_compare_exchange_strong(&request->cancelled, &wanted,
                                        stopped ? SPW_REQUEST_STOPPED : SPW_REQUEST_GONE))
        return;
    if (atomic_load_explicit(&request->ended, memory_order_acquire))
        return;
    atomic_fetch_add(&request->references, 1); /* the ring's */
    bool pushed = spw_ring_push(&door->to_loop, request);
    assert(pushed);
    wake(door);
}

void spw_door_let_go(struct spw_door *door, struct spw_request *request)
{
    (void)door;
    request->door_context = NULL;
    spw_request_release(request);
}

struct spw_request *spw_door_next(struct spw_door *door)
{
    for (;;) {
        struct spw_request *request = spw_ring_pop(&door->from_loop);
        if (!request)
            return NULL;
        /* an exchange, not a store: it reads what the loop's wrote, and so sees what the loop
         * published before a notice that it left out */
        atomic_exchange(&request->notified, false);
        bool kept = request->door_context != NULL;
        spw_request_release(request); /* the notice's; while kept, the door's own holds it */
        if (kept)
            return request;
    }
}

void spw_door_clear_wake(struct spw_door *door)
{
    eventfd_t ignored;
    eventfd_read(door->wake_fd, &ignored);
}

struct spw_request *spw_door_loop_next(struct spw_door *door)
{
    /* every live request may need a place for its notice, and so does the next one */
    if (spw_ring_count(&door->from_loop) + door->live >= door->from_loop.mask)
        return NULL;
    return spw_ring_pop(&door->to_loop);
}

void spw_door_notify(struct spw_request *request)
{
    if (atomic_exchange(&request->notified, true))
        return;
    atomic_fetch_add(&request->references, 1); /* the notice's */
    bool pushed = spw_ring_push(&request->door->from_loop, request);
    assert(pushed);
    request->door->wake_pending = true;
}

void spw_door_flush(struct spw_door *door)
{
    if (!door->wake_pending)
        return;
    door->wake_pending = false;
    eventfd_write(door->wake_fd, 1);
}
