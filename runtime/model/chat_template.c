#include "runtime/model/chat_template_int.h"

#include <stdlib.h>
#include <string.h>

enum spw_status spw_chat_template_compile(const char *source, size_t bytes,
                                          struct spw_chat_template **out_template,
                                          struct spw_error *error)
{
    assert(source || bytes == 0);
    struct spw_chat_template *chat_template = calloc(1, sizeof(*chat_template));
    if (!chat_template)
        return spw_fail(error, SPW_NO_MEMORY, "no memory for a chat template");
    chat_template->heap.bytes_max = SPW_CT_HEAP_BYTES_MAX;
    struct spw_ct_parser parser = {.chat_template = chat_template,
                                   .heap = &chat_template->heap,
                                   .error = error,
                                   .status = SPW_OK};
    spw_ct_lex(&parser, source, bytes);
    if (!parser.failed)
        spw_ct_parse(&parser);
    free(parser.tokens);
    if (parser.failed) {
        spw_chat_template_destroy(chat_template);
        return parser.status;
    }
    *out_template = chat_template;
    return SPW_OK;
}

void spw_chat_template_destroy(struct spw_chat_template *chat_template)
{
    if (!chat_template)
        return;
    spw_ct_heap_done(&chat_template->heap);
    free(chat_template);
}

/* For each name that the template uses: the variable, or the function that every template has. */
static void fill_context(struct spw_ct_run *run, const json_t *variables)
{
    const struct spw_chat_template *chat_template = run->chat_template;
    run->context = spw_ct_take(run, chat_template->symbols_count * sizeof(*run->context));
    for (uint32_t i = 0; i < chat_template->symbols_count && !run->failed; i++) {
        struct spw_ct_value name = chat_template->symbols[i];
        const json_t *variable = json_object_getn(variables, name.text, name.bytes);
        const struct spw_ct_function *function = variable ? NULL : spw_ct_global_find(name);
        if (variable)
            run->context[i] = spw_ct_from_json(run, variable, 0);
        else if (function)
            run->context[i] = (struct spw_ct_value){.kind = SPW_CT_FUNCTION, .function = function};
    }
}

enum spw_status spw_ct_render(const struct spw_chat_template *chat_template,
                              const json_t *variables, uint64_t now_seconds, uint64_t steps_max,
                              struct spw_buffer *out_text, struct spw_error *error)
{
    struct spw_ct_run run = {.chat_template = chat_template,
                             .error = error,
                             .status = SPW_OK,
                             .now_seconds = now_seconds,
                             .steps_left = steps_max,
                             .heap.bytes_max = SPW_CT_HEAP_BYTES_MAX};
    struct spw_ct_scope root = {0};
    size_t start = out_text->bytes;
    assert(chat_template && json_is_object(variables) && !out_text->failed);
    fill_context(&run, variables);
    if (!run.failed)
        spw_ct_exec(&run, &root, &chat_template->body, out_text);
    if (out_text->failed && !run.failed)
        spw_ct_fail_size(&run, "the output");
    if (run.failed) {
        out_text->bytes = start;
        out_text->failed = false;
    }
    spw_ct_heap_done(&run.heap);
    return run.status;
}

enum spw_status spw_chat_template_render(const struct spw_chat_template *chat_template,
                                         const json_t *variables, uint64_t now_seconds,
                                         struct spw_buffer *out_text, struct spw_error *error)
{
    return spw_ct_render(chat_template, variables, now_seconds, SPW_CT_STEPS_MAX, out_text, error);
}
