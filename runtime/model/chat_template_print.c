/* str() and repr() of values, as Python prints them. */
#include "runtime/model/chat_template_int.h"

#include <string.h>

static void print_text_repr(struct spw_buffer *out, struct spw_ct_value text)
{
    bool single = memchr(text.text, '\'', text.bytes) != NULL;
    bool twofold = memchr(text.text, '"', text.bytes) != NULL;
    uint32_t quote = single && !twofold ? '"' : '\'';
    spw_buffer_add_u8(out, (uint8_t)quote);
    for (size_t at = 0; at < text.bytes && !out->failed;) {
        uint32_t point = spw_ct_point(text.text, text.bytes, &at);
        if (point == quote || point == '\\')
            spw_buffer_format(out, "\\%c", (int)point);
        else if (point == '\n')
            spw_buffer_add_text(out, "\\n");
        else if (point == '\r')
            spw_buffer_add_text(out, "\\r");
        else if (point == '\t')
            spw_buffer_add_text(out, "\\t");
        else if (spw_ct_is_printable(point))
            spw_ct_add_point(out, point);
        else
            spw_buffer_format(out,
                              point < 0x100     ? "\\x%02x"
                              : point < 0x10000 ? "\\u%04x"
                                                : "\\U%08x",
                              point);
    }
    spw_buffer_add_u8(out, (uint8_t)quote);
}

static void print_list(struct spw_ct_run *run, struct spw_buffer *out,
                       const struct spw_ct_list *list, const char *open, const char *close)
{
    spw_buffer_add_text(out, open);
    for (size_t i = 0; i < list->count && !run->failed && !out->failed; i++) {
        if (i > 0)
            spw_buffer_add_text(out, ", ");
        spw_ct_print_repr(run, out, list->items[i]);
    }
    spw_buffer_add_text(out, close);
}

static void print_dict(struct spw_ct_run *run, struct spw_buffer *out,
                       const struct spw_ct_dict *dict)
{
    spw_buffer_add_text(out, "{");
    for (size_t i = 0; i < dict->count && !run->failed && !out->failed; i++) {
        if (i > 0)
            spw_buffer_add_text(out, ", ");
        spw_ct_print_repr(run, out, dict->pairs[i].key);
        spw_buffer_add_text(out, ": ");
        spw_ct_print_repr(run, out, dict->pairs[i].value);
    }
    spw_buffer_add_text(out, "}");
}

static void print_view(struct spw_ct_run *run, struct spw_buffer *out, struct spw_ct_value view)
{
    const struct spw_ct_list *items = spw_ct_iterate(run, view);
    if (!items)
        return;
    spw_buffer_format(out, "%s(", spw_ct_type_name(view));
    print_list(run, out, items, "[", "])");
}

static void print_range(struct spw_buffer *out, const struct spw_ct_range *range)
{
    spw_buffer_format(out, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1)
        spw_buffer_format(out, ", %lld", (long long)range->step);
    spw_buffer_add_text(out, ")");
}

static void print_object(struct spw_ct_run *run, struct spw_buffer *out, struct spw_ct_value value)
{
    switch (value.kind) {
    case SPW_CT_NONE:
        spw_buffer_add_text(out, "None");
        break;
    case SPW_CT_BOOL:
        spw_buffer_add_text(out, value.truth ? "True" : "False");
        break;
    case SPW_CT_INT:
        spw_buffer_format(out, "%lld", (long long)value.integer);
        break;
    case SPW_CT_FLOAT:
        spw_ct_add_float(out, value.real);
        break;
    case SPW_CT_LIST:
        print_list(run, out, value.list, "[", "]");
        break;
    case SPW_CT_TUPLE:
        print_list(run, out, value.list, "(", value.list->count == 1 ? ",)" : ")");
        break;
    case SPW_CT_DICT:
        print_dict(run, out, value.dict);
        break;
    case SPW_CT_RANGE:
        print_range(out, value.range);
        break;
    case SPW_CT_VIEW:
        print_view(run, out, value);
        break;
    case SPW_CT_NAMESPACE:
        spw_buffer_add_text(out, "<Namespace ");
        print_dict(run, out, value.names);
        spw_buffer_add_text(out, ">");
        break;
    case SPW_CT_MACRO:
        spw_buffer_add_text(out, "<Macro ");
        spw_ct_print_repr(run, out, value.macro->node->value);
        spw_buffer_add_text(out, ">");
        break;
    case SPW_CT_LOOP:
        spw_buffer_format(out, "<LoopContext %zu/%zu>", value.loop->index + 1,
                          value.loop->items->count);
        break;
    default:
        /* Python shows an address here; there is nothing to be equal to */
        spw_buffer_format(out, "<%s object>", spw_ct_type_name(value));
        break;
    }
}

void spw_ct_print(struct spw_ct_run *run, struct spw_buffer *out, struct spw_ct_value value)
{
    if (value.kind == SPW_CT_STRING)
        spw_buffer_add(out, value.text, value.bytes);
    else if (value.kind != SPW_CT_UNDEFINED && value.kind != SPW_CT_MISSING)
        spw_ct_print_repr(run, out, value);
}

void spw_ct_print_repr(struct spw_ct_run *run, struct spw_buffer *out, struct spw_ct_value value)
{
    if (!spw_ct_charge(run, 1))
        return;
    if (value.kind == SPW_CT_STRING) {
        spw_ct_charge(run, value.bytes / 64);
        print_text_repr(out, value);
        return;
    }
    if (value.kind == SPW_CT_UNDEFINED || value.kind == SPW_CT_MISSING) {
        spw_buffer_add_text(out, "Undefined");
        return;
    }
    if (++run->depth > SPW_CT_DEPTH_MAX)
        spw_ct_fail_size(run, "the depth");
    else
        print_object(run, out, value);
    run->depth--;
}

struct spw_ct_value spw_ct_string(struct spw_ct_run *run, struct spw_ct_value value)
{
    if (value.kind == SPW_CT_STRING)
        return value;
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    spw_ct_print(run, &out, value);
    return spw_ct_collect(run, &out);
}

struct spw_ct_value spw_ct_repr(struct spw_ct_run *run, struct spw_ct_value value)
{
    struct spw_buffer out;
    spw_ct_buffer_init(&out);
    spw_ct_print_repr(run, &out, value);
    return spw_ct_collect(run, &out);
}
