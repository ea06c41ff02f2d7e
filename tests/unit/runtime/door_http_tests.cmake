# Tests of the HTTP door; included by this folder's CMakeLists.txt.
if(TARGET spw_door_http)
    set(spw_http_help http_fake.c http_client.c)
    spw_add_test(test_door_http SOURCES test_door_http.c ${spw_http_help} LIBS spw_door_http)
    spw_add_test(test_door_http_full SOURCES test_door_http_full.c ${spw_http_help} LIBS spw_door_http)
    spw_add_test(test_door_http_stream SOURCES test_door_http_stream.c ${spw_http_help}
        LIBS spw_door_http)
    pkg_check_modules(SPW_openssl IMPORTED_TARGET GLOBAL openssl)
    spw_add_test(test_door_http_tls
        SOURCES test_door_http_tls.c ../proto/certificates.c ${spw_http_help}
        LIBS spw_door_http PkgConfig::SPW_openssl)
    # The same for a client in another language: tests/cluster/openai_client_test.py.
    add_executable(spw_http_fake_server http_fake_server.c http_fake.c)
    target_link_libraries(spw_http_fake_server PRIVATE spw_door_http spw_flags)
    target_compile_definitions(spw_http_fake_server PRIVATE _GNU_SOURCE
        SPW_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
    set_target_properties(spw_http_fake_server PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
endif()
