/* UCX: the endpoint. Only tp_ucx*.c call it.
 *
 * One context, one worker, one endpoint per peer with peer error handling. Callbacks of UCX set
 * flags and copy bytes; UCX is called from outside of them only. What arrived waits in a bounded
 * inbox for poll, so that wait can make progress without running a handler.
 *
 * Who is heard (C9): addresses travel with a random number per process start. A peer's first
 * message carries an HMAC over both ranks and both numbers; each later one a tag that only holders
 * of the secret can compute for this pair of processes. Anything else is dropped and logged by
 * rank. That is proof of origin at the start, not encryption: who can change bytes between the
 * hosts is not kept out.
 */
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "transport/tp_ucx_int.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum spw_status spw_ucx_status_of(ucs_status_t status)
{
    switch (status) {
    case UCS_OK:
        return SPW_OK;
    case UCS_ERR_NO_MEMORY:
        return SPW_NO_MEMORY;
    case UCS_ERR_INVALID_PARAM:
        return SPW_INVALID;
    case UCS_ERR_UNSUPPORTED:
        return SPW_UNSUPPORTED;
    case UCS_ERR_NO_DEVICE:
    case UCS_ERR_IO_ERROR:
        return SPW_IO;
    default:
        return SPW_PEER_LOST;
    }
}

static uint32_t ucx_poll(struct spw_tp *tp, uint32_t messages_max)
{
    struct ucx *ucx = ucx_of(tp);
    uint32_t handled = 0;
    struct spw_tp_message message;
    /* A few rounds while something moves: bounded work per turn. */
    for (int round = 0; round < 16 && ucx->inbox.used < INBOX_HIGH; round++)
        if (!spw_ucx_progress(ucx))
            break;
    uint64_t limit = ucx->inbox.pushed; /* what handlers lead to waits for the next turn */
    while (handled < messages_max && ucx->inbox.popped < limit &&
           spw_tp_queue_peek(&ucx->inbox, &message)) {
        uint8_t *data = spw_tp_scratch_for(&ucx->scratch, message.bytes);
        if (!data)
            break;
        spw_tp_queue_pop(&ucx->inbox, data);
        handled++;
        if (ucx->peers[message.peer].state == SPW_TP_PEER_DEAD)
            tp->counters.messages_dropped++;
        else
            spw_tp_dispatch(tp, message.peer, message.type, data, message.bytes);
    }
    if (ucx->failures)
        spw_ucx_raise_failures(ucx);
    return handled;
}

static bool take_wake(struct ucx *ucx)
{
    if (!atomic_load_explicit(&ucx->woken, memory_order_relaxed))
        return false;
    uint64_t count;
    ssize_t got = read(ucx->wake_fd, &count, sizeof(count));
    (void)got; /* nothing to read yet: the write of who set the flag comes, for nothing */
    atomic_store(&ucx->woken, false);
    return true;
}

static void ucx_wait(struct spw_tp *tp, uint64_t timeout_ns)
{
    struct ucx *ucx = ucx_of(tp);
    uint64_t start = spw_clock_monotonic_ns();
    uint64_t end = start + SPW_MIN(timeout_ns, 3600 * SPW_SECOND);
    uint64_t spin_end = SPW_MIN(start + tp->spin_ns, end);
    for (;;) {
        if (ucx->inbox.popped != ucx->inbox.pushed || ucx->failures || take_wake(ucx))
            return;
        if (spw_ucx_progress(ucx)) {
            if (ucx->inbox.popped != ucx->inbox.pushed || ucx->failures)
                return;
            if (spw_clock_monotonic_ns() < end)
                continue; /* until nothing moves any more: only then may the worker be armed */
            return;
        }
        uint64_t now = spw_clock_monotonic_ns();
        if (now >= end)
            return;
        if (now < spin_end) {
            spw_tp_relax();
            continue;
        }
        ucs_status_t armed = ucp_worker_arm(ucx->worker);
        if (armed == UCS_ERR_BUSY)
            continue;
        struct pollfd fds[2] = {{.fd = ucx->wake_fd, .events = POLLIN},
                                {.fd = ucx->event_fd, .events = POLLIN}};
        uint64_t left = end - now;
        if (armed != UCS_OK)
            left = SPW_MIN(left, SPW_MS); /* cannot sleep on it: look again soon */
        struct timespec timeout = {.tv_sec = (time_t)(left / SPW_SECOND),
                                   .tv_nsec = (long)(left % SPW_SECOND)};
        tp->counters.sleeps++;
        (void)ppoll(fds, armed == UCS_OK ? 2 : 1, &timeout, NULL);
        take_wake(ucx);
        spw_ucx_progress(ucx);
        return;
    }
}

static void ucx_wake(struct spw_tp *tp)
{
    struct ucx *ucx = ucx_of(tp);
    uint64_t one = 1;
    if (atomic_exchange(&ucx->woken, true))
        return;
    ssize_t wrote = write(ucx->wake_fd, &one, sizeof(one));
    (void)wrote; /* can only fail when the counter is full: then it is readable anyway */
}

static void free_closed(struct peer *peer)
{
    if (peer->closing && ucp_request_check_status(peer->closing) != UCS_INPROGRESS) {
        ucp_request_free(peer->closing);
        peer->closing = NULL;
    }
}

static enum spw_tp_peer_state ucx_peer_state(struct spw_tp *tp, uint32_t rank)
{
    assert(rank < tp->ranks);
    return ucx_of(tp)->peers[rank].state;
}

static void ucx_peer_abort(struct spw_tp *tp, uint32_t rank)
{
    struct ucx *ucx = ucx_of(tp);
    assert(rank < tp->ranks && rank != tp->rank);
    struct peer *peer = &ucx->peers[rank];
    if (peer->failed) {
        peer->failed = false;
        ucx->failures--;
    }
    peer->state = SPW_TP_PEER_DEAD;
    spw_ucx_close_endpoint(peer);
    spw_ucx_progress(ucx);
}

/* Tell everybody, and wait a moment until they heard: what was sent last may still lie in this
 * process's memory. */
static void say_goodbye(struct ucx *ucx)
{
    uint64_t end = spw_clock_monotonic_ns() + CLOSE_NS;
    uint32_t told = 0;
    bool waiting = true;
    while (waiting && spw_clock_monotonic_ns() < end) {
        spw_ucx_progress(ucx);
        waiting = false;
        for (uint32_t rank = 0; rank < ucx->tp.ranks; rank++) {
            struct peer *peer = &ucx->peers[rank];
            if (!peer->ep || peer->failed || peer->bye_heard)
                continue;
            if (rank >= told) {
                if (spw_ucx_send_control(ucx, rank, HEAD_BYE) == SPW_FULL) {
                    waiting = true;
                    break;
                }
                told = rank + 1;
            }
            waiting = true;
        }
        struct timespec pause = {.tv_nsec = 100000};
        if (waiting)
            nanosleep(&pause, NULL);
    }
}

static void ucx_close(struct spw_tp *tp)
{
    struct ucx *ucx = ucx_of(tp);
    if (ucx->worker && ucx->peers)
        say_goodbye(ucx);
    while (ucx->remotes)
        spw_ucx_remote_close(tp, ucx->remotes);
    while (ucx->memories)
        spw_ucx_memory_destroy(tp, ucx->memories);
    for (uint32_t rank = 0; ucx->peers && rank < tp->ranks; rank++)
        spw_ucx_close_endpoint(&ucx->peers[rank]);
    if (ucx->worker) {
        uint64_t end = spw_clock_monotonic_ns() + CLOSE_NS;
        bool open = true;
        while (open && spw_clock_monotonic_ns() < end) {
            spw_ucx_progress(ucx);
            open = false;
            for (uint32_t rank = 0; ucx->peers && rank < tp->ranks; rank++) {
                free_closed(&ucx->peers[rank]);
                open |= ucx->peers[rank].closing || ucx->peers[rank].slots;
            }
        }
        spw_ucx_reap(ucx);
        ucp_worker_destroy(ucx->worker);
    }
    if (ucx->context)
        ucp_cleanup(ucx->context);
    if (ucx->wake_fd >= 0)
        close(ucx->wake_fd);
    for (uint32_t rank = 0; ucx->peers && rank < tp->ranks; rank++)
        spw_tp_scratch_done(&ucx->peers[rank].partial);
    spw_tp_queue_done(&ucx->inbox);
    spw_tp_scratch_done(&ucx->scratch);
    spw_tp_head_done(tp);
    free(ucx->peers);
    free(ucx->slots);
    free(ucx->transfers);
    free(ucx);
}

static const struct spw_tp_ops ucx_ops = {
    .name = "ucx",
    .send = spw_ucx_send,
    .poll = ucx_poll,
    .wait = ucx_wait,
    .wake = ucx_wake,
    .memory_create = spw_ucx_memory_create,
    .memory_destroy = spw_ucx_memory_destroy,
    .memory_pack = spw_ucx_memory_pack,
    .remote_open = spw_ucx_remote_open,
    .remote_close = spw_ucx_remote_close,
    .remote_map = spw_ucx_remote_map,
    .put = spw_ucx_put,
    .get = spw_ucx_get,
    .cancel = spw_ucx_cancel,
    .peer_state = ucx_peer_state,
    .peer_abort = ucx_peer_abort,
    .close = ucx_close,
};

/* Options of whole contexts can be given to one; those of single transports only by the
 * environment, which is restored once the worker exists, so that no child and no other library
 * inherits them. What the user set there stands. */
static const struct {
    const char *name, *value;
    bool by_environment;
} ucx_options[] = {
    /* With peer error handling UCX falls back to TCP inside a host without these. */
    {"UCX_POSIX_ERROR_HANDLING", "y", true},
    {"UCX_SYSV_ERROR_HANDLING", "y", true},
    {"KEEPALIVE_INTERVAL", "500ms", false},
    {"UCX_TCP_KEEPIDLE", "1s", true}, /* a silent link is noticed in about 3 s */
    {"UCX_TCP_KEEPINTVL", "1s", true},
    {"UCX_TCP_KEEPCNT", "2", true},
    {"UCX_TCP_CONN_NB", "y", true}, /* an unreachable host must not block the others */
    {"RNDV_THRESH", "inf", false},
    /* Memory that other processes can map, else pages from the kernel: zeroed all of it. */
    {"ALLOC_PRIO", "md:sysv,md:posix,mmap", false},
    {"HANDLE_ERRORS", "none", false}, /* signals are the program's */
    {"WARN_UNUSED_ENV_VARS", "n", false},
};

static void set_environment(bool set_here[SPW_ARRAY_COUNT(ucx_options)])
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ucx_options); i++) {
        set_here[i] = ucx_options[i].by_environment && !getenv(ucx_options[i].name);
        if (set_here[i])
            setenv(ucx_options[i].name, ucx_options[i].value, 0);
    }
}

static void restore_environment(const bool set_here[SPW_ARRAY_COUNT(ucx_options)])
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ucx_options); i++)
        if (set_here[i])
            unsetenv(ucx_options[i].name);
}

static void set_options(ucp_config_t *options)
{
    for (size_t i = 0; i < SPW_ARRAY_COUNT(ucx_options); i++) {
        char variable[64];
        snprintf(variable, sizeof(variable), "UCX_%s", ucx_options[i].name);
        if (ucx_options[i].by_environment || getenv(variable))
            continue;
        ucs_status_t status = ucp_config_modify(options, ucx_options[i].name, ucx_options[i].value);
        if (status != UCS_OK) /* another version: not an error */
            spw_log_debug("transport", "UCX does not take an option name=%s reason=\"%s\"",
                          ucx_options[i].name, ucs_status_string(status));
    }
}

static ucs_status_t create_context(struct ucx *ucx, bool tcp_only)
{
    ucp_config_t *options;
    ucs_status_t status = ucp_config_read(NULL, NULL, &options);
    if (status != UCS_OK)
        return status;
    if (tcp_only)
        ucp_config_modify(options, "TLS", "tcp,self");
    set_options(options);
    ucp_params_t params = {
        .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS |
                      UCP_PARAM_FIELD_MT_WORKERS_SHARED | UCP_PARAM_FIELD_NAME,
        .features = UCP_FEATURE_AM | UCP_FEATURE_RMA | UCP_FEATURE_WAKEUP,
        .estimated_num_eps = ucx->tp.ranks,
        .mt_workers_shared = 0,
        .name = "spillway",
    };
    status = ucp_init(&params, options, &ucx->context);
    ucp_config_release(options);
    return status;
}

static ucs_status_t create_worker(struct ucx *ucx)
{
    ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                  .thread_mode = UCS_THREAD_MODE_SINGLE};
    ucs_status_t status = ucp_worker_create(ucx->context, &params, &ucx->worker);
    if (status != UCS_OK)
        return status;
    status = ucp_worker_get_efd(ucx->worker, &ucx->event_fd);
    if (status != UCS_OK)
        return status;
    ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = AM_ID,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = spw_ucx_on_message,
        .arg = ucx,
    };
    return ucp_worker_set_am_recv_handler(ucx->worker, &handler);
}

static bool take_pools(struct ucx *ucx)
{
    ucx->peers = calloc(ucx->tp.ranks, sizeof(*ucx->peers));
    ucx->slots = calloc(SLOTS_MAX, sizeof(*ucx->slots)); /* pages appear when used */
    ucx->transfers = calloc(TRANSFERS_MAX, sizeof(*ucx->transfers));
    if (!ucx->peers || !ucx->slots || !ucx->transfers)
        return false;
    for (uint32_t i = SLOTS_MAX; i-- > 0;) {
        ucx->slots[i].next = ucx->free_slots;
        ucx->free_slots = &ucx->slots[i];
    }
    ucx->free_slot_count = SLOTS_MAX;
    for (uint32_t i = TRANSFERS_MAX; i-- > 0;) {
        ucx->transfers[i].next = ucx->free_transfers;
        ucx->free_transfers = &ucx->transfers[i];
    }
    spw_tp_queue_init(&ucx->inbox, INBOX_MAX);
    return true;
}

enum spw_status spw_tp_ucx_create(const struct spw_tp_ucx_config *config, struct spw_tp **out_tp,
                                  uint8_t *out_address, size_t *out_address_bytes,
                                  struct spw_error *error)
{
    assert(config->rank < config->ranks && config->ranks <= SPW_TP_PEERS_MAX);
    struct ucx *ucx = calloc(1, sizeof(*ucx));
    if (!ucx)
        return spw_fail(error, SPW_NO_MEMORY, "out of memory");
    spw_tp_head_init(&ucx->tp, &ucx_ops, config->rank, config->ranks);
    uint32_t on_host = config->ranks_on_host ? config->ranks_on_host : config->ranks;
    ucx->tp.spin_ns = on_host <= spw_tp_cores() ? SPIN_NS : 0;
    ucx->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    enum spw_status status = SPW_OK;
    ucp_worker_attr_t attr = {.field_mask = UCP_WORKER_ATTR_FIELD_ADDRESS};
    if (ucx->wake_fd < 0 || !take_pools(ucx) || !spw_rng_system(&ucx->nonce, sizeof(ucx->nonce))) {
        status = spw_fail(error, SPW_NO_MEMORY, "no memory or descriptors for the transport");
        goto out;
    }
    bool set_here[SPW_ARRAY_COUNT(ucx_options)];
    set_environment(set_here);
    ucs_status_t rc = create_context(ucx, config->tcp_only);
    if (rc == UCS_OK)
        rc = create_worker(ucx);
    restore_environment(set_here);
    if (rc == UCS_OK)
        rc = ucp_worker_query(ucx->worker, &attr);
    if (rc != UCS_OK) {
        status = spw_fail(error, SPW_IO,
                          "UCX did not start: %s (UCX_TLS and UCX_NET_DEVICES choose"
                          " what it uses)",
                          ucs_status_string(rc));
        goto out;
    }
    struct address_head head = {.magic = MAGIC, .nonce = ucx->nonce};
    if (sizeof(head) + attr.address_length <= SPW_TP_ADDRESS_BYTES_MAX) {
        memcpy(out_address, &head, sizeof(head));
        memcpy(out_address + sizeof(head), attr.address, attr.address_length);
        *out_address_bytes = sizeof(head) + attr.address_length;
        *out_tp = &ucx->tp;
    } else {
        status = spw_fail(error, SPW_TOO_LARGE,
                          "UCX's address takes %zu bytes: limit the devices with UCX_NET_DEVICES",
                          attr.address_length);
    }
    ucp_worker_release_address(ucx->worker, attr.address);
out:
    if (status != SPW_OK)
        ucx_close(&ucx->tp);
    return status;
}

/* What `from` sends to `to` to show that it knows the secret. */
static struct spw_digest hello_digest(const uint8_t secret[32], uint32_t from, uint32_t to,
                                      uint64_t from_nonce, uint64_t to_nonce)
{
    struct {
        char what[16];
        uint32_t from, to;
        uint64_t from_nonce, to_nonce;
    } text = {"spillway hello", from, to, from_nonce, to_nonce};
    return spw_hmac_sha256(secret, 32, &text, sizeof(text));
}

static uint64_t tag_of(const uint8_t secret[32], const struct spw_digest *hello)
{
    struct spw_digest digest = spw_hmac_sha256(secret, 32, hello, sizeof(*hello));
    uint64_t tag;
    memcpy(&tag, &digest, sizeof(tag));
    return tag;
}

static enum spw_status connect_peer(struct ucx *ucx, uint32_t rank, const uint8_t *address,
                                    size_t address_bytes, const uint8_t secret[32],
                                    struct spw_error *error)
{
    struct peer *peer = &ucx->peers[rank];
    struct address_head head;
    uint32_t own = ucx->tp.rank;
    if (address_bytes <= sizeof(head) || address_bytes > SPW_TP_ADDRESS_BYTES_MAX)
        return spw_fail(error, SPW_INVALID, "rank %u gave no address", rank);
    memcpy(&head, address, sizeof(head));
    if (head.magic != MAGIC)
        return spw_fail(error, SPW_MISMATCH, "rank %u speaks another version", rank);
    peer->nonce = head.nonce;
    peer->hello_out = hello_digest(secret, own, rank, ucx->nonce, head.nonce);
    peer->hello_in = hello_digest(secret, rank, own, head.nonce, ucx->nonce);
    peer->tag_out = tag_of(secret, &peer->hello_out);
    peer->tag_in = tag_of(secret, &peer->hello_in);
    uint8_t aligned[SPW_TP_ADDRESS_BYTES_MAX];
    memcpy(aligned, address + sizeof(head), address_bytes - sizeof(head));
    ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = (const ucp_address_t *)(const void *)aligned,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = spw_ucx_on_endpoint_error, .arg = ucx},
    };
    ucs_status_t rc = ucp_ep_create(ucx->worker, &params, &peer->ep);
    if (rc != UCS_OK) {
        peer->ep = NULL;
        return spw_fail(error, SPW_PEER_LOST, "rank %u cannot be reached: %s", rank,
                        ucs_status_string(rc));
    }
    peer->state = SPW_TP_PEER_UP;
    return SPW_OK;
}

enum spw_status spw_tp_ucx_connect(struct spw_tp *tp, const uint8_t *const *addresses,
                                   const size_t *address_bytes, const uint8_t secret[32],
                                   struct spw_error *error)
{
    struct ucx *ucx = ucx_of(tp);
    assert(tp->ops == &ucx_ops);
    for (uint32_t rank = 0; rank < tp->ranks; rank++) {
        if (rank == tp->rank) {
            ucx->peers[rank].state = SPW_TP_PEER_UP;
            continue;
        }
        enum spw_status status =
            connect_peer(ucx, rank, addresses[rank], address_bytes[rank], secret, error);
        if (status != SPW_OK)
            return status;
    }
    /* All keys are known before the first message can arrive. */
    for (uint32_t step = 1; step < tp->ranks; step++) {
        uint32_t rank = (tp->rank + step) % tp->ranks;
        enum spw_status status;
        while ((status = spw_ucx_send_control(ucx, rank, HEAD_HELLO)) == SPW_FULL)
            spw_ucx_progress(ucx);
        if (status != SPW_OK && !ucx->peers[rank].failed)
            return spw_fail(error, status, "rank %u cannot be reached", rank);
    }
    return SPW_OK;
}
