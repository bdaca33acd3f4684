// The plain C interface between the Rust side of this crate and libtorch.
//
// Rules, so that each function need not repeat them:
// * Every function catches every exception. It returns a status; on any status but FC_OK it also stores a message in
//   `*message`, which the caller owns and gives back with `fc_message_free`. On FC_OK `*message` is left alone.
// * `…_new` hands out an object that the caller owns, `…_free` takes it back (null is allowed) and waits for threads
//   that the object runs. Everything else borrows.
// * A tensor is the `at::Tensor*` that tch uses. Arrays of tensors are borrowed for the call.
// * Text and byte strings come as pointer and length; they need no terminating zero.
// * Time-outs are in milliseconds.
#pragma once

#include <stddef.h>
#include <stdint.h>

extern "C" {

typedef int32_t fc_status;

enum {
  FC_OK = 0,
  // Somebody did not come within the time-out.
  FC_TIMED_OUT = 1,
  // A connection to the store or to another rank broke or could not be made.
  FC_CONNECTION_LOST = 2,
  // The port to serve the store on is taken.
  FC_ADDRESS_IN_USE = 3,
  // Anything else: a bad argument, an unsupported type, memory.
  FC_REFUSED = 4,
};

enum { FC_SUM = 0, FC_MAX = 1, FC_MIN = 2 };

typedef struct fc_store fc_store;
typedef struct fc_group fc_group;
typedef struct fc_work fc_work;
typedef struct fc_buckets fc_buckets;
typedef struct fc_stream fc_stream;
typedef struct fc_event fc_event;
typedef struct fc_reads fc_reads;
typedef struct fc_graph fc_graph;
typedef struct fc_meter fc_meter;
// An `at::Tensor`; declared without its name, because this header is read without torch.
typedef void fc_tensor;

void fc_message_free(char* message);

// --- store: a small key-value server that one process runs and all use to find each other --------------------------

fc_status fc_store_new(const char* host, size_t host_len, uint16_t port, int32_t is_server, int64_t timeout_ms,
                       fc_store** store, char** message);
void fc_store_free(fc_store* store);
// The port served or connected to; differs from the port asked for if that was 0.
uint16_t fc_store_port(const fc_store* store);
fc_status fc_store_set(fc_store* store, const char* key, size_t key_len, const uint8_t* value, size_t value_len,
                       char** message);
// Sets `key` to `desired` if it equals `expected`, or is unset and `expected` empty. `*value` is then what the key holds.
fc_status fc_store_compare_set(fc_store* store, const char* key, size_t key_len, const uint8_t* expected,
                               size_t expected_len, const uint8_t* desired, size_t desired_len, uint8_t** value,
                               size_t* value_len, char** message);
// Waits for `key` up to the time-out of the store. `*value` is given back with `fc_bytes_free`.
fc_status fc_store_get(fc_store* store, const char* key, size_t key_len, uint8_t** value, size_t* value_len,
                       char** message);
void fc_bytes_free(uint8_t* bytes);
fc_status fc_store_add(fc_store* store, const char* key, size_t key_len, int64_t amount, int64_t* sum, char** message);
// Whether all of the keys are set.
fc_status fc_store_check(fc_store* store, const char* const* keys, const size_t* key_lens, size_t num_keys,
                         int32_t* all_set, char** message);
fc_status fc_store_wait(fc_store* store, const char* const* keys, const size_t* key_lens, size_t num_keys,
                        int64_t timeout_ms, char** message);

// --- process group -------------------------------------------------------------------------------------------------

// Builds a group over Gloo, which keeps its keys below `prefix` in the store. Listens on the address, or on the named
// interface if `is_interface`.
fc_status fc_group_gloo_new(fc_store* store, const char* prefix, size_t prefix_len, int32_t rank, int32_t world_size,
                            int64_t timeout_ms, const char* address, size_t address_len, int32_t is_interface,
                            fc_group** group, char** message);
// The same over NCCL, for the GPU `device_index`. Exists with the feature `cuda` only.
fc_status fc_group_nccl_new(fc_store* store, const char* prefix, size_t prefix_len, int32_t rank, int32_t world_size,
                            int64_t timeout_ms, int32_t device_index, fc_group** group, char** message);
// Closes all connections; collectives that other ranks still run fail.
void fc_group_free(fc_group* group);

// Each starts a collective and hands out the work that waits for it. The work keeps the tensors alive.
fc_status fc_group_all_reduce(fc_group* group, fc_tensor* tensor, int32_t op, fc_work** work, char** message);
fc_status fc_group_all_gather(fc_group* group, fc_tensor* output, fc_tensor* input, fc_work** work, char** message);
fc_status fc_group_reduce_scatter(fc_group* group, fc_tensor* output, fc_tensor* input, int32_t op, fc_work** work,
                                  char** message);
fc_status fc_group_broadcast(fc_group* group, fc_tensor* tensor, int32_t root, fc_work** work, char** message);
fc_status fc_group_barrier(fc_group* group, int32_t device_index, fc_work** work, char** message);

fc_status fc_work_wait(fc_work* work, int64_t timeout_ms, char** message);
void fc_work_free(fc_work* work);

// --- gradients in buckets ------------------------------------------------------------------------------------------

// From now on the gradient of each leaf is added to `gradients[i]`, a view into `flats[bucket_of[i]]`, which may be of
// another kind than the leaf. `largest` has one element a bucket. Shares the ownership of all tensors; a leaf can be in one
// such object only.
fc_status fc_buckets_new(fc_tensor* const* leaves, fc_tensor* const* gradients, const size_t* bucket_of,
                         size_t num_leaves, fc_tensor* const* flats, size_t num_buckets, fc_tensor* largest,
                         fc_buckets** buckets, char** message);
// Does not wait for reductions that still run; they share the ownership of what they write.
void fc_buckets_free(fc_buckets* buckets);
// Sets all gradients to zero.
fc_status fc_buckets_clear(fc_buckets* buckets, char** message);
// Lets each bucket leave, in order and once all its leaves got a gradient, during the backward pass that follows: notes
// its largest absolute value, adds one to `*sequence`, and starts its sum over `group`. Without a group it is only
// noted. Group and counter are borrowed until `fc_buckets_finish` or `fc_buckets_disarm`.
fc_status fc_buckets_arm(fc_buckets* buckets, fc_group* group, uint64_t* sequence, char** message);
// Lets the buckets leave that have not, and reports the first failure since they were armed.
fc_status fc_buckets_finish(fc_buckets* buckets, char** message);
void fc_buckets_disarm(fc_buckets* buckets);
// Hands out the work that reduces a bucket, once.
fc_status fc_buckets_take_work(fc_buckets* buckets, size_t bucket, fc_work** work, char** message);

// --- operations on many tensors at once ----------------------------------------------------------------------------

// One AdamW step, decay decoupled. Adds one to every step count first. Arrays of equal length. `rate`, a tensor in fp32
// without dimensions beside the parameters, takes the place of `lr` unless it is null. Where `skip`, another such tensor or
// null, is 1 when the device comes to it, nothing changes.
fc_status fc_fused_adamw(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* exp_avgs,
                         fc_tensor* const* exp_avg_sqs, fc_tensor* const* steps, size_t num_tensors, double lr,
                         double beta1, double beta2, double weight_decay, double eps, fc_tensor* rate, fc_tensor* skip,
                         char** message);
// One LAMB step: that of Adam plus decay, scaled to |param|/|step| for each tensor if there is decay. As above, but step
// counts lie on the CPU, where reading them makes no device wait.
fc_status fc_foreach_lamb(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* exp_avgs,
                          fc_tensor* const* exp_avg_sqs, fc_tensor* const* steps, size_t num_tensors, double lr,
                          double beta1, double beta2, double weight_decay, double eps, char** message);
// One Lion step, decay decoupled. Arrays of equal length.
fc_status fc_foreach_lion(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* exp_avgs,
                          size_t num_tensors, double lr, double beta1, double beta2, double weight_decay,
                          char** message);
// One step of SGD, decay added to the gradient. Arrays of equal length; without momentum `momentum_buffers` is unused.
// `rate` and `skip` as above.
fc_status fc_fused_sgd(fc_tensor* const* params, fc_tensor* const* grads, fc_tensor* const* momentum_buffers,
                       size_t num_tensors, double lr, double momentum, double weight_decay, int32_t is_nesterov,
                       fc_tensor* rate, fc_tensor* skip, char** message);
// The Euclidean norm of all elements of all tensors; `*norm` is a new tensor without dimensions.
fc_status fc_foreach_norm(fc_tensor* const* tensors, size_t num_tensors, fc_tensor** norm, char** message);
// The largest absolute value of each tensor; `*largest` is a new tensor of one dimension.
fc_status fc_foreach_largest(fc_tensor* const* tensors, size_t num_tensors, fc_tensor** largest, char** message);
// Multiplies every tensor in place by the tensor without dimensions `factor`.
fc_status fc_foreach_mul(fc_tensor* const* tensors, size_t num_tensors, fc_tensor* factor, char** message);
// Copies every tensor of `srcs` into the one of `dsts` at its place, kinds may differ. Arrays of equal length.
fc_status fc_foreach_copy(fc_tensor* const* dsts, fc_tensor* const* srcs, size_t num_tensors, char** message);

// --- queues of a device --------------------------------------------------------------------------------------------

// Copies `src` into `dst`, which may lie elsewhere and be of another kind. From page-locked memory to a device, and back into
// such memory, it only joins the queue of the current stream.
fc_status fc_copy_async(fc_tensor* dst, fc_tensor* src, char** message);
// Copies bytes of the host into `dst`, which holds as many and is contiguous. The same goes for page-locked bytes: they must
// stay until the current stream has come so far.
fc_status fc_copy_bytes_async(fc_tensor* dst, const uint8_t* bytes, size_t num_bytes, char** message);
// Copies a tensor of the host to CUDA device `device_index`, by way of page-locked memory: `*copy` is a new tensor, which is
// there when the current stream has come so far.
fc_status fc_upload(fc_tensor* src, int32_t device_index, fc_tensor** copy, char** message);
// The other way: `*copy` lies in page-locked memory, and may be read when the current stream has come so far. Of a tensor of
// the host, a plain copy.
fc_status fc_download(fc_tensor* src, fc_tensor** copy, char** message);

// A stream of the pool of CUDA device `device_index`, which does not wait for the default stream.
fc_status fc_stream_new(int32_t device_index, fc_stream** stream, char** message);
// The stream that this thread puts work on.
fc_status fc_stream_current(int32_t device_index, fc_stream** stream, char** message);
void fc_stream_free(fc_stream* stream);
// Makes this thread put its work on `stream`, and on its device where nothing else says which; `*previous` is a new handle to
// where work went on that device before.
fc_status fc_stream_enter(fc_stream* stream, fc_stream** previous, char** message);
fc_status fc_event_new(fc_event** event, char** message);
void fc_event_free(fc_event* event);
// Marks the current end of the stream.
fc_status fc_event_record(fc_event* event, fc_stream* stream, char** message);
// Makes what is put on the stream from now on wait for the mark.
fc_status fc_event_block(fc_event* event, fc_stream* stream, char** message);
// Whether the device has passed the mark.
fc_status fc_event_query(fc_event* event, int32_t* has_passed, char** message);
// Makes this thread wait for the mark.
fc_status fc_event_synchronize(fc_event* event, char** message);

// From now on until it is freed, notes the operators that this thread calls to read values of tensors. At most one a thread.
fc_status fc_reads_new(fc_reads** reads, char** message);
// Names of operators, separated by spaces, to be given back with `fc_bytes_free`.
fc_status fc_reads_names(fc_reads* reads, uint8_t** text, size_t* text_len, char** message);
void fc_reads_free(fc_reads* reads);

// --- recomputing ---------------------------------------------------------------------------------------------------

// Computes one tensor from others, which are borrowed, and hands it out. Null if it could not.
typedef fc_tensor* (*fc_body)(void* context, fc_tensor* const* inputs, size_t num_inputs);

// Computes `call(context, inputs)` without keeping what backward would need of it: backward computes it again, on a thread
// of autograd. Takes over `context` in any case and gives it to `release` when it is not needed any more.
fc_status fc_recompute(fc_tensor* const* inputs, size_t num_inputs, fc_body call, void* context,
                       void (*release)(void*), fc_tensor** output, char** message);

// --- memory --------------------------------------------------------------------------------------------------------

// From now on until it is freed, on this thread, a meter adds up what tensors take and give back, here and in the backward
// passes that this thread starts. At most one a thread.
fc_status fc_meter_new(fc_meter** meter, char** message);
// The most bytes that were taken at once, beyond those at the beginning.
int64_t fc_meter_peak(fc_meter* meter);
void fc_meter_free(fc_meter* meter);
// Most bytes that tensors took on CUDA device `device_index` at once, and most that were taken from the driver for them.
fc_status fc_memory_peak(int32_t device_index, int64_t* allocated, int64_t* reserved, char** message);

// --- fused layers --------------------------------------------------------------------------------------------------

// gelu(x·Wᵀ + b), with the exact GELU.
fc_status fc_linear_gelu(fc_tensor* x, fc_tensor* weight, fc_tensor* bias, fc_tensor** activated, char** message);
// x·Wᵀ + b, cut into three along the last dimension; `parts` has room for them.
fc_status fc_linear_split(fc_tensor* x, fc_tensor* weight, fc_tensor* bias, fc_tensor** parts, char** message);
// x + (y·Wᵀ + b), and its layer norm over the last dimension.
fc_status fc_linear_add_norm(fc_tensor* x, fc_tensor* y, fc_tensor* weight, fc_tensor* bias, fc_tensor* norm_weight,
                             fc_tensor* norm_bias, double eps, fc_tensor** sum, fc_tensor** normed, char** message);

// --- profile -------------------------------------------------------------------------------------------------------

// Begins to note operations of this thread and of the backward passes that it starts, and what GPUs do.
fc_status fc_profile_begin(char** message);
// Ends that and writes a trace in Chrome's format; to no file if `path` is null.
fc_status fc_profile_end(const char* path, size_t path_len, char** message);

// --- feature `cuda` only -------------------------------------------------------------------------------------------

// What is there, to be given back with `fc_bytes_free`: name of the device, compute capability, bytes of memory, versions
// of driver and run time, separated by tabs.
fc_status fc_cuda_describe(int32_t device_index, uint8_t** text, size_t* text_len, char** message);
// What libtorch does where the host waits for a device: 0 nothing, 1 warn, 2 fail. For all threads.
fc_status fc_cuda_set_sync_debug(int32_t mode, char** message);
// Compiles the kernels of the three functions of fused layers, for rows that are `width` wide, and for a device.
fc_status fc_kernels_load(const char* source, int32_t device_index, int64_t width, char** message);
// Starts to note what is put on the current stream, which must not be the default one, instead of running it. Graphs that
// never run at the same time can share the memory of `pool`, an earlier graph or null.
fc_status fc_graph_begin(fc_graph* pool, fc_graph** graph, char** message);
// Ends what `fc_graph_begin` started, also where it fails.
fc_status fc_graph_end(fc_graph* graph, char** message);
// Puts what was noted on the current stream.
fc_status fc_graph_replay(fc_graph* graph, char** message);
void fc_graph_free(fc_graph* graph);

// --- settings of the process ---------------------------------------------------------------------------------------

fc_status fc_set_num_threads(int32_t num_threads, char** message);
int32_t fc_num_threads(void);
fc_status fc_set_deterministic(int32_t enabled, char** message);
// Lets cuDNN compute attention where libtorch prefers it.
fc_status fc_set_cudnn_attention(int32_t enabled, char** message);
// Lets products of matrices and convolutions in fp32 round their factors to TF32.
fc_status fc_set_tf32(int32_t enabled, char** message);
// Stops libtorch from writing anything below fatal errors to the error stream.
void fc_silence_log(void);
// The version of the headers this was compiled with; static, never freed.
const char* fc_torch_version(void);

}  // extern "C"
