# SPDX-License-Identifier: Apache-2.0
# Finds libtorch and makes the target Torch::Torch.
#
#   TORCH_ROOT   a torch folder: site-packages/torch of the PyPI wheel (the default, from .venv), or an
#                official libtorch folder. It has include/ and lib/.
#
# Only libtorch_cpu and libc10 are linked, so that one binary serves CPU and GPU machines: with a driver
# present the worker opens libtorch_cuda at run time. find_package(Torch) of the wheel insists on a CUDA
# toolkit, hence this module (ADR 2).
if(NOT TORCH_ROOT)
  file(GLOB _torch_candidates "${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch")
  list(POP_FRONT _torch_candidates _torch_first)
  set(TORCH_ROOT "${_torch_first}" CACHE PATH "Folder of libtorch: has include/ and lib/" FORCE)
endif()
find_path(TORCH_INCLUDE_DIR NAMES ATen/ATen.h PATHS "${TORCH_ROOT}/include" NO_DEFAULT_PATH)
find_library(TORCH_CPU_LIBRARY NAMES torch_cpu PATHS "${TORCH_ROOT}/lib" NO_DEFAULT_PATH)
find_library(TORCH_C10_LIBRARY NAMES c10 PATHS "${TORCH_ROOT}/lib" NO_DEFAULT_PATH)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TorchWheel
  REQUIRED_VARS TORCH_INCLUDE_DIR TORCH_CPU_LIBRARY TORCH_C10_LIBRARY
  REASON_FAILURE_MESSAGE "Run scripts/setup, or give -DTORCH_ROOT=<torch or libtorch folder>.")
if(TorchWheel_FOUND AND NOT TARGET Torch::Torch)
  # The wheel's CUDA runtime packages lie beside torch; libtorch_cpu needs libcupti and libcudart to load.
  get_filename_component(_site "${TORCH_ROOT}" DIRECTORY)
  file(GLOB _nvidia_dirs "${_site}/nvidia/cu*/lib")
  add_library(Torch::Torch INTERFACE IMPORTED)
  target_include_directories(Torch::Torch SYSTEM INTERFACE
    "${TORCH_INCLUDE_DIR}" "${TORCH_INCLUDE_DIR}/torch/csrc/api/include")
  set(_rpath_flags "-Wl,-rpath,${TORCH_ROOT}/lib")
  set(_link_dirs)
  foreach(dir ${_nvidia_dirs})
    list(APPEND _rpath_flags "-Wl,-rpath,${dir}" "-Wl,-rpath-link,${dir}")
  endforeach()
  target_link_libraries(Torch::Torch INTERFACE
    "${TORCH_CPU_LIBRARY}" "${TORCH_C10_LIBRARY}" "-Wl,-rpath-link,${TORCH_ROOT}/lib" ${_rpath_flags})
endif()
