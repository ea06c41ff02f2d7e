/* strftime_now: dates in English, in UTC, with the codes that templates use. */
#include "runtime/model/chat_template_int.h"

#include <string.h>
#include <time.h>

struct spw_ct_value spw_ct_strftime(struct spw_ct_run *run, struct spw_ct_value format)
{
    if (format.kind != SPW_CT_STRING)
        return spw_ct_fail(run, "TypeError", "strftime() argument 1 must be str, not %s",
                           spw_ct_type_name(format));
    time_t now = (time_t)run->now_seconds;
    struct tm parts;
    if (!gmtime_r(&now, &parts))
        return spw_ct_fail(run, "ValueError", "time out of range");
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    for (size_t i = 0; i < format.bytes; i++) {
        if (format.text[i] != '%' || i + 1 == format.bytes) {
            spw_buffer_add_u8(&out, (uint8_t)format.text[i]);
            continue;
        }
        char code[4] = {'%', format.text[++i], '\0', '\0'};
        if (code[1] == '-' && i + 1 < format.bytes)
            code[2] = format.text[++i];
        char piece[128];
        char last = code[2] ? code[2] : code[1];
        if (last == 'f') {
            spw_buffer_add_text(&out, "000000");
        } else if (last == 'z' || last == 'Z') {
            /* a time without a zone prints none */
        } else if (!strchr("aAwdbBmyYHIpMSjUWcxX%GuVDFTRehnt", last) || last == '\0') {
            spw_buffer_add_text(&out, code);
        } else {
            spw_buffer_add(&out, piece, strftime(piece, sizeof(piece), code, &parts));
        }
    }
    return spw_ct_collect(run, &out);
}
