// Compiles kernels.cu on the machine that runs it, and launches what comes of it. Compiled with the feature `cuda` only.

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <dlfcn.h>

#include <ATen/core/Tensor.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include "guard.h"
#include "kernels.h"

using at::Tensor;
using fastclip::guarded;

namespace {

// As in kernels.cu.
constexpr int64_t kLanes = 32, kPerPack = 8, kWarps = 8, kThreads = kLanes * kWarps, kRows = 4;
constexpr int64_t kColumns = kLanes * kPerPack;

// What is used of NVRTC and of the driver. Their interfaces are in C and do not change; the libraries come with libtorch and
// with the driver, and are not there where this is built.
class Libraries {
 public:
  int (*create_program)(void**, const char*, const char*, int, const char* const*, const char* const*);
  int (*compile_program)(void*, int, const char* const*);
  int (*destroy_program)(void**);
  int (*log_size)(void*, size_t*);
  int (*log)(void*, char*);
  int (*cubin_size)(void*, size_t*);
  int (*cubin)(void*, char*);
  int (*load_module)(void**, const void*);
  int (*find_function)(void**, void*, const char*);
  int (*blocks_at_once)(int*, void*, int, size_t);
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);

  static const Libraries& get() {
    static const Libraries libraries;
    return libraries;
  }

 private:
  Libraries() {
    // Refers to NVRTC of the version that this libtorch was made with, wherever that lies.
    void* nvrtc = open("libcaffe2_nvrtc.so");
    find(nvrtc, "nvrtcCreateProgram", create_program);
    find(nvrtc, "nvrtcCompileProgram", compile_program);
    find(nvrtc, "nvrtcDestroyProgram", destroy_program);
    find(nvrtc, "nvrtcGetProgramLogSize", log_size);
    find(nvrtc, "nvrtcGetProgramLog", log);
    find(nvrtc, "nvrtcGetCUBINSize", cubin_size);
    find(nvrtc, "nvrtcGetCUBIN", cubin);
    void* driver = open("libcuda.so.1");
    find(driver, "cuModuleLoadData", load_module);
    find(driver, "cuModuleGetFunction", find_function);
    find(driver, "cuOccupancyMaxActiveBlocksPerMultiprocessor", blocks_at_once);
    find(driver, "cuLaunchKernel", launch);
  }

  static void* open(const char* name) {
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    TORCH_CHECK(library != nullptr, dlerror());
    return library;
  }

  template <typename Function>
  static void find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    TORCH_CHECK(function != nullptr, name, " cannot be found");
  }
};

struct Kernel {
  void* function = nullptr;
  // Blocks that fill the GPU.
  int64_t num_blocks = 0;
};

// The kernels of rows of one width, or with width 0 those of columns, on one GPU.
using Kernels = std::map<std::string, Kernel>;

std::mutex mutex;
// By GPU and width. Never unloaded: the driver may be gone when the process ends.
std::map<std::pair<int, int64_t>, Kernels>& loaded() {
  static auto* kernels = new std::map<std::pair<int, int64_t>, Kernels>();
  return *kernels;
}

std::string compile(const std::string& source, const std::vector<std::string>& options) {
  const auto& libraries = Libraries::get();
  void* program = nullptr;
  int status = libraries.create_program(&program, source.c_str(), "kernels.cu", 0, nullptr, nullptr);
  TORCH_CHECK(status == 0, "NVRTC made no program: error ", status);
  std::vector<const char*> words;
  for (const auto& option : options) {
    words.push_back(option.c_str());
  }
  status = libraries.compile_program(program, static_cast<int>(words.size()), words.data());
  size_t size = 0;
  std::string text;
  if (status == 0) {
    libraries.cubin_size(program, &size);
    text.resize(size);
    libraries.cubin(program, text.data());
  } else {
    libraries.log_size(program, &size);
    text.resize(size);
    libraries.log(program, text.data());
  }
  libraries.destroy_program(&program);
  TORCH_CHECK(status == 0, "NVRTC refused the kernels: error ", status, ": ", text);
  return text;
}

void load(const std::string& source, int64_t width) {
  const int device = c10::cuda::current_device();
  auto& kernels = loaded()[{device, width}];
  if (!kernels.empty()) {
    return;
  }
  const auto& libraries = Libraries::get();
  const auto& properties = *at::cuda::getCurrentDeviceProperties();
  std::vector<std::string> options{
      "--gpu-architecture=sm_" + std::to_string(properties.major) + std::to_string(properties.minor), "--std=c++17"};
  std::vector<std::string> names{"gelu_backward", "join_three", "fold_sums"};
  if (width != 0) {
    options.push_back("-DWIDTH=" + std::to_string(width));
    names = {"add_norm", "add_norm_backward"};
  }
  const auto cubin = compile(source, options);
  void* module = nullptr;
  int status = libraries.load_module(&module, cubin.data());
  TORCH_CHECK(status == 0, "the driver did not take the kernels: error ", status);
  Kernels found;
  for (const auto& name : names) {
    Kernel kernel;
    status = libraries.find_function(&kernel.function, module, name.c_str());
    TORCH_CHECK(status == 0, "the kernel ", name, " cannot be found: error ", status);
    int per_processor = 0;
    status = libraries.blocks_at_once(&per_processor, kernel.function, kThreads, 0);
    TORCH_CHECK(status == 0 && per_processor > 0, "the kernel ", name, " does not fit this GPU: error ", status);
    kernel.num_blocks = int64_t{per_processor} * properties.multiProcessorCount;
    found[name] = kernel;
  }
  kernels = std::move(found);
}

const Kernel& kernel(const char* name, int64_t width) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = loaded().find({c10::cuda::current_device(), width});
  TORCH_CHECK(found != loaded().end() && !found->second.empty(), "the kernels of width ", width, " were not loaded");
  return found->second.at(name);
}

template <typename... Arguments>
void launch(const Kernel& kernel, int64_t blocks_x, int64_t blocks_y, Arguments... arguments) {
  std::array<void*, sizeof...(Arguments)> pointers{static_cast<void*>(&arguments)...};
  const int status = Libraries::get().launch(
      kernel.function, static_cast<unsigned>(blocks_x), static_cast<unsigned>(blocks_y), 1, kThreads, 1, 1, 0,
      c10::cuda::getCurrentCUDAStream().stream(), pointers.data(), nullptr);
  TORCH_CHECK(status == 0, "a kernel could not be launched: error ", status);
}

// The address of a tensor that kernels can work on.
void* checked(const Tensor& x) {
  TORCH_CHECK(x.is_cuda() && x.get_device() == c10::cuda::current_device(), "kernels are for the current GPU");
  TORCH_CHECK(x.is_contiguous() && x.scalar_type() == at::kBFloat16, "kernels need contiguous bf16");
  TORCH_CHECK(reinterpret_cast<uintptr_t>(x.data_ptr()) % sizeof(uint64_t[2]) == 0, "kernels need aligned rows");
  return x.data_ptr();
}

int64_t divided_up(int64_t number, int64_t by) {
  return (number + by - 1) / by;
}

Tensor new_sums(const Tensor& like, int64_t num_blocks, int64_t num_columns) {
  return at::empty({num_blocks, num_columns}, like.options().dtype(at::kFloat));
}

Tensor folded(const Tensor& sums, const Tensor& like) {
  auto result = at::empty({sums.size(1)}, like.options());
  launch(kernel("fold_sums", 0), sums.size(1) / (2 * kLanes), 1, sums.data_ptr(), result.data_ptr(),
         static_cast<int>(sums.size(0)), static_cast<int>(sums.size(1)));
  return result;
}

int64_t blocks_of_rows(const Kernel& kernel, int64_t num_rows) {
  return std::min(kernel.num_blocks, std::max<int64_t>(divided_up(num_rows, kWarps), 1));
}

// Blocks one below another, for each of so many beside each other.
int64_t blocks_of_columns(const Kernel& kernel, int64_t num_columns, int64_t num_rows) {
  const int64_t fill = std::max<int64_t>(kernel.num_blocks / (num_columns / kColumns), 1);
  return std::min(fill, std::max<int64_t>(divided_up(num_rows, kWarps * kRows), 1));
}

}  // namespace

namespace fastclip::kernels::gpu {

AddedNorm add_norm(const Tensor& x, const Tensor& added, const Tensor& weight, const Tensor& bias, double eps) {
  const int64_t width = x.size(-1), num_rows = x.numel() / width;
  TORCH_CHECK(added.sizes() == x.sizes() && weight.numel() == width && bias.numel() == width, "shapes do not fit");
  const auto statistics = x.options().dtype(at::kFloat);
  AddedNorm found{at::empty_like(x), at::empty_like(x), at::empty({num_rows}, statistics),
                  at::empty({num_rows}, statistics)};
  const auto& add = kernel("add_norm", width);
  const auto num_blocks = blocks_of_rows(add, num_rows);
  launch(add, num_blocks, 1, checked(x), checked(added), checked(weight), checked(bias), checked(found.sum),
         checked(found.normed), found.mean.data_ptr(), found.rstd.data_ptr(), num_rows, static_cast<float>(eps));
  return found;
}

AddedNormGradients add_norm_backward(const Tensor& dnormed, const Tensor& dsum, const AddedNorm& found,
                                     const Tensor& weight) {
  const int64_t width = dnormed.size(-1), num_rows = dnormed.numel() / width;
  TORCH_CHECK(found.sum.sizes() == dnormed.sizes() && weight.numel() == width, "shapes do not fit");
  TORCH_CHECK(dsum.sizes() == dnormed.sizes(), "shapes do not fit");
  auto dx = at::empty_like(found.sum);
  const auto& back = kernel("add_norm_backward", width);
  const auto num_blocks = blocks_of_rows(back, num_rows);
  const auto sums = new_sums(dx, num_blocks, 3 * width);
  launch(back, num_blocks, 1, checked(dnormed), checked(dsum), checked(found.sum), found.mean.data_ptr(), found.rstd.data_ptr(), checked(weight), checked(dx), sums.data_ptr(), num_rows);
  const auto three = folded(sums, dx).chunk(3);
  return {std::move(dx), three[0], three[1], three[2]};
}

Summed gelu_backward(const Tensor& dy, const Tensor& x) {
  const int64_t width = x.size(-1), num_rows = x.numel() / width;
  TORCH_CHECK(dy.sizes() == x.sizes() && width % kColumns == 0, "shapes do not fit");
  auto dx = at::empty_like(x);
  const auto& back = kernel("gelu_backward", 0);
  const auto num_blocks = blocks_of_columns(back, width, num_rows);
  const auto sums = new_sums(dx, num_blocks, width);
  launch(back, width / kColumns, num_blocks, checked(dy), checked(x), checked(dx), sums.data_ptr(), num_rows,
         static_cast<int>(width));
  auto folded_sums = folded(sums, dx);
  return {std::move(dx), std::move(folded_sums)};
}

Summed join_three(const Tensor& first, const Tensor& second, const Tensor& third) {
  const int64_t width = first.size(-1), num_rows = first.numel() / width;
  TORCH_CHECK(second.sizes() == first.sizes() && third.sizes() == first.sizes() && width % kColumns == 0,
              "shapes do not fit");
  auto shape = first.sizes().vec();
  shape.back() = 3 * width;
  auto joined = at::empty(shape, first.options());
  const auto& join = kernel("join_three", 0);
  const auto num_blocks = blocks_of_columns(join, 3 * width, num_rows);
  const auto sums = new_sums(joined, num_blocks, 3 * width);
  launch(join, 3 * width / kColumns, num_blocks, checked(first), checked(second), checked(third), checked(joined),
         sums.data_ptr(), num_rows, static_cast<int>(width));
  auto folded_sums = folded(sums, joined);
  return {std::move(joined), std::move(folded_sums)};
}

}  // namespace fastclip::kernels::gpu

fc_status fc_kernels_load(const char* source, int32_t device_index, int64_t width, char** message) {
  return guarded(message, [&] {
    const c10::DeviceGuard on({c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device_index)});
    TORCH_CHECK(width % kColumns == 0, "kernels are for widths that are multiples of ", kColumns, ", not ", width);
    const std::lock_guard<std::mutex> lock(mutex);
    load(source, 0);
    load(source, width);
  });
}
