/* door_http_fault.c - what a client is told when its request is refused or fails. */
#include "runtime/door_http_int.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool spw_http_refuse(struct spw_http_fault *fault, int status, const char *code, const char *param,
                     const char *format, ...)
{
    if (fault->status)
        return false;
    fault->status = status;
    fault->code = code;
    snprintf(fault->param, sizeof(fault->param), "%s", param ? param : "");
    va_list args;
    va_start(args, format);
    vsnprintf(fault->error.text, sizeof(fault->error.text), format, args);
    va_end(args);
    return false;
}

void spw_http_fault_of(struct spw_http_fault *fault, enum spw_status status, const char *param,
                       const struct spw_error *error)
{
    static const struct {
        enum spw_status status;
        int http;
        const char *code;
    } rows[] = {
        {SPW_INVALID, 400, "invalid_value"},    {SPW_TOO_LARGE, 400, "context_length_exceeded"},
        {SPW_UNSUPPORTED, 400, "unsupported"},  {SPW_NOT_FOUND, 404, "not_found"},
        {SPW_FULL, 429, "rate_limit_exceeded"}, {SPW_TIMEOUT, 504, "deadline_exceeded"},
        {SPW_CANCELLED, 503, "cancelled"},      {SPW_PEER_LOST, 503, "service_unavailable"},
    };
    const char *words = error && error->text[0] ? error->text : spw_status_text(status);
    for (size_t i = 0; i < SPW_ARRAY_COUNT(rows); i++)
        if (rows[i].status == status) {
            bool of_body = rows[i].http == 400;
            spw_http_refuse(fault, rows[i].http, rows[i].code, of_body ? param : "", "%s", words);
            return;
        }
    spw_http_refuse(fault, 500, "internal_error", "", "%s", words);
}

static const char *type_of(int status)
{
    if (status == 429)
        return "rate_limit_error";
    if (status == 403)
        return "permission_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

void spw_http_fault_json(const struct spw_http_fault *fault, struct spw_buffer *out)
{
    spw_buffer_add_text(out, "{\"error\":{\"message\":");
    spw_http_json_string(out, fault->error.text, strlen(fault->error.text));
    spw_buffer_format(out, ",\"type\":\"%s\",\"param\":", type_of(fault->status));
    if (fault->param[0])
        spw_http_json_string(out, fault->param, strlen(fault->param));
    else
        spw_buffer_add_text(out, "null");
    spw_buffer_format(out, ",\"code\":\"%s\"}}", fault->code);
}
