# The chat template interpreter; included by this folder's CMakeLists.txt.
spw_library(spw_chat_template
    SOURCES chat_template.c chat_template_heap.c chat_template_lex.c chat_template_parse.c
        chat_template_parse_expr.c chat_template_value.c chat_template_print.c chat_template_text.c
        chat_template_unicode.c chat_template_number.c chat_template_format.c chat_template_json.c
        chat_template_time.c chat_template_attr.c chat_template_method.c chat_template_call.c
        chat_template_filter.c chat_template_filter_list.c chat_template_test.c
        chat_template_eval.c chat_template_exec.c
    LIBS spw_base
    PKG jansson)
