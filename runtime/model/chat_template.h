/* chat_template.h - the Jinja dialect of chat templates: messages to prompt text.
 *
 * Room:      runtime/model
 * Threads:   immutable after compile; any thread may render at once
 * Ownership: the caller owns context and output
 * Errors:    a syntax error names line and what was found; raise_exception() in a template is
 * SPW_INVALID with its words. Steps, recursion and output are bounded.
 *
 * Semantics as Jinja2 3.1 in an immutable sandbox with trim_blocks, lstrip_blocks, loop controls,
 * `tojson` without ASCII escaping, raise_exception, strftime_now.
 */
#ifndef SPW_CHAT_TEMPLATE_H
#define SPW_CHAT_TEMPLATE_H

#include "runtime/base/buffer.h"
#include "runtime/base/status.h"

#include <jansson.h>

struct spw_chat_template;

enum spw_status spw_chat_template_compile(const char *source, size_t bytes,
                                          struct spw_chat_template **out_template,
                                          struct spw_error *error);
void spw_chat_template_destroy(struct spw_chat_template *chat_template); /* accepts NULL */

/* variables: a JSON object (messages, tools, add_generation_prompt, bos_token, ...), borrowed.
 * now_seconds: wall time (seconds since 1970, UTC) for strftime_now, so that rendering is a pure
 * function. Appends to out_text, whose limit bounds the output (SPW_TOO_LARGE).
 */
enum spw_status spw_chat_template_render(const struct spw_chat_template *chat_template,
                                         const json_t *variables, uint64_t now_seconds,
                                         struct spw_buffer *out_text, struct spw_error *error);

#endif
