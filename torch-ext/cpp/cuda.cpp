// What GPUs there are. Compiled with the feature `cuda` only.

#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

#include <c10/cuda/CUDAException.h>
#include <cuda_runtime_api.h>

#include "guard.h"

using fastclip::guarded;

fc_status fc_cuda_describe(int32_t device_index, uint8_t** text, size_t* text_len, char** message) {
  return guarded(message, [&] {
    cudaDeviceProp properties{};
    int driver = 0;
    int runtime = 0;
    C10_CUDA_CHECK(cudaDriverGetVersion(&driver));
    C10_CUDA_CHECK(cudaRuntimeGetVersion(&runtime));
    // The driver says 0 where there is none, and the run time would then only say that it is too old.
    TORCH_CHECK(driver != 0, "this machine has no NVIDIA driver (libcuda.so.1 cannot be loaded)");
    TORCH_CHECK(driver / 1000 >= runtime / 1000, "the NVIDIA driver of this machine is for CUDA ", driver / 1000, ".",
                driver % 1000 / 10, ", this libtorch needs one for CUDA ", runtime / 1000, ".", runtime % 1000 / 10);
    int count = 0;
    C10_CUDA_CHECK(cudaGetDeviceCount(&count));
    TORCH_CHECK(device_index < count, "GPU ", device_index, " was asked for, and this process sees ", count,
                " (CUDA_VISIBLE_DEVICES hides others)");
    C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device_index));
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
