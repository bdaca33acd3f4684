// Collectives, for whichever backend the group was built over.

#include <chrono>
#include <cstdlib>
#include <vector>

#include "guard.h"
#include "handles.h"

using fastclip::guarded;
using fastclip::tensor;

namespace {

// libtorch's recorder of collectives is one for all groups of a process, and notes a group's first collective without a lock
// (FlightRecorderDetail.hpp of 2.11): groups that begin in two threads at once crash. Who wants its traces sets the variable
// and has one group. Set before main, when nobody else can be reading the environment.
const int no_flight_recorder = setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/0);

c10d::ReduceOp reduce_op(int32_t op) {
  switch (op) {
    case FC_SUM:
      return c10d::ReduceOp::SUM;
    case FC_MAX:
      return c10d::ReduceOp::MAX;
    case FC_MIN:
      return c10d::ReduceOp::MIN;
    default:
      TORCH_CHECK(false, "no reduction has the number ", op);
  }
}

}  // namespace

void fc_group_free(fc_group* group) {
  // Closing connections can throw, and there is nobody left to tell.
  char* message = nullptr;
  guarded(&message, [&] { delete group; });
  fc_message_free(message);
}

fc_status fc_group_all_reduce(fc_group* group, fc_tensor* input, int32_t op, fc_work** work, char** message) {
  return guarded(message, [&] {
    std::vector<at::Tensor> tensors{tensor(input)};
    c10d::AllreduceOptions options;
    options.reduceOp = reduce_op(op);
    *work = new fc_work{group->backend->allreduce(tensors, options)};
  });
}

fc_status fc_group_all_gather(fc_group* group, fc_tensor* output, fc_tensor* input, fc_work** work,
                              char** message) {
  return guarded(message,
                 [&] { *work = new fc_work{group->backend->_allgather_base(tensor(output), tensor(input))}; });
}

fc_status fc_group_reduce_scatter(fc_group* group, fc_tensor* output, fc_tensor* input, int32_t op, fc_work** work,
                                  char** message) {
  return guarded(message, [&] {
    c10d::ReduceScatterOptions options;
    options.reduceOp = reduce_op(op);
    *work = new fc_work{group->backend->_reduce_scatter_base(tensor(output), tensor(input), options)};
  });
}

fc_status fc_group_broadcast(fc_group* group, fc_tensor* input, int32_t root, fc_work** work, char** message) {
  return guarded(message, [&] {
    std::vector<at::Tensor> tensors{tensor(input)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    *work = new fc_work{group->backend->broadcast(tensors, options)};
  });
}

fc_status fc_group_barrier(fc_group* group, int32_t device_index, fc_work** work, char** message) {
  return guarded(message, [&] {
    c10d::BarrierOptions options;
    if (device_index >= 0) {
      options.device_ids = {device_index};
    }
    *work = new fc_work{group->backend->barrier(options)};
  });
}

fc_status fc_work_wait(fc_work* work, int64_t timeout_ms, char** message) {
  return guarded(message, [&] {
    TORCH_CHECK(work->work->wait(std::chrono::milliseconds(timeout_ms)), "the collective was aborted");
  });
}

void fc_work_free(fc_work* work) {
  delete work;
}
