# The HTTP door; included by this folder's CMakeLists.txt.
spw_library(spw_door_http
    SOURCES door_http.c door_http_listen.c door_http_call.c door_http_head.c
        door_http_fault.c door_http_ask.c
        door_http_fields.c door_http_messages.c door_http_answer.c door_http_text.c door_http_page.c
    LIBS spw_stream spw_base spw_tokenizer spw_chat_template spw_sample
    PKG libmicrohttpd gnutls jansson)
