# SPDX-License-Identifier: Apache-2.0
# The three functions every CMakeLists.txt of Ballast is written with: ballast_library, ballast_proto,
# ballast_test. Warnings and sanitizers live on the interface target ballast::warnings; nothing is set
# globally but the standard, the linker and the compiler cache.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# project() has put empty flags of the unknown build type Dev into the cache already, so set them by force.
foreach(language CXX C)
  if(NOT CMAKE_${language}_FLAGS_DEV)
    # -O1: a quarter less to compile than -O2, of which the engine alone has need.
    set(CMAKE_${language}_FLAGS_DEV "-O1 -g1"
        CACHE STRING "Flags of the Dev build type: optimised, assertions on" FORCE)
  endif()
endforeach()

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
      CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE_PROGRAM})
endif()
# GCC gives most of a fifth of its time to collecting what it would have freed at its end a second later.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:--param=ggc-min-heapsize=1000000>)
endif()
find_program(MOLD_PROGRAM mold)
if(MOLD_PROGRAM AND NOT BALLAST_SANITIZER)
  add_link_options(-fuse-ld=mold)
endif()

add_library(ballast_warnings INTERFACE)
add_library(ballast::warnings ALIAS ballast_warnings)
target_compile_options(ballast_warnings INTERFACE -Wall -Wextra -Wno-unused-parameter
                                                  -Wno-missing-field-initializers)
# GCC 12 sees overlapping copies in std::string where there are none, at -O3 (GCC bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(ballast_warnings INTERFACE $<$<CONFIG:Release>:-Wno-restrict>)
endif()
if(BALLAST_WERROR)
  target_compile_options(ballast_warnings INTERFACE -Werror)
endif()
if(BALLAST_SANITIZER MATCHES "^address(-undefined)?$")
  # UBSan's checks of every pointer (null, alignment, object-size, vptr) double the time to compile and find
  # little that AddressSanitizer does not, so 'address' has the others only.
  set(_undefined bool bounds builtin enum float-cast-overflow integer-divide-by-zero return shift
                 signed-integer-overflow unreachable vla-bound)
  if(BALLAST_SANITIZER STREQUAL "address-undefined")
    set(_undefined undefined)
  endif()
  list(JOIN _undefined "," _undefined)
  add_compile_options(-O1 -fsanitize=address,${_undefined} -fno-omit-frame-pointer -fno-sanitize-recover=${_undefined})
  add_link_options(-fsanitize=address,undefined)
elseif(BALLAST_SANITIZER STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
  include(${CMAKE_CURRENT_LIST_DIR}/tsan.cmake)
elseif(BALLAST_SANITIZER)
  message(FATAL_ERROR "BALLAST_SANITIZER must be empty, 'address', 'address-undefined' or 'thread', not '${BALLAST_SANITIZER}'")
endif()

# ballast_precompile(<target> <headers>): what most of the target's sources begin with, parsed once for all of them.
# CMAKE_DISABLE_PRECOMPILE_HEADERS (presets release and tsan) builds without, so that each source names what it uses.
function(ballast_precompile target)
  list(TRANSFORM ARGN PREPEND "$<$<COMPILE_LANGUAGE:CXX>:" OUTPUT_VARIABLE headers)
  list(TRANSFORM headers APPEND ">")
  target_precompile_headers(${target} PRIVATE ${headers})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT CMAKE_DISABLE_PRECOMPILE_HEADERS)
    # The one for ccache; the other since GCC 12 forgets there what is a system header and sees overruns in std::string
    # that are none. The presets without precompiled headers have that warning.
    target_compile_options(${target} PRIVATE -fpch-preprocess -Wno-array-bounds)
  endif()
endfunction()

# ballast_library(NAME <part>_<name> SRCS <sources and headers> DEPS <targets> [PRECOMPILE <headers>])
# makes the static library ballast_<NAME> with the alias ballast::<NAME>; without sources, an interface.
function(ballast_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS;PRECOMPILE" ${ARGN})
  set(compiled ${ARG_SRCS})
  list(FILTER compiled EXCLUDE REGEX "\\.h$")
  if(compiled)
    add_library(ballast_${ARG_NAME} STATIC ${ARG_SRCS})
    target_include_directories(ballast_${ARG_NAME} PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(ballast_${ARG_NAME} PUBLIC ${ARG_DEPS} PRIVATE ballast::warnings)
    if(ARG_PRECOMPILE)
      ballast_precompile(ballast_${ARG_NAME} ${ARG_PRECOMPILE})
    endif()
  else()
    add_library(ballast_${ARG_NAME} INTERFACE)
    target_include_directories(ballast_${ARG_NAME} INTERFACE ${CMAKE_SOURCE_DIR})
    target_link_libraries(ballast_${ARG_NAME} INTERFACE ${ARG_DEPS})
  endif()
  add_library(ballast::${ARG_NAME} ALIAS ballast_${ARG_NAME})
endfunction()

# ballast_proto(NAME <name> ROOT <import root> PROTOS <files relative to ROOT> [GRPC] DEPS <targets>)
# generates C++ (and gRPC stubs with GRPC) under the build folder and makes ballast::<NAME>.
function(ballast_proto)
  cmake_parse_arguments(ARG "GRPC" "NAME;ROOT" "PROTOS;DEPS;IMPORTS" ${ARGN})
  set(out ${CMAKE_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${out})
  set(generated)
  set(includes -I ${ARG_ROOT})
  foreach(dir ${ARG_IMPORTS})
    list(APPEND includes -I ${dir})
  endforeach()
  foreach(proto ${ARG_PROTOS})
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    set(outputs ${out}/${stem}.pb.cc ${out}/${stem}.pb.h)
    set(flags --cpp_out=${out})
    if(ARG_GRPC)
      list(APPEND outputs ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
      list(APPEND flags --grpc_out=${out} --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>)
    endif()
    add_custom_command(
      OUTPUT ${outputs}
      COMMAND protobuf::protoc --fatal_warnings ${includes} ${flags} ${proto}
      DEPENDS ${ARG_ROOT}/${proto}
      VERBATIM)
    list(APPEND generated ${outputs})
  endforeach()
  add_library(ballast_${ARG_NAME} STATIC ${generated})
  if(BALLAST_SANITIZER MATCHES "^address")
    # protoc's code over an uninstrumented libprotobuf: nothing of ours to find, and slow to build.
    target_compile_options(ballast_${ARG_NAME} PRIVATE -fno-sanitize=all)
  endif()
  target_include_directories(ballast_${ARG_NAME} SYSTEM PUBLIC ${out})
  target_link_libraries(ballast_${ARG_NAME} PUBLIC protobuf::libprotobuf ${ARG_DEPS})
  if(ARG_GRPC)
    target_link_libraries(ballast_${ARG_NAME} PUBLIC gRPC::grpc++)
    # A stub is twenty lines of its own under 200,000 of gRPC's. Messages can't be joined: their tables have equal names.
    set(messages ${generated})
    list(FILTER messages EXCLUDE REGEX "\\.grpc\\.pb\\.cc$")
    set_target_properties(ballast_${ARG_NAME} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 10)
    set_source_files_properties(${messages} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
  endif()
  add_library(ballast::${ARG_NAME} ALIAS ballast_${ARG_NAME})
endfunction()

# How to reach the tests' PostgreSQL server and their object store (tests/services).
set(BALLAST_POSTGRES_FILE ${CMAKE_BINARY_DIR}/services/postgres)
set(BALLAST_OBJECT_STORE_FILE ${CMAKE_BINARY_DIR}/services/object_store)

# ballast_test(NAME <name> SRCS <sources> DEPS <targets> [LABEL unit|integration|parity|e2e] [ENV VAR=value ...]
#   [POSTGRES | ALSO_ON_POSTGRES] [OBJECT_STORE] [PRECOMPILE <headers>])
# makes a GoogleTest program and one ctest entry per test case. POSTGRES: its cases have a PostgreSQL server;
# ALSO_ON_POSTGRES: they run a second time, with one, under names "postgres.<case>". OBJECT_STORE: its cases have a server
# that speaks S3.
#
# The target unit_tests builds all of label unit; where a folder sets BALLAST_NEEDS_TORCH, the label of its own is unit-torch.
# The target unsanitized builds what the preset asan need not repeat for scripts/test: the programs (see CMakeLists.txt
# of the top), and all tests but the unit tests that do without libtorch.
add_custom_target(unit_tests)
add_custom_target(unsanitized)
function(ballast_test)
  cmake_parse_arguments(ARG "POSTGRES;ALSO_ON_POSTGRES;OBJECT_STORE" "NAME;LABEL;TIMEOUT" "SRCS;DEPS;ENV;PRECOMPILE" ${ARGN})
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE ${ARG_DEPS} ballast::warnings GTest::gmock GTest::gtest_main)
  if(ARG_PRECOMPILE)
    ballast_precompile(${ARG_NAME} <gmock/gmock.h> ${ARG_PRECOMPILE})
  endif()
  if(ARG_LABEL STREQUAL "unit")
    add_dependencies(unit_tests ${ARG_NAME})
    if(BALLAST_NEEDS_TORCH)
      set(ARG_LABEL unit-torch)
    endif()
  endif()
  if(NOT ARG_LABEL STREQUAL "unit")
    add_dependencies(unsanitized ${ARG_NAME})
  endif()
  include(GoogleTest)
  set(discovery DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60)
  set(properties LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT})
  set(on_postgres FIXTURES_REQUIRED postgres
    ENVIRONMENT_MODIFICATION BALLAST_POSTGRES_FILE=set:${BALLAST_POSTGRES_FILE})
  if(ARG_POSTGRES)
    list(APPEND properties ${on_postgres})
  endif()
  if(ARG_OBJECT_STORE)
    list(APPEND properties FIXTURES_REQUIRED object_store
      ENVIRONMENT_MODIFICATION BALLAST_OBJECT_STORE_FILE=set:${BALLAST_OBJECT_STORE_FILE})
  endif()
  gtest_discover_tests(${ARG_NAME} ${discovery} PROPERTIES ${properties} ENVIRONMENT "${ARG_ENV}")
  if(ARG_ALSO_ON_POSTGRES)
    gtest_discover_tests(${ARG_NAME} ${discovery} TEST_PREFIX postgres. TEST_LIST ${ARG_NAME}_on_postgres
      PROPERTIES ${properties} ${on_postgres} ENVIRONMENT "${ARG_ENV}")
  endif()
endfunction()
