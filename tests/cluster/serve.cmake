# Deployments of the real executable: one process and ranks under mpirun.
find_package(Python3 COMPONENTS Interpreter)
if(TARGET spillway AND Python3_FOUND AND SPW_WITH_MPI AND SPW_WITH_UCX)
    foreach(name failures many_clients commands clients kv_tiers prefix)
        add_test(NAME serve_${name} COMMAND ${Python3_EXECUTABLE}
            ${CMAKE_CURRENT_SOURCE_DIR}/${name}_test.py $<TARGET_FILE:spillway>)
        set_tests_properties(serve_${name} PROPERTIES LABELS "cluster;mpi" TIMEOUT 600 RUN_SERIAL ON
            SKIP_RETURN_CODE 77)
    endforeach()
endif()
# The load generator needs no MPI: a server in the test, and a deployment of one process.
if(TARGET spillway AND Python3_FOUND)
    add_test(NAME serve_load COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/load_test.py
        $<TARGET_FILE:spillway>)
    set_tests_properties(serve_load PROPERTIES LABELS "cluster" TIMEOUT 300 RUN_SERIAL ON)
endif()
# The planner against a deployment of one process; its accuracy is judged by launch/plan-accuracy.
if(TARGET spillway AND Python3_FOUND)
    add_test(NAME serve_plan COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/plan_test.py
        $<TARGET_FILE:spillway>)
    set_tests_properties(serve_plan PROPERTIES LABELS "cluster" TIMEOUT 300 RUN_SERIAL ON)
endif()
# Hits over a trace of conversations, simulated; says so and is skipped where the trace is missing.
if(TARGET spillway AND Python3_FOUND)
    add_test(NAME serve_hit_rate COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/hit_rate_test.py
        $<TARGET_FILE:spillway>)
    set_tests_properties(serve_hit_rate PROPERTIES LABELS "cluster" TIMEOUT 300 SKIP_RETURN_CODE 77)
endif()
# Builds with a bug (plants.txt), and the test that has to see it: a wrong block in the answers, the
# whole cost of recomputing in the worth of a block.
if(TARGET spillway AND Python3_FOUND AND NOT SPW_SANITIZE)
    set(plants ${CMAKE_CURRENT_SOURCE_DIR}/plants.txt)
    set(planter ${CMAKE_SOURCE_DIR}/tests/unit/scheduler/plant.cmake)
    function(spw_plant_spillway name file test)
        set(planted ${CMAKE_CURRENT_BINARY_DIR}/planted_${name}.c)
        add_custom_command(OUTPUT ${planted}
            COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DFROM=${CMAKE_SOURCE_DIR}/${file} -DTO=${planted}
                -DPLANTS=${plants} -P ${planter}
            DEPENDS ${CMAKE_SOURCE_DIR}/${file} ${plants} ${planter} VERBATIM)
        add_executable(spillway_${name} $<TARGET_OBJECTS:spw_cli> ${planted})
        target_link_libraries(spillway_${name} PRIVATE spw_cli)
        target_compile_definitions(spillway_${name} PRIVATE _GNU_SOURCE)
        set_target_properties(spillway_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
        add_test(NAME serve_${test}_${name} COMMAND ${Python3_EXECUTABLE}
            ${CMAKE_CURRENT_SOURCE_DIR}/${test}_test.py $<TARGET_FILE:spillway_${name}> --expect-failure)
        set_tests_properties(serve_${test}_${name} PROPERTIES LABELS "cluster" TIMEOUT 300 SKIP_RETURN_CODE 77)
    endfunction()
    spw_plant_spillway(wrong_token runtime/prefix.c prefix)
    spw_plant_spillway(wrong_chain runtime/prefix.c prefix)
    spw_plant_spillway(whole_cost scheduler/kv_index.c hit_rate)
    set_tests_properties(serve_prefix_wrong_token serve_prefix_wrong_chain PROPERTIES RUN_SERIAL ON)
endif()
