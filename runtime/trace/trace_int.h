/* trace_int.h - a trace while it grows, shared by the reader and the makers.
 *
 * Room:      runtime/trace
 * Threads:   one owner
 * Ownership: the builder owns the trace until it is handed over
 */
#ifndef SPW_TRACE_INT_H
#define SPW_TRACE_INT_H

#include "runtime/trace/trace.h"

#define SPW_TRACE_TENANTS_MAX  1024u
#define SPW_TRACE_CLASSES_MAX  64u
#define SPW_TRACE_REQUESTS_MAX ((size_t)1 << 27)
#define SPW_TRACE_PREFIX_MAX   ((size_t)1 << 28)
#define SPW_TRACE_TOKENS_MAX   (1u << 24) /* of a prompt or an answer */
#define SPW_TRACE_ID_MAX       (((uint64_t)1 << 53) - 1)
#define SPW_TRACE_NS_MAX       ((uint64_t)1 << 62)

struct spw_trace_builder {
    struct spw_trace trace;
    size_t request_room, prefix_room;
};

/* With the default tenant and class; false when out of memory. */
bool spw_trace_builder_init(struct spw_trace_builder *builder);
/* Appends; false when out of memory or when the limit is reached. */
bool spw_trace_builder_request(struct spw_trace_builder *builder,
                               const struct spw_trace_request *request);
bool spw_trace_builder_prefix(struct spw_trace_builder *builder, uint64_t id);

#endif
