//! Declarations of `cpp/fastclip.h`, and the one place that reads a status and a message.
//!
//! The header holds the rules: who owns what, what a status means. Only the declarations are repeated here; the two files
//! change together.

#![expect(unsafe_code, reason = "declares functions of C and takes over the messages that they allocate")]

use std::ffi::{CStr, c_char, c_void};

use torch_sys::C_tensor;

use crate::TorchError;

pub(crate) type Status = i32;

pub(crate) const OK: Status = 0;
pub(crate) const TIMED_OUT: Status = 1;
pub(crate) const CONNECTION_LOST: Status = 2;
pub(crate) const ADDRESS_IN_USE: Status = 3;

/// Objects of C++, seen through pointers only.
#[repr(C)]
pub(crate) struct Store {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Group {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Work {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(crate) struct Stream {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Event {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Reads {
    _opaque: [u8; 0],
}
#[cfg(feature = "cuda")]
#[repr(C)]
pub(crate) struct Graph {
    _opaque: [u8; 0],
}
#[repr(C)]
pub(crate) struct Buckets {
    _opaque: [u8; 0],
}

#[repr(C)]
pub(crate) struct Meter {
    _opaque: [u8; 0],
}

pub(crate) type Message = *mut *mut c_char;

/// A function of tensors: context, inputs, their number.
pub(crate) type Body = unsafe extern "C" fn(*mut c_void, *const *mut C_tensor, usize) -> *mut C_tensor;

/// What makes one tensor of many.
pub(crate) type ReductionCall =
    unsafe extern "C" fn(*const *const C_tensor, usize, *mut *mut C_tensor, Message) -> Status;

unsafe extern "C" {
    fn fc_message_free(message: *mut c_char);

    pub(crate) fn fc_store_new(
        host: *const u8,
        host_len: usize,
        port: u16,
        is_server: i32,
        timeout_ms: i64,
        store: *mut *mut Store,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_store_free(store: *mut Store);
    pub(crate) fn fc_store_port(store: *const Store) -> u16;
    pub(crate) fn fc_store_set(
        store: *mut Store,
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_store_compare_set(
        store: *mut Store,
        key: *const u8,
        key_len: usize,
        expected: *const u8,
        expected_len: usize,
        desired: *const u8,
        desired_len: usize,
        value: *mut *mut u8,
        value_len: *mut usize,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_store_get(
        store: *mut Store,
        key: *const u8,
        key_len: usize,
        value: *mut *mut u8,
        value_len: *mut usize,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_bytes_free(bytes: *mut u8);
    pub(crate) fn fc_store_add(
        store: *mut Store,
        key: *const u8,
        key_len: usize,
        amount: i64,
        sum: *mut i64,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_store_check(
        store: *mut Store,
        keys: *const *const u8,
        key_lens: *const usize,
        num_keys: usize,
        all_set: *mut i32,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_store_wait(
        store: *mut Store,
        keys: *const *const u8,
        key_lens: *const usize,
        num_keys: usize,
        timeout_ms: i64,
        message: Message,
    ) -> Status;

    pub(crate) fn fc_group_gloo_new(
        store: *mut Store,
        prefix: *const u8,
        prefix_len: usize,
        rank: i32,
        world_size: i32,
        timeout_ms: i64,
        address: *const u8,
        address_len: usize,
        is_interface: i32,
        group: *mut *mut Group,
        message: Message,
    ) -> Status;
    #[cfg(feature = "cuda")]
    pub(crate) fn fc_group_nccl_new(
        store: *mut Store,
        prefix: *const u8,
        prefix_len: usize,
        rank: i32,
        world_size: i32,
        timeout_ms: i64,
        device_index: i32,
        group: *mut *mut Group,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_group_free(group: *mut Group);
    pub(crate) fn fc_group_all_reduce(
        group: *mut Group,
        tensor: *const C_tensor,
        op: i32,
        work: *mut *mut Work,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_group_all_gather(
        group: *mut Group,
        output: *const C_tensor,
        input: *const C_tensor,
        work: *mut *mut Work,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_group_reduce_scatter(
        group: *mut Group,
        output: *const C_tensor,
        input: *const C_tensor,
        op: i32,
        work: *mut *mut Work,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_group_broadcast(
        group: *mut Group,
        tensor: *const C_tensor,
        root: i32,
        work: *mut *mut Work,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_group_barrier(
        group: *mut Group,
        device_index: i32,
        work: *mut *mut Work,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_work_wait(work: *mut Work, timeout_ms: i64, message: Message) -> Status;
    pub(crate) fn fc_work_free(work: *mut Work);

    pub(crate) fn fc_buckets_new(
        leaves: *const *const C_tensor,
        gradients: *const *const C_tensor,
        bucket_of: *const usize,
        num_leaves: usize,
        flats: *const *const C_tensor,
        num_buckets: usize,
        largest: *const C_tensor,
        buckets: *mut *mut Buckets,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_buckets_free(buckets: *mut Buckets);
    pub(crate) fn fc_buckets_clear(buckets: *mut Buckets, message: Message) -> Status;
    pub(crate) fn fc_buckets_arm(
        buckets: *mut Buckets,
        group: *mut Group,
        sequence: *mut u64,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_buckets_finish(buckets: *mut Buckets, message: Message) -> Status;
    pub(crate) fn fc_buckets_disarm(buckets: *mut Buckets);
    pub(crate) fn fc_buckets_take_work(
        buckets: *mut Buckets,
        bucket: usize,
        work: *mut *mut Work,
        message: Message,
    ) -> Status;

    pub(crate) fn fc_fused_adamw(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        exp_avg_sqs: *const *const C_tensor,
        steps: *const *const C_tensor,
        num_tensors: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        rate: *const C_tensor,
        skip: *const C_tensor,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_foreach_lamb(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        exp_avg_sqs: *const *const C_tensor,
        steps: *const *const C_tensor,
        num_tensors: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_foreach_lion(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        num_tensors: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_fused_sgd(
        params: *const *const C_tensor,
        grads: *const *const C_tensor,
        momentum_buffers: *const *const C_tensor,
        num_tensors: usize,
        lr: f64,
        momentum: f64,
        weight_decay: f64,
        is_nesterov: i32,
        rate: *const C_tensor,
        skip: *const C_tensor,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_foreach_norm(
        tensors: *const *const C_tensor,
        num_tensors: usize,
        norm: *mut *mut C_tensor,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_foreach_largest(
        tensors: *const *const C_tensor,
        num_tensors: usize,
        largest: *mut *mut C_tensor,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_foreach_mul(
        tensors: *const *const C_tensor,
        num_tensors: usize,
        factor: *const C_tensor,
        message: Message,
    ) -> Status;

    pub(crate) fn fc_foreach_copy(
        dsts: *const *const C_tensor,
        srcs: *const *const C_tensor,
        num_tensors: usize,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_copy_async(dst: *const C_tensor, src: *const C_tensor, message: Message) -> Status;
    pub(crate) fn fc_copy_bytes_async(
        dst: *const C_tensor,
        bytes: *const u8,
        num_bytes: usize,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_upload(
        src: *const C_tensor,
        device_index: i32,
        copy: *mut *mut C_tensor,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_download(src: *const C_tensor, copy: *mut *mut C_tensor, message: Message) -> Status;

    pub(crate) fn fc_stream_new(device_index: i32, stream: *mut *mut Stream, message: Message) -> Status;
    pub(crate) fn fc_stream_current(device_index: i32, stream: *mut *mut Stream, message: Message) -> Status;
    pub(crate) fn fc_stream_free(stream: *mut Stream);
    pub(crate) fn fc_stream_enter(
        stream: *mut Stream,
        previous: *mut *mut Stream,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_event_new(event: *mut *mut Event, message: Message) -> Status;
    pub(crate) fn fc_event_free(event: *mut Event);
    pub(crate) fn fc_event_record(event: *mut Event, stream: *mut Stream, message: Message) -> Status;
    pub(crate) fn fc_event_block(event: *mut Event, stream: *mut Stream, message: Message) -> Status;
    pub(crate) fn fc_event_query(event: *mut Event, has_passed: *mut i32, message: Message) -> Status;
    pub(crate) fn fc_event_synchronize(event: *mut Event, message: Message) -> Status;
    pub(crate) fn fc_reads_new(reads: *mut *mut Reads, message: Message) -> Status;
    pub(crate) fn fc_reads_names(
        reads: *mut Reads,
        text: *mut *mut u8,
        text_len: *mut usize,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_reads_free(reads: *mut Reads);

    pub(crate) fn fc_recompute(
        inputs: *const *const C_tensor,
        num_inputs: usize,
        call: Body,
        context: *mut c_void,
        release: unsafe extern "C" fn(*mut c_void),
        output: *mut *mut C_tensor,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_linear_gelu(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        activated: *mut *mut C_tensor,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_linear_split(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        parts: *mut *mut C_tensor,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_linear_add_norm(
        x: *const C_tensor,
        y: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        norm_weight: *const C_tensor,
        norm_bias: *const C_tensor,
        eps: f64,
        sum: *mut *mut C_tensor,
        normed: *mut *mut C_tensor,
        message: Message,
    ) -> Status;
    #[cfg(feature = "cuda")]
    pub(crate) fn fc_kernels_load(
        source: *const c_char,
        device_index: i32,
        width: i64,
        message: Message,
    ) -> Status;

    pub(crate) fn fc_meter_new(meter: *mut *mut Meter, message: Message) -> Status;
    pub(crate) fn fc_meter_peak(meter: *mut Meter) -> i64;
    pub(crate) fn fc_meter_free(meter: *mut Meter);
    pub(crate) fn fc_memory_peak(
        device_index: i32,
        allocated: *mut i64,
        reserved: *mut i64,
        message: Message,
    ) -> Status;
    pub(crate) fn fc_profile_begin(message: Message) -> Status;
    pub(crate) fn fc_profile_end(path: *const u8, path_len: usize, message: Message) -> Status;

    #[cfg(feature = "cuda")]
    pub(crate) fn fc_cuda_describe(
        device_index: i32,
        text: *mut *mut u8,
        text_len: *mut usize,
        message: Message,
    ) -> Status;
    #[cfg(feature = "cuda")]
    pub(crate) fn fc_cuda_set_sync_debug(mode: i32, message: Message) -> Status;
    #[cfg(feature = "cuda")]
    pub(crate) fn fc_graph_begin(pool: *mut Graph, graph: *mut *mut Graph, message: Message) -> Status;
    #[cfg(feature = "cuda")]
    pub(crate) fn fc_graph_end(graph: *mut Graph, message: Message) -> Status;
    #[cfg(feature = "cuda")]
    pub(crate) fn fc_graph_replay(graph: *mut Graph, message: Message) -> Status;
    #[cfg(feature = "cuda")]
    pub(crate) fn fc_graph_free(graph: *mut Graph);

    pub(crate) fn fc_set_num_threads(num_threads: i32, message: Message) -> Status;
    pub(crate) fn fc_num_threads() -> i32;
    pub(crate) fn fc_set_deterministic(enabled: i32, message: Message) -> Status;
    pub(crate) fn fc_set_cudnn_attention(enabled: i32, message: Message) -> Status;
    pub(crate) fn fc_set_tf32(enabled: i32, message: Message) -> Status;
    pub(crate) fn fc_silence_log();
    pub(crate) fn fc_torch_version() -> *const c_char;
}

/// What a function of C returned other than [`OK`].
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) error: TorchError,
}

/// Gives `call` a place for a message, and reads it if the status says that there is one.
pub(crate) fn checked(call: impl FnOnce(Message) -> Status) -> Result<(), Failure> {
    let mut message: *mut c_char = std::ptr::null_mut();
    let status = call(&mut message);
    if status == OK {
        return Ok(());
    }
    let text = if message.is_null() {
        "no memory for the message".to_owned()
    } else {
        // SAFETY: on a failure the C++ side leaves here null or a string that it allocated and ended with a zero byte.
        let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
        // SAFETY: the string came from the C++ side, which hands it over; nothing refers to it after this line.
        unsafe { fc_message_free(message) };
        text
    };
    Err(Failure { status, error: TorchError::new(essence(&text)) })
}

/// Returns the part of an exception's text that is about what happened: its first line, without the place in libtorch's
/// sources that gloo puts in front.
fn essence(text: &str) -> &str {
    let line = text.lines().next().unwrap_or_default().trim();
    match line.split_once("] ") {
        Some((place, rest)) if place.starts_with('[') && place.contains(".cc:") => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::essence;

    #[test]
    fn the_place_in_gloos_sources_is_left_out_of_messages() {
        let text = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242\nmore";
        assert_eq!(essence(text), "Connection closed by peer [127.0.0.1]:4242");
    }

    #[test]
    fn brackets_that_are_not_a_place_stay() {
        assert_eq!(essence("[1, 2] is no shape"), "[1, 2] is no shape");
    }
}
