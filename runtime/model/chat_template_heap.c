/* The memory of a template and of a rendering: arenas in a row, and the first error. */
#include "runtime/model/chat_template_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)32 << 10)

struct spw_ct_chunk {
    struct spw_ct_chunk *next;
    struct spw_arena arena;
};

void spw_ct_heap_done(struct spw_ct_heap *heap)
{
    struct spw_ct_chunk *chunk = heap->chunks;
    while (chunk) {
        struct spw_ct_chunk *next = chunk->next;
        spw_arena_done(&chunk->arena);
        free(chunk);
        chunk = next;
    }
    *heap = (struct spw_ct_heap){0};
}

void *spw_ct_heap_take(struct spw_ct_heap *heap, size_t bytes)
{
    if (bytes > heap->bytes_max - heap->bytes_used)
        return NULL;
    void *piece = heap->chunks ? spw_arena_take(&heap->chunks->arena, bytes, 16) : NULL;
    if (!piece) {
        struct spw_ct_chunk *chunk = calloc(1, sizeof(*chunk));
        if (!chunk)
            return NULL;
        size_t want = SPW_MAX(CHUNK_BYTES, SPW_MIN(heap->bytes_used, 4u << 20));
        if (!spw_arena_create(&chunk->arena, SPW_MAX(want, bytes))) {
            free(chunk);
            return NULL;
        }
        chunk->next = heap->chunks;
        heap->chunks = chunk;
        piece = spw_arena_take(&chunk->arena, bytes, 16);
        assert(piece);
    }
    heap->bytes_used += bytes;
    return piece;
}

bool spw_ct_charge(struct spw_ct_run *run, uint64_t steps)
{
    if (run->failed)
        return false;
    if (steps > run->steps_left) {
        run->steps_left = 0;
        spw_ct_fail_size(run, "the number of steps");
        return false;
    }
    run->steps_left -= steps;
    return true;
}

void *spw_ct_take(struct spw_ct_run *run, size_t bytes)
{
    if (!spw_ct_charge(run, bytes / 64))
        return NULL;
    void *piece = spw_ct_heap_take(&run->heap, bytes);
    if (!piece)
        spw_ct_fail_size(run, "the memory");
    return piece;
}

struct spw_ct_value spw_ct_fail(struct spw_ct_run *run, const char *kind, const char *format, ...)
{
    if (!run->failed) {
        run->failed = true;
        run->status = SPW_INVALID;
        char text[SPW_ERROR_TEXT_MAX];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof(text), format, args);
        va_end(args);
        spw_fail(run->error, SPW_INVALID, "%s: %s (chat template line %u)", kind, text, run->line);
    }
    return (struct spw_ct_value){.kind = SPW_CT_UNDEFINED};
}

struct spw_ct_value spw_ct_fail_size(struct spw_ct_run *run, const char *what)
{
    if (!run->failed) {
        run->failed = true;
        run->status = SPW_TOO_LARGE;
        spw_fail(run->error, SPW_TOO_LARGE,
                 "%s of a rendering passes the limit (chat template line %u)", what, run->line);
    }
    return (struct spw_ct_value){.kind = SPW_CT_UNDEFINED};
}

struct spw_ct_value spw_ct_fail_undefined(struct spw_ct_run *run, struct spw_ct_value value)
{
    const struct spw_ct_undefined *why = value.undefined;
    if (run->failed || !why)
        return spw_ct_fail(run, "UndefinedError", "undefined value");
    const char *kind = why->unsafe ? "SecurityError" : "UndefinedError";
    struct spw_buffer text;
    spw_ct_buffer_init(&text);
    if (why->hint) {
        spw_buffer_add_text(&text, why->hint);
    } else if (why->unsafe) {
        spw_buffer_add_text(&text, "access to attribute ");
        spw_ct_print_repr(run, &text, why->name);
        spw_buffer_format(&text, " of '%s' object is unsafe.", spw_ct_type_name(why->object));
    } else if (why->object.kind == SPW_CT_MISSING) {
        spw_ct_print_repr(run, &text, why->name);
        spw_buffer_add_text(&text, " is undefined");
    } else {
        const char *type = spw_ct_type_name(why->object);
        const char *module = "";
        if (why->object.kind == SPW_CT_NAMESPACE)
            module = "jinja2.utils.";
        if (why->object.kind == SPW_CT_MACRO || why->object.kind == SPW_CT_LOOP)
            module = "jinja2.runtime.";
        bool named = why->name.kind == SPW_CT_STRING;
        const char *quote = named ? "'" : "";
        if (why->object.kind == SPW_CT_NONE)
            spw_buffer_format(&text, "%sNone%s", quote, quote);
        else
            spw_buffer_format(&text, "%s%s%s object%s", quote, module, type, quote);
        spw_buffer_add_text(&text, named ? " has no attribute " : " has no element ");
        spw_ct_print_repr(run, &text, why->name);
    }
    struct spw_ct_value result = spw_ct_fail(run, kind, "%s", spw_buffer_text(&text));
    spw_buffer_done(&text);
    return result;
}

void spw_ct_buffer_init(struct spw_buffer *buffer)
{
    spw_buffer_init(buffer, SPW_CT_HEAP_BYTES_MAX);
}

struct spw_ct_value spw_ct_collect(struct spw_ct_run *run, struct spw_buffer *buffer)
{
    struct spw_ct_value result;
    if (buffer->failed)
        result = spw_ct_fail_size(run, "a text");
    else
        result = spw_ct_copy(run, (const char *)buffer->data, buffer->bytes);
    spw_buffer_done(buffer);
    return result;
}
