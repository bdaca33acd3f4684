// What only CUDA has: descriptions of GPUs, recorded work, and telling where the host waits. Compiled with the feature
// `cuda` only.

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <sstream>
#include <string>

#include <dlfcn.h>

#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>

#include "guard.h"

using fastclip::guarded;

struct fc_graph {
  at::cuda::CUDAGraph graph;
  // Asked of the graph itself, the pool is an error before a recording has succeeded.
  at::cuda::MempoolId_t pool;
  c10::DeviceIndex device;
};

namespace {

// The CUDA that the driver of this machine knows, as 1000 times its version; 0 without a driver. The run time is part of the
// process, as libtorch needs it, but where it lies to link against differs between the ways in which libtorch comes.
int driver_version() {
  using Version = cudaError_t (*)(int*);
  auto* find = reinterpret_cast<Version>(dlsym(RTLD_DEFAULT, "cudaDriverGetVersion"));
  TORCH_CHECK(find != nullptr, "the CUDA run time is not part of this process");
  int version = 0;
  // An error, too, stands for a driver that is not there: newer run times say so instead of 0.
  return find(&version) == cudaSuccess ? version : 0;
}

}  // namespace

fc_status fc_cuda_describe(int32_t device_index, uint8_t** text, size_t* text_len, char** message) {
  return guarded(message, [&] {
    const int driver = driver_version();
    const int runtime = CUDART_VERSION;
    // The driver says 0 where there is none, and the run time would then only say that it is too old.
    TORCH_CHECK(driver != 0, "this machine has no NVIDIA driver (libcuda.so.1 cannot be loaded)");
    TORCH_CHECK(driver / 1000 >= runtime / 1000, "the NVIDIA driver of this machine is for CUDA ", driver / 1000, ".",
                driver % 1000 / 10, ", this libtorch needs one for CUDA ", runtime / 1000, ".", runtime % 1000 / 10);
    int count = 0;
    C10_CUDA_CHECK(c10::cuda::GetDeviceCount(&count));
    TORCH_CHECK(device_index < count, "GPU ", device_index, " was asked for, and this process sees ", count,
                " (CUDA_VISIBLE_DEVICES hides others)");
    const cudaDeviceProp& properties = *at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device_index));
    std::ostringstream description;
    description << properties.name << '\t' << properties.major << '.' << properties.minor << '\t'
                << properties.totalGlobalMem << '\t' << driver << '\t' << runtime;
    const std::string found = description.str();
    auto* bytes = static_cast<uint8_t*>(std::malloc(found.size()));
    TORCH_CHECK(bytes != nullptr, "no memory for the description of a device");
    std::memcpy(bytes, found.data(), found.size());
    *text = bytes;
    *text_len = found.size();
  });
}

fc_status fc_cuda_set_sync_debug(int32_t mode, char** message) {
  return guarded(message, [&] {
    c10::cuda::warning_state().set_sync_debug_mode(static_cast<c10::cuda::SyncDebugMode>(mode));
  });
}

fc_status fc_graph_begin(fc_graph* pool, fc_graph** graph, char** message) {
  return guarded(message, [&] {
    // What steps before took and gave back would lie idle beside the memory of the graph, and so would that of graphs that
    // are gone.
    c10::cuda::CUDACachingAllocator::emptyCache();
    std::unique_ptr<fc_graph> made(new fc_graph{
        {}, pool == nullptr ? at::cuda::graph_pool_handle() : pool->pool, c10::cuda::current_device()});
    // Other threads may go on allocating and copying: the loader's, and those that write metrics.
    made->graph.capture_begin(made->pool, cudaStreamCaptureModeThreadLocal);
    *graph = made.release();
  });
}

fc_status fc_graph_end(fc_graph* graph, char** message) {
  return guarded(message, [&] {
    try {
      graph->graph.capture_end();
    } catch (...) {
      const auto failure = std::current_exception();
      // A recording that was broken off leaves the allocator looking for its stream.
      try {
        c10::cuda::CUDACachingAllocator::endAllocateToPool(graph->device, graph->pool);
      } catch (const c10::Error&) {
        // It had ended.
      }
      std::rethrow_exception(failure);
    }
  });
}

fc_status fc_graph_replay(fc_graph* graph, char** message) {
  return guarded(message, [&] { graph->graph.replay(); });
}

void fc_graph_free(fc_graph* graph) {
  char* message = nullptr;
  guarded(&message, [&] { delete graph; });
  fc_message_free(message);
}
