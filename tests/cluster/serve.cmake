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
# The planner against a deployment of one process; its accuracy is judged with SPW_TIMED=1.
if(TARGET spillway AND Python3_FOUND)
    add_test(NAME serve_plan COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/plan_test.py
        $<TARGET_FILE:spillway>)
    set_tests_properties(serve_plan PROPERTIES LABELS "cluster" TIMEOUT 300 RUN_SERIAL ON)
endif()
