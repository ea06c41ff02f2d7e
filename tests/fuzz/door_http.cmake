# Fuzz target of the HTTP door: bodies.
if(TARGET spw_door_http)
    spw_add_fuzz(http_body fuzz_http_body.c spw_door_http)
endif()
