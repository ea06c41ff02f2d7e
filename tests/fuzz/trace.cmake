# Traces from files.
if(TARGET spw_trace)
    spw_add_fuzz(trace ${CMAKE_CURRENT_LIST_DIR}/fuzz_trace.c spw_trace)
endif()
