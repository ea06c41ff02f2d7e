# Fuzz targets of the proto room: messages from clients, a connection's bytes, streamed answers.
if(TARGET spw_proto)
    spw_add_fuzz(proto_messages ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_proto_messages.c spw_proto)
    spw_add_fuzz(proto_http2 ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_proto_http2.c spw_proto)
    spw_add_fuzz(sse ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_sse.c spw_proto)
endif()
