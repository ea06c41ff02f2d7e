# Tests of the HTTP door; included by this folder's CMakeLists.txt.
if(TARGET spw_door_http)
    spw_add_test(test_door_http SOURCES test_door_http.c http_fake.c http_client.c LIBS spw_door_http)
    spw_add_test(test_door_http_stream SOURCES test_door_http_stream.c http_fake.c http_client.c
        LIBS spw_door_http)
endif()
